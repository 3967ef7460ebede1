"""The environment, read once.

Every value has a default that suits a laptop or a small server. `REPPOSE_<GROUP>__<NAME>` changes it, for example
`REPPOSE_HTTP__PORT=9000`. A misspelt name inside a group is an error; `unknown_names` finds the others. What is secret
may stand in a file instead, as container engines mount it: `REPPOSE_<GROUP>__<NAME>_FILE` is its path.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model_zoo import bundle

ENV_PREFIX = "REPPOSE_"
ENV_DELIMITER = "__"
FILE_SUFFIX = "_file"

_TOKEN = re.compile(r"[!-~]{16,}")

Port = Annotated[int, Field(ge=0, le=65535)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def secrets(cls) -> list[str]:
        """Names of the settings that may be read from a file: NAME_file is its path."""
        return [name for name, field in cls.model_fields.items() if field.annotation is SecretStr]

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, given: object) -> object:
        """Put what the files hold in the place of their paths; a newline at the end is no part of a secret."""
        if not isinstance(given, Mapping):
            return given
        values = dict(given)
        for name in cls.secrets():
            path = values.pop(name + FILE_SUFFIX, None)
            if not path:
                continue
            if name in values:
                raise ValueError(f"{name} and {name}{FILE_SUFFIX} exclude each other")
            try:
                values[name] = Path(path).read_text("utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{name}{FILE_SUFFIX}: cannot read {path}: {error}") from None
        return values


class HttpSettings(_Group):
    """The REST listener."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of them."""
    port: Port = 8000
    """Port to listen on; 0 takes any free one and logs it."""
    keep_alive_s: PositiveInt = 30
    """How long an idle connection stays open."""


class GrpcSettings(_Group):
    """The gRPC listener."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of them."""
    port: Port = 50051
    """Port to listen on; 0 takes any free one and logs it."""
    stream_frames: PositiveInt = 16
    """Most unanswered frames of one stream; the next is read when one was answered."""


class ModelSettings(_Group):
    """Which models are served."""

    roots: Annotated[tuple[Path, ...], NoDecode] = (bundle.BUILTIN,)
    """Folders of bundles, separated by colons like PATH; every bundle in them is loaded."""
    default: str = "body19-small"
    """Model of a request that names none: `name` for its latest version, or `name@version`."""
    precision: Literal["auto", "fp32", "int8"] = "auto"
    """What the models compute in; auto takes 8 bits where a bundle has such a graph."""
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "openvino"] = "cpu"
    """What runs the models; one that is not there ends the start, only auto goes from cuda to cpu by itself."""

    @field_validator("roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


class LimitSettings(_Group):
    """What one request may ask for."""

    image_bytes: PositiveInt = 20 * 1024 * 1024
    """Most bytes of an encoded image."""
    image_pixels: PositiveInt = 40_000_000
    """Most pixels of an image, judged by its header."""
    image_side: Annotated[int, Field(ge=1, le=32_000)] = 16_384
    """Most pixels along one side."""
    boxes: PositiveInt = 32
    """Most boxes of one request."""


class BatchSettings(_Group):
    """How frames of many clients share one call of the model."""

    mode: Literal["auto", "fused", "pipelined"] = "auto"
    """fused: the workers run the net themselves; pipelined: one thread runs it for all of them, which take twice as
    many threads; auto: pipelined on cuda and tensorrt, else fused."""
    window_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """Longest that a call of the net waits for the crops of other workers; in pipelined mode only."""
    size: PositiveInt = 8
    """Most crops in one call, and most frames that one worker takes at once."""
    queue: PositiveInt = 256
    """Most frames waiting per model; one more is refused at once."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Threads per model; 0 for one per processor that this process may use (affinity and cgroup quota), two in
    pipelined mode."""
    pin: Literal["auto", "on", "off"] = "auto"
    """Tie each worker to one processor; auto does where there is one worker per processor of the affinity mask."""
    stuck_s: PositiveFloat = 30.0
    """A worker that has been at its batch for this long, and for ten times what a batch costs, hangs: its batch fails
    and another worker takes its place."""


class AdminSettings(_Group):
    """What an operator may ask over HTTP."""

    model_config = ConfigDict(hide_input_in_errors=True)

    enabled: bool = False
    """Whether `POST /v1/admin/reload`, which reads the models again as SIGHUP does, is there; it needs a token."""
    token: SecretStr = SecretStr("")
    """What such a request must send as `Authorization: Bearer <token>`: 16 or more ASCII characters without spaces."""

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        if self.enabled and not _TOKEN.fullmatch(self.token.get_secret_value()):
            raise ValueError("token must hold 16 or more ASCII characters without spaces")
        return self


class SessionSettings(_Group):
    """What is kept of a video stream between frames, requests and replicas."""

    model_config = ConfigDict(hide_input_in_errors=True)

    capacity: PositiveInt = 10_000
    """Most sessions kept in memory; one more evicts that which was idle for the longest."""
    idle_s: PositiveFloat = 60.0
    """How long a session is kept that nobody asks for."""
    store_url: SecretStr = SecretStr("")
    """Redis that replicas share, as redis://, rediss:// or unix:// URL; empty to keep sessions in memory."""
    store_timeout_s: PositiveFloat = 0.5
    """How long to wait for the shared store."""
    store_prefix: Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,64}$")] = "reppose"
    """Begins all names in the shared store."""
    token_keys: SecretStr = SecretStr("")
    """Keys of the resume tokens, separated by commas, 16 or more characters each: the first signs, all are accepted.
    Replicas need the same ones; empty for a random key, so that a token is good in the process that made it only."""
    token_age_s: PositiveFloat = 300.0
    """How long a resume token is good for."""
    token_chars: Annotated[int, Field(ge=1024, le=1_048_576)] = 262_144
    """Longest resume token."""

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if any(len(key) < 16 for key in self.keys):
            raise ValueError("each of token_keys must have 16 or more characters")
        return self

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys; none where the setting is empty."""
        text = self.token_keys.get_secret_value()
        return tuple(key.strip().encode() for key in text.split(",")) if text else ()


class StreamSettings(_Group):
    """Video over one connection: gRPC's EstimateStream with a config, and the WebSocket."""

    count: PositiveInt = 256
    """Most open streams; one more is refused."""
    mailbox: PositiveInt = 16
    """Most frames that a live stream may let wait; it has 1 unless it asks for more."""
    frame_age_s: PositiveFloat = 1.0
    """How old a live frame may get before it is dropped; a stream may ask for less."""
    idle_s: PositiveFloat = 60.0
    """A stream that neither sends nor reads anything for this long is ended."""
    save_s: PositiveFloat = 5.0
    """How often the session of an open stream is saved; let it be less than half of REPPOSE_SESSIONS__IDLE_S."""
    in_flight: PositiveInt = 1
    """Most frames of one stream in a model's queue, where it does without tracking; more make a lone stream faster, and
    give it a larger share."""
    window: PositiveInt = 16
    """Most unanswered frames of a file stream; the next is read when one was answered."""
    origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Web pages that may open the WebSocket, as https://example.org, separated by commas; * for all. Pages that come
    from the service's own host always may, and so may programs that are no browsers."""

    @field_validator("origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )


class DrainSettings(_Group):
    """What happens between SIGTERM and the exit."""

    notice_s: Annotated[float, Field(ge=0)] = 0.0
    """How long to go on accepting after readiness turned false, so that a load balancer can notice."""
    timeout_s: PositiveFloat = 20.0
    """Longest time to finish what was accepted."""


class LogSettings(_Group):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important lines to write."""
    format: Literal["auto", "json", "text"] = "auto"
    """auto writes text to a terminal and JSON lines elsewhere."""
    requests: bool = True
    """Write a line for every request."""


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
    sessions: SessionSettings = SessionSettings()
    """What is kept of a video stream."""
    streams: StreamSettings = StreamSettings()
    """Video over one connection."""
    drain: DrainSettings = DrainSettings()
    """What happens between SIGTERM and the exit."""
    log: LogSettings = LogSettings()
    """What is written to stderr."""


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
