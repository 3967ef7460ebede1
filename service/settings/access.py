"""Settings of who may ask, for what and how often."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, PositiveFloat, SecretStr, field_validator, model_validator

from service.settings.group import Group, NamedPath, split_commas

_TOKEN = re.compile(r"[!-~]{16,}")
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip


class AdminSettings(Group):
    """What an operator may ask over HTTP."""

    model_config = ConfigDict(hide_input_in_errors=True)

    enabled: bool = False
    """Whether `POST /v1/admin/reload`, which reads the models again as SIGHUP does, is there; it needs a token."""
    token: SecretStr = SecretStr("")
    """What such a request must send as `Authorization: Bearer <token>`: 16 or more ASCII characters without spaces. Not
    needed where credentials with the role admin do as well, see REPPOSE_AUTH__KEY_FILE."""

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        token = self.token.get_secret_value()
        if token and not _TOKEN.fullmatch(token):
            raise ValueError("token must hold 16 or more ASCII characters without spaces")
        return self


class AuthSettings(Group):
    """Who may ask. Without a file of keys and a file of token keys everybody may, except for what `admin` guards."""

    key_file: NamedPath | None = None
    """File of API keys, as `reppose-serve key` writes it; read again when it changes and on SIGHUP."""
    jwks_file: NamedPath | None = None
    """File of the public keys (a JSON Web Key Set) that sign the tokens of your identity provider; read again like the
    other. Needs the extra `auth`."""
    jwt_issuer: str = ""
    """What the claim `iss` of a token must say; needed with `jwks_file`."""
    jwt_audience: str = ""
    """What the claim `aud` of a token must hold; needed with `jwks_file`."""
    jwt_algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = (
        "RS256",
        "ES256",
        "EdDSA",
    )
    """How tokens may be signed, separated by commas. Algorithms with a shared secret, and none, cannot be allowed."""
    jwt_leeway_s: Annotated[float, Field(ge=0, le=600)] = 30.0
    """By how much the clocks of issuer and service may differ."""
    jwt_role_claim: Annotated[str, Field(min_length=1)] = "roles"
    """Claim that holds the roles, as a list or separated by spaces; dots go into objects, as in realm_access.roles."""
    reread_s: PositiveFloat = 2.0
    """How often to look whether the files have changed."""

    _split_algorithms = field_validator("jwt_algorithms", mode="before")(split_commas)

    @property
    def on(self) -> bool:
        """Whether credentials are asked for."""
        return self.key_file is not None or self.jwks_file is not None

    @model_validator(mode="after")
    def _check_issuer(self) -> Self:
        if self.jwks_file is not None and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError("jwks_file needs jwt_issuer and jwt_audience")
        return self


class RateSettings(Group):
    """What one client may ask for over time, in this process; a key may have rates of its own."""

    frames_per_s: Annotated[float, Field(ge=0)] = 0.0
    """Requests, and frames of streams; 0 for as many as there are."""
    frames_burst: Annotated[float, Field(ge=0)] = 0.0
    """How many of them may come at once after a rest; 0 for those of one second, and at least 1."""
    pixels_per_s: Annotated[float, Field(ge=0)] = 0.0
    """Pixels of the images, by their headers; 0 for as many as there are."""
    pixels_burst: Annotated[float, Field(ge=0)] = 0.0
    """How many of them may come at once after a rest; 0 for those of one second. A larger image needs all of them."""
    streams: Annotated[int, Field(ge=0)] = 0
    """Streams that may be open at once; 0 for as many as there are."""
    by_address: bool = False
    """Where no credentials are asked for, an address counts as one client (of IPv6 its /64 network). Of no use behind
    a proxy, whose address all clients share."""
