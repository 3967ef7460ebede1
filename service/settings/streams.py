"""Settings of video: sessions and open streams."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import (
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)

from service.settings.group import Group, split_commas


class SessionSettings(Group):
    """What is kept of a video stream between frames, requests and replicas."""

    model_config = ConfigDict(hide_input_in_errors=True)

    capacity: PositiveInt = 10_000
    """Most sessions kept in memory; one more evicts that which was idle for the longest."""
    memory_bytes: Annotated[int, Field(ge=8 * 1024 * 1024)] = 256 * 1024 * 1024
    """What the sessions kept in memory may take together; beyond it the same are evicted."""
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


class StreamSettings(Group):
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
    origins: tuple[str, ...] = ()
    """Web pages that may open the WebSocket, as https://example.org, separated by commas; * for all. Pages that come
    from the service's own host always may, and so may programs that are no browsers."""

    _split_origins = field_validator("origins", mode="before")(split_commas)
