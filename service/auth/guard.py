"""Lets in whom the settings let in: from what a client sent to who it is, what it may do and what it has left.

A credential that was found good is remembered by its digest, so that the signature of a token is verified once and not
for every frame. What is remembered is forgotten when the files of credentials are read again. Nothing is remembered of
bad ones.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from service.auth.rates import NO_LIMITS, Account, Accounts, Limits
from service.auth.roles import Role
from service.errors import PermissionDenied, Unauthenticated
from service.types import Frame

LONGEST_CREDENTIAL = 8192
"""Characters; nothing longer is looked at."""
MOST_KNOWN = 4096
"""Credentials that are remembered."""
_V6_NETWORK = 64


@dataclass(frozen=True, slots=True)
class Verified:
    """What a credential says, if it is good."""

    owner: str
    """Of sessions; the same for all credentials of one client."""
    name: str
    """For the log."""
    roles: frozenset[Role]
    expires_s: float = math.inf
    """Seconds since 1970."""
    limits: Limits | None = None
    """None for those of the settings."""


class Verifier(Protocol):
    """One kind of credentials."""

    def verify(self, credential: str) -> Verified | None:
        """What the credential says, also after it has expired; None where it is not a good one of this kind."""
        ...


class Secret:
    """One credential that the settings hold themselves."""

    def __init__(self, secret: str, verified: Verified) -> None:
        self._digest = hashlib.sha256(secret.encode()).digest()
        self._verified = verified

    def verify(self, credential: str) -> Verified | None:
        """As in `Verifier`."""
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
        return self._verified if hmac.compare_digest(digest, self._digest) else None


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """A client that was let in."""

    owner: str
    """Of sessions; empty where everybody may ask."""
    name: str
    roles: frozenset[Role]
    expires_s: float
    account: Account
    """What it has left."""

    def metered(self, frame: Frame) -> Frame:
        """The frame, whose pixels this client pays for."""
        return replace(frame, meter=self.account.pixels) if self.account.counts_pixels else frame


NOBODY_IN_PARTICULAR = Caller("", "", frozenset(Role), math.inf, Account(NO_LIMITS))
"""Who asks where everybody may."""


class Guard:
    """Who may ask.

    Args:
        verifiers: kinds of credentials; each credential is shown to all, until one knows it.
        open_to_all: roles that need no credential.
        limits: of clients without limits of their own.
        by_address: an address has those limits where no credential is needed.
        rejected: told the reason of every refusal, for the metrics.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        verifiers: Sequence[Verifier] = (),
        *,
        open_to_all: frozenset[Role] = frozenset(Role),
        limits: Limits = NO_LIMITS,
        by_address: bool = False,
        rejected: Callable[[str], None] = lambda reason: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifiers, self._open, self._limits = tuple(verifiers), open_to_all, limits
        self._by_address = by_address and not limits.none
        self._rejected, self._clock = rejected, clock
        self._known: OrderedDict[bytes, Caller] = OrderedDict()
        self._accounts = Accounts(rejected)
        self.active = open_to_all != frozenset(Role) or self._by_address
        """Whether there is anything to look at."""

    def replace(self, verifiers: Sequence[Verifier]) -> None:
        """Believe these from now on, and nothing that was found good before."""
        self._verifiers = tuple(verifiers)
        self._known.clear()

    def admit(self, credential: str | None, role: Role, address: str = "") -> Caller:
        """Who asks, if it may.

        Args:
            credential: as sent; None or empty where none was.
            role: what is asked for.
            address: IP address of the peer, where it has one.

        Raises:
            Unauthenticated: there is no credential, or none that is good.
            PermissionDenied: it is not good for this.
        """
        if role in self._open:
            return self._from(address) if self._by_address else NOBODY_IN_PARTICULAR
        if not credential:
            self._rejected("no_credential")
            raise Unauthenticated("send a key or token: Authorization: Bearer <key>", sent=False)
        if len(credential) > LONGEST_CREDENTIAL:
            self._rejected("bad_credential")
            raise Unauthenticated(f"a credential has at most {LONGEST_CREDENTIAL} characters", sent=True)
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
        caller = self._known.get(digest) or self._verified(credential, digest)
        if caller.expires_s <= self._clock():
            self._known.pop(digest, None)
            self._rejected("expired")
            raise Unauthenticated("the credential has expired", sent=True)
        if role not in caller.roles:
            self._rejected("wrong_role")
            raise PermissionDenied(f"this needs the role {role.value}, which the credential does not have")
        return caller

    def is_open(self, role: Role) -> bool:
        """Whether this needs no credential."""
        return role in self._open

    def undeclared(self) -> PermissionDenied:
        """What is answered where nobody has said who may ask."""
        self._rejected("wrong_role")
        return PermissionDenied("nobody may ask for this")

    def _verified(self, credential: str, digest: bytes) -> Caller:
        for verifier in self._verifiers:
            if (found := verifier.verify(credential)) is not None:
                break
        else:
            self._rejected("bad_credential")
            raise Unauthenticated("the credential is not known here", sent=True)
        limits = self._limits if found.limits is None else found.limits
        caller = Caller(
            found.owner, found.name, found.roles, found.expires_s, self._accounts.of(found.owner, limits)
        )
        self._known[digest] = caller
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return caller

    def _from(self, address: str) -> Caller:
        account = self._accounts.of(f"address:{network(address)}", self._limits)
        return Caller("", "", self._open, math.inf, account)


OPEN_TO_ALL = Guard()
"""Everybody may ask for everything."""


def network(address: str) -> str:
    """What counts as one client: an IPv4 address, the /64 network of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket file has none
        return ""
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _V6_NETWORK), strict=False))
