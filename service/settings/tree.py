"""All settings as one tree, and their names in the environment."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings.access import AdminSettings, AuthSettings, RateSettings
from service.settings.group import FILE_SUFFIX
from service.settings.listeners import DrainSettings, GrpcSettings, HttpSettings, LimitSettings
from service.settings.models import BatchSettings, ModelSettings
from service.settings.observing import LogSettings
from service.settings.streams import SessionSettings, StreamSettings

ENV_PREFIX = "REPPOSE_"
ENV_DELIMITER = "__"


class Settings(BaseSettings):
    """Read once, by the command line; every other part is handed plain values."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    http: HttpSettings = HttpSettings()
    """The REST listener."""
    grpc: GrpcSettings = GrpcSettings()
    """The gRPC listener."""
    models: ModelSettings = ModelSettings()
    """Which models are served."""
    limits: LimitSettings = LimitSettings()
    """What one request may ask for."""
    batch: BatchSettings = BatchSettings()
    """How frames share a call of the model."""
    admin: AdminSettings = AdminSettings()
    """What an operator may ask over HTTP."""
    auth: AuthSettings = AuthSettings()
    """Who may ask."""
    rates: RateSettings = RateSettings()
    """What one client may ask for over time."""
    sessions: SessionSettings = SessionSettings()
    """What is kept of a video stream."""
    streams: StreamSettings = StreamSettings()
    """Video over one connection."""
    drain: DrainSettings = DrainSettings()
    """What happens between SIGTERM and the exit."""
    log: LogSettings = LogSettings()
    """What is written to stderr."""

    @model_validator(mode="after")
    def _check_admin(self) -> Self:
        if self.admin.enabled and not (self.admin.token.get_secret_value() or self.auth.on):
            raise ValueError("admin: enabled needs a token, or credentials with the role admin (auth)")
        return self


def names() -> Iterator[tuple[str, str, object]]:
    """(name of the environment variable, its meaning, its default) of every setting."""
    for group, field in Settings.model_fields.items():
        for name, inner in type(field.default).model_fields.items():
            variable = f"{ENV_PREFIX}{group}{ENV_DELIMITER}{name}".upper()
            yield variable, inner.description or "", inner.default


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """A warning for every REPPOSE_* variable that no setting reads."""
    known = {name for name, _, _ in names()} | {
        f"{ENV_PREFIX}{group}".upper() for group in Settings.model_fields
    }
    known |= {
        f"{ENV_PREFIX}{group}{ENV_DELIMITER}{name}{FILE_SUFFIX}".upper()
        for group, field in Settings.model_fields.items()
        for name in type(field.default).secrets()
    }
    warnings = []
    for name in sorted(environment):
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.75)
            warnings.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    return warnings
