"""All settings as one tree, and everything that is known about each."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator
from pydantic.fields import FieldInfo

from service.settings.access import AdminSettings, AuthSettings, RateSettings
from service.settings.group import Group
from service.settings.listeners import DrainSettings, GrpcSettings, HttpSettings, LimitSettings
from service.settings.models import BatchSettings, ModelSettings
from service.settings.observing import LogSettings, MetricsSettings, TracingSettings
from service.settings.streams import SessionSettings, StreamSettings
from service.settings.tls import TlsSettings

ENV_PREFIX = "REPPOSE_"
ENV_DELIMITER = "__"


class Settings(BaseModel):
    """Read once, by the command line (`reading.read`); every other part is handed plain values."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    http: HttpSettings = HttpSettings()
    """The REST listener."""
    grpc: GrpcSettings = GrpcSettings()
    """The gRPC listener."""
    tls: TlsSettings = TlsSettings()
    """Encryption of both listeners, TLS 1.2 or newer; without a certificate they are plain."""
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
    metrics: MetricsSettings = MetricsSettings()
    """Where Prometheus finds the metrics."""
    tracing: TracingSettings = TracingSettings()
    """Spans of requests and their stages."""

    @model_validator(mode="after")
    def _check_admin(self) -> Self:
        if self.admin.enabled and not (self.admin.token.get_secret_value() or self.auth.on):
            raise ValueError("admin: enabled needs a token, or credentials with the role admin (auth)")
        return self


@dataclass(frozen=True)
class Setting:
    """One field of one group."""

    group: str
    name: str
    meaning: str
    default: object
    kind: str
    """What it takes, in words."""
    secret: bool

    @property
    def key(self) -> str:
        """Its name in the file."""
        return f"{self.group}.{self.name}"

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return variable(self.group, self.name)


def variable(group: str, name: str) -> str:
    """Name of a setting in the environment."""
    return f"{ENV_PREFIX}{group}{ENV_DELIMITER}{name}".upper()


def groups() -> Iterator[tuple[str, type[Group], str]]:
    """(name, class, meaning) of every group."""
    for name, field in Settings.model_fields.items():
        yield name, type(field.default), field.description or ""


def known() -> Iterator[Setting]:
    """Every setting, in the order of the tree."""
    for group, model, _ in groups():
        for name, field in model.model_fields.items():
            meaning = " ".join((field.description or "").split())
            yield Setting(group, name, meaning, field.default, _kind(field), name in model.secrets())


def names() -> Iterator[tuple[str, str, object]]:
    """(name of the environment variable, its meaning, its default) of every setting."""
    for each in known():
        yield each.variable, each.meaning, each.default


_NAMES: dict[object, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret text",
    type(None): "nothing",
}
_BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}


def _kind(field: FieldInfo) -> str:
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, metadata: Any = ()) -> str:
    """A type in words, with its bounds."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0], inner[1:])
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(each) for each in inner)
    if origin in (tuple, list, frozenset):
        return f"list of {_words(inner[0])}"
    marks = [mark for each in metadata for mark in getattr(each, "metadata", [each])]
    bounds = [
        f"{word} {getattr(mark, name)}"
        for mark in marks
        for name, word in _BOUNDS.items()
        if hasattr(mark, name)
    ]
    return " ".join([_NAMES[annotation], *bounds])
