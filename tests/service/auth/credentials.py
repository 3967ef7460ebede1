"""Credentials of every kind, good and bad, and the files that a service knows them by."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.auth import keys
from service.auth.roles import Role

ISSUER, AUDIENCE = "https://issuer.example.org", "poses"
SIGNER = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()
ALL = tuple(Role)


def jwk(key: Any, kid: str = "one", **more: str) -> dict[str, Any]:
    """The public half of a key, as it stands in a key set."""
    algorithm = jwt.algorithms.OKPAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"} | more


def key_set(*found: dict[str, Any]) -> str:
    """A key set of these keys, of the signer alone where there are none."""
    return json.dumps({"keys": list(found) or [jwk(SIGNER)]})


def claims(subject: str = "somebody", roles: Any = ("predict",), **more: Any) -> dict[str, Any]:
    """Claims of a good token; None leaves one out."""
    now_s = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": now_s + 600, "roles": list(roles)}
    return {name: value for name, value in (usual | more).items() if value is not None}


def token(subject: str = "somebody", roles: Any = ("predict",), *, by: Any = SIGNER, **more: Any) -> str:
    """A token, signed by the signer unless told otherwise."""
    return jwt.encode(claims(subject, roles, **more), by, "EdDSA", headers={"kid": "one"})


class Credentials:
    """Files in a folder, and what is good by them."""

    def __init__(self, folder: Path) -> None:
        self.key_file, self.jwks_file = folder / "keys.toml", folder / "jwks.json"
        self.jwks_file.write_text(key_set())

    @property
    def settings(self) -> dict[str, str]:
        """For the environment of a service that asks for credentials of either kind."""
        return {
            "REPPOSE_AUTH__KEY_FILE": str(self.key_file),
            "REPPOSE_AUTH__JWKS_FILE": str(self.jwks_file),
            "REPPOSE_AUTH__JWT_ISSUER": ISSUER,
            "REPPOSE_AUTH__JWT_AUDIENCE": AUDIENCE,
            "REPPOSE_AUTH__JWT_LEEWAY_S": "0",
            "REPPOSE_AUTH__REREAD_S": "0.1",
        }

    def key(self, name: str, *roles: Role, days: float | None = None, **limits: float) -> str:
        """A new key, in the file."""
        expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
        secret, entry = keys.make(name, roles or (Role.PREDICT,), expires, limits)
        keys.add(self.key_file, entry)
        return secret

    def of_keys(self, role: Role) -> dict[str, str | None]:
        """Every case of a key, for something that needs this role."""
        return {
            "none": None,
            "bad": self.key("tampered", *ALL)[:-1] + "!",
            "unknown": keys.make("unknown", ALL)[0],
            "expired": self.key("expired", *ALL, days=-1),
            "wrong role": self.key("wrong", *(each for each in ALL if each is not role)),
            "good": self.key("good", role),
        }

    def of_tokens(self, role: Role) -> dict[str, str | None]:
        """Every case of a token, for something that needs this role."""
        return {
            "none": None,
            "bad": token(roles=ALL, by=STRANGER),
            "unknown": token(roles=ALL, aud="others"),
            "expired": token(roles=ALL, exp=int(time.time()) - 5),
            "wrong role": token(roles=[each for each in ALL if each is not role]),
            "good": token(roles=[role]),
        }


def bearer(credential: str | None) -> dict[str, str]:
    """The header that shows a credential."""
    return {} if not credential else {"Authorization": f"Bearer {credential}"}
