"""Tokens of an identity provider: JSON Web Tokens, signed with keys whose public halves stand in a file.

Only signatures with a key pair are taken, each key only with the algorithms of its own kind: what a token says about
how it is signed chooses among these, and cannot turn a public key into a shared secret. Keys are fetched from nowhere.

Sources: RFC 7519 (JWT), RFC 7517 (JWK), RFC 8725 (what has gone wrong with them).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from service.auth.guard import Verified
from service.auth.roles import Role
from service.errors import BadCredentialFile

LEAST_RSA_BITS = 2048
_LONGEST_SUBJECT = 256
_FAR_S = 1e12
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
ALGORITHMS = _RSA | frozenset(_CURVES.values())
_SECRET = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
"""Members of a JWK that no public key has (RFC 7518, section 6)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tokens are believed."""

    issuer: str
    audience: str
    algorithms: Sequence[str]
    leeway_s: float = 30.0
    role_claim: str = "roles"


class Tokens:
    """The tokens that the keys of a file have signed.

    Args:
        text: a JSON Web Key Set.
        rules: which of them are believed.

    Raises:
        BadCredentialFile: it is no key set, holds a secret, or no key that the rules allow.
    """

    def __init__(self, text: str, rules: Rules) -> None:
        if strange := set(rules.algorithms) - ALGORITHMS:
            raise ValueError(f"tokens cannot be signed with {', '.join(sorted(strange))}")
        self._rules = rules
        self._keys: list[dict[str, jwt.PyJWK]] = [
            usable for each in _key_set(text) if (usable := _usable(each, rules.algorithms))
        ]
        if not self._keys:
            raise BadCredentialFile("it holds no key that can check a signature as the settings allow")

    def __len__(self) -> int:
        return len(self._keys)

    def verify(self, credential: str) -> Verified | None:
        """Who a token is about, also after it has expired; None where it is none that is believed."""
        try:
            claims = self._claims(credential)
            roles = _roles(claims, self._rules.role_claim)
        except (
            Exception
        ):  # whatever it is that a parser of what strangers send trips over, it is no good token
            return None
        subject, expires_s = claims["sub"], claims["exp"]
        if not 0 < len(subject) <= _LONGEST_SUBJECT:
            return None
        if type(expires_s) not in (int, float) or not -_FAR_S < expires_s < _FAR_S:
            return None
        return Verified(f"jwt:{subject}", subject, roles, expires_s + self._rules.leeway_s)

    def _claims(self, credential: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(credential)
        kid, algorithm = header.get("kid"), header["alg"]
        fitting = [
            keys[algorithm]
            for keys in self._keys
            if algorithm in keys and kid in (None, keys[algorithm].key_id)
        ]
        if len(fitting) != 1:  # a token that does not say which key must leave no choice
            raise jwt.InvalidKeyError
        rules = self._rules
        return jwt.decode(
            credential,
            fitting[0],
            algorithms=[algorithm],
            issuer=rules.issuer,
            audience=rules.audience,
            leeway=rules.leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"], "verify_exp": False},  # the guard looks at it
        )


def _key_set(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
        keys = found["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadCredentialFile('it is no JSON Web Key Set: {"keys": [...]}') from None
    if not isinstance(keys, list) or not all(isinstance(each, dict) for each in keys):
        raise BadCredentialFile("its keys are no list of objects")
    if any(each.get("kty") == "oct" or _SECRET & each.keys() for each in keys):
        raise BadCredentialFile("it holds a secret key; only public keys belong there")
    return keys


def _usable(found: dict[str, Any], allowed: Sequence[str]) -> dict[str, jwt.PyJWK]:
    """A key by each algorithm that it may check; empty for one of another kind or use, which RFC 7517 has ignored."""
    if found.get("use", "sig") != "sig":
        return {}
    try:
        fitting = _RSA if found.get("kty") == "RSA" else {_CURVES.get(found.get("crv"))}
        if "alg" in found:
            fitting = fitting & {found["alg"]}
        keys = {name: jwt.PyJWK(found, name) for name in allowed if name in fitting}
    except (jwt.PyJWTError, ValueError, TypeError):
        raise BadCredentialFile(f"its key {str(found.get('kid'))[:80]!r} is broken") from None
    for key in keys.values():
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < LEAST_RSA_BITS:
            raise BadCredentialFile(f"an RSA key has less than {LEAST_RSA_BITS} bits")
    return keys


def _roles(claims: dict[str, Any], name: str) -> frozenset[Role]:
    """Those of our roles that a claim holds; it may have others, for other services."""
    found: Any = claims
    for part in [name] if name in claims else name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    given = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    return frozenset(role for role in Role if role.value in given)
