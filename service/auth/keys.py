"""API keys: what they look like, and the file that says whose they are.

A key is `rp_<id>_<secret>`: 12 characters that name it, and 256 random bits. The file holds the SHA-256 of the whole,
so that whoever reads the file cannot ask for anything. A slow hash would add nothing: it protects secrets that can be
guessed, and 256 random bits cannot.

    [[key]]
    name = "camera-1"                  # whose it is: several keys of one name are one client, as while one is changed
    id = "4f0c6a8e2b17"
    sha256 = "9f86d081..."
    roles = ["predict"]
    expires = 2027-01-01T00:00:00Z     # optional
    frames_per_s = 30                  # optional: limits of its own, see REPPOSE_RATES__*
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import re
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.auth.guard import Verified
from service.auth.rates import NO_LIMITS, Limits
from service.auth.roles import Role
from service.errors import BadCredentialFile

_KEY = re.compile(r"rp_([0-9a-f]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
_NOBODY = bytes(hashlib.sha256().digest_size)
_Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Entry(BaseModel):
    """One key in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    expires: AwareDatetime | None = None
    frames_per_s: _Rate | None = None
    frames_burst: _Rate | None = None
    pixels_per_s: _Rate | None = None
    pixels_burst: _Rate | None = None
    streams: Annotated[int, Field(ge=0)] | None = None

    def limits(self, others: Limits) -> Limits:
        """Its own limits, and those of `others` where it has none."""
        own = {each.name: getattr(self, each.name) for each in fields(Limits)}
        return Limits(**{name: getattr(others, name) if own[name] is None else own[name] for name in own})


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: list[Entry] = []


class Keys:
    """The keys of a file.

    Args:
        text: what the file says.
        limits: of keys that say nothing of their own.

    Raises:
        BadCredentialFile: it is not as above, two keys share an id, or those of one name have different limits.
    """

    def __init__(self, text: str, limits: Limits = NO_LIMITS) -> None:
        self._by_id: dict[str, tuple[bytes, Verified]] = {}
        by_name: dict[str, Limits] = {}
        for entry in _entries(text):
            own = entry.limits(limits)
            if entry.id in self._by_id:
                raise BadCredentialFile(f"two keys have the id {entry.id}")
            if by_name.setdefault(entry.name, own) != own:
                raise BadCredentialFile(f"the keys of {entry.name} have different limits")
            expires_s = math.inf if entry.expires is None else entry.expires.timestamp()
            verified = Verified(f"key:{entry.name}", entry.name, frozenset(entry.roles), expires_s, own)
            self._by_id[entry.id] = bytes.fromhex(entry.sha256), verified

    def __len__(self) -> int:
        return len(self._by_id)

    def verify(self, credential: str) -> Verified | None:
        """Whose key this is, also after it has expired; None where it is none of these."""
        if (shape := _KEY.fullmatch(credential)) is None:
            return None
        digest, verified = self._by_id.get(shape[1], (_NOBODY, None))
        # Of an id that is not there as well, so that the time it takes does not tell which ids there are.
        right = hmac.compare_digest(hashlib.sha256(credential.encode()).digest(), digest)
        return verified if right else None


def _entries(text: str) -> list[Entry]:
    try:
        return _File.model_validate(tomllib.loads(text)).key
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise BadCredentialFile(f"{where}: {fault['msg']}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits is no TOMLDecodeError
        raise BadCredentialFile(f"it is no TOML: {error}") from None


def make(
    name: str, roles: Sequence[Role], expires: datetime | None = None, limits: dict[str, float] | None = None
) -> tuple[str, str]:
    """A new key.

    Returns:
        The key, which is nowhere else; and its entry for the file.

    Raises:
        BadCredentialFile: there can be no such key.
    """
    if not _NAME.fullmatch(name):
        raise BadCredentialFile("a name has 1 to 64 letters, digits or characters of ._@-")
    number = secrets.token_hex(6)
    key = f"rp_{number}_{secrets.token_urlsafe(32)}"
    lines = ["[[key]]", f'name = "{name}"', f'id = "{number}"']
    lines += [f'sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"']
    lines += [f"roles = {json.dumps([role.value for role in roles])}"]
    if expires is not None:
        lines.append(f"expires = {expires.astimezone(UTC).isoformat(timespec='seconds')}")
    lines += [f"{field} = {value!r}" for field, value in (limits or {}).items()]
    entry = "\n".join(lines) + "\n"
    _entries(entry)
    return key, entry


def own_limits(text: str, name: str) -> dict[str, float]:
    """The limits that the keys of a name have of their own, as `make` takes them. Raises BadCredentialFile."""
    found = [entry for entry in _entries(text) if entry.name == name]
    return {
        each.name: value
        for each in fields(Limits)
        for value in [getattr(found[-1], each.name) if found else None]
        if value is not None
    }


def read(path: Path) -> str:
    """A file's text; empty where there is none yet. Raises OSError, BadCredentialFile."""
    try:
        return path.read_text("utf-8") if path.exists() else ""
    except UnicodeDecodeError:
        raise BadCredentialFile(f"{path} is no UTF-8") from None


def add(path: Path, entry: str) -> None:
    """Write an entry at the end of a file, which only its owner may read if it is new.

    Raises:
        BadCredentialFile: the file is broken, or would be.
        OSError: it cannot be written.
    """
    text = read(path)
    more = ("" if not text else "\n" if text.endswith("\n") else "\n\n") + entry
    Keys(text + more)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(more)
