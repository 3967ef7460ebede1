"""What both transports speak about when a client streams video.

The rules of the contract stand in `proto/reppose/v1/pose.proto` and are kept by `live.Stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from service.streams.session import StreamPose
from service.types import Frame, Options, Prediction

MAX_SEQUENCE = 2**63 - 1


class Mode(StrEnum):
    """What matters to a stream."""

    LIVE = "live"
    """Being up to date: the newest frame wins."""
    FILE = "file"
    """Being complete: every frame is computed."""


class DropReason(StrEnum):
    """Why a frame was not looked at."""

    SUPERSEDED = "superseded"
    """A newer frame took its place."""
    DEADLINE = "deadline"
    """It became too old, or would have before the answer."""
    OVERLOADED = "overloaded"
    """The service's queue was full."""
    DRAINING = "draining"
    """The service stops."""


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What a client asks for. None takes what is continued, else the default."""

    session: str | None = None
    """Name of what outlives the stream; None where nothing shall."""
    resume_token: str | None = None
    model: str | None = None
    decoder: str | None = None
    smoothing: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    """Of the smoother; empty for its own."""
    tracking: bool | None = None
    mode: Mode = Mode.LIVE
    mailbox: int | None = None
    max_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """What the client got."""

    model: str
    """`name@version`."""
    decoder: str
    smoothing: str
    parameters: Mapping[str, float]
    tracking: bool
    mode: Mode
    mailbox: int
    max_age_s: float
    resumed: bool
    """Whether there was something to continue."""
    last_sequence: int | None
    """Of the last frame of what is continued."""
    last_time_s: float | None
    """When that frame was taken."""


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """One frame as it came in."""

    sequence: int
    frame: Frame
    options: Options
    timestamp_s: float | None = None
    """When it was taken; None for when it arrived."""
    want_token: bool = False
    error: Exception | None = None
    """What the transport found wrong with it: its answer."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A frame with its people."""

    sequence: int | None
    prediction: Prediction
    poses: Sequence[StreamPose]
    """One per pose of the prediction."""
    age_s: float
    """From its arrival to this answer."""
    token: str | None = None
    """Where it was asked for."""
    smooth_s: float = field(default=0.0, compare=False)
    """How long it took to find the people again and to smooth their points."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A frame that has no answer but an error."""

    sequence: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Dropped:
    """A frame that was not looked at."""

    sequence: int
    reason: DropReason
    age_s: float
    """From its arrival."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The service stops; nothing comes after it."""

    token: str
    sequence: int | None
    """Of the last frame in the token."""


Outcome = Answered | Failed | Dropped | Closing


@dataclass(frozen=True, slots=True)
class Clocks:
    """What time it is."""

    monotonic: Callable[[], float]
    """As `time.monotonic`, which the deadlines of `predict` are by."""
    wall: Callable[[], float]
    """As `time.time`: the same on all replicas."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What streams may do."""

    streams: int = 256
    """Most open streams."""
    mailbox: int = 16
    """Most frames that may wait in a live stream."""
    max_age_s: float = 1.0
    """After this long a live frame is not worth an answer."""
    idle_s: float = 60.0
    """How long a stream may be silent."""
    save_s: float = 5.0
    """How often the session of an open stream is saved."""
    in_flight: int = 1
    """Most frames of a stream without tracking in a model's queue."""
    window: int = 16
    """Most unanswered frames of a file stream."""
    boxes: int = 32
    """Most boxes of one frame."""
    log: bool = True
    """Write a line for every stream that has ended."""
