"""The JSON of streams and sessions: pydantic models for what comes in and for readers, dictionaries for the wire.

It says the same as the messages of `proto/reppose/v1/pose.proto`, under the same names.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from service.rest.schemas import (
    ClassifiedOut,
    KeypointOut,
    PoseResponse,
    Schema,
    heads_json,
    keypoints_json,
    prediction_json,
)
from service.status import Report
from service.streams.contract import Answered, Closing, Dropped, Mode, Opened, StreamConfig
from service.streams.session import StreamPose

Name = Annotated[str, Field(max_length=160)]


class SmoothingIn(Schema):
    """How points are calmed."""

    name: Annotated[str, Field(max_length=64)] | None = Field(None, examples=["one_euro"])
    """`none`, `ema`, `one_euro` (the default), or what a plug-in of the service offers."""
    parameters: dict[str, float] = Field(default_factory=dict, max_length=16)
    """Its settings by name; its own defaults where left out."""


class StreamConfigIn(Schema):
    """What a stream is: the first message over the WebSocket. What is left out is as in the session or token that is
    continued, else the default."""

    session: Annotated[str, Field(max_length=64)] | None = Field(None, examples=["camera-1"])
    """Name of a session that outlives the stream; without, what is remembered ends with it."""
    resume_token: str | None = None
    """Continue there, whatever the session of that name holds."""
    model: Name | None = None
    """`name` or `name@version`."""
    decoder: Name | None = None
    """How heatmaps become points."""
    smoothing: SmoothingIn = SmoothingIn()
    """How points are calmed."""
    tracking: bool | None = None
    """Look for people where they must be by now, instead of in the whole frame. On, unless told otherwise."""
    mode: Literal["live", "file"] = "live"
    """`live`: the newest frame wins. `file`: every frame is computed."""
    mailbox: int | None = Field(None, ge=1)
    """Of `live`: how many frames may wait; 1, unless told otherwise."""
    max_age_ms: float | None = Field(None, gt=0)
    """Of `live`: how old a frame may get; the service's limit, unless told otherwise."""

    def config(self) -> StreamConfig:
        """As the hub takes it."""
        return StreamConfig(
            session=self.session,
            resume_token=self.resume_token,
            model=self.model or None,
            decoder=self.decoder or None,
            smoothing=self.smoothing.name,
            parameters=self.smoothing.parameters,
            tracking=self.tracking,
            mode=Mode(self.mode),
            mailbox=self.mailbox,
            max_age_s=None if self.max_age_ms is None else self.max_age_ms / 1e3,
        )


class NextIn(Schema):
    """What to do with the next frame over the WebSocket."""

    boxes: Annotated[list[tuple[float, float, float, float]], Field(min_length=1)] | None = None
    """`[[x, y, width, height], ...]`, as of `/v1/pose`."""
    compare: bool = False
    """Every pose tells what all decoders find in it."""
    heatmaps: bool = False
    """Every pose holds its heatmaps."""
    min_presence: float | None = Field(None, ge=0, le=1)
    """As of `/v1/pose`."""
    want_token: bool = False
    """The answer shall hold a resume token."""


class ControlIn(Schema):
    """A text message after the first one."""

    next: NextIn | None = None
    """What to do with the next frame."""
    end: Literal[True] | None = None
    """There are no more frames: what was sent is answered, then the service closes."""


class TrackOut(Schema):
    """One person in a frame of a video."""

    id: int = Field(ge=0)
    """The person's identity, 1 and up, never used again in the stream; 0 for a pose that is nobody sure."""
    keypoints: list[KeypointOut]
    """Smoothed; the score of a joint that is hidden fades."""
    lag_ms: float
    """By how much the smoothed points of what moves are estimated to be late."""
    lag_frames: float
    """The same in frames."""
    reset: str | None = None
    """`gap` or `jump` where this person's past was forgotten before this frame."""
    presence: float | None = Field(None, ge=0, le=1)
    """As of `raw`, calmed: over time, and with a margin around `min_presence` so that nobody flickers. Where nobody is
    there, there are no keypoints."""
    classes: list[ClassifiedOut] | None = None
    """As of `raw`, calmed: the label changes when another class has been clearly likelier for a while."""


class FrameTimingOut(Schema):
    """Where the time of a frame went, in milliseconds."""

    queue_ms: float
    decode_ms: float
    infer_ms: float
    age_ms: float
    """From its arrival at the service to its answer."""


class OpenedOut(Schema):
    """What a stream or session came to be."""

    model: str
    """`name@version`."""
    decoder: str
    smoothing: SmoothingIn
    tracking: bool
    mode: Literal["live", "file"]
    mailbox: int
    max_age_ms: float
    resumed: bool
    """Whether there was something to continue."""
    last_sequence: int | None
    """Of the last frame of what is continued."""
    last_timestamp_s: float | None
    """When that frame was taken."""


class TrackedResponse(Schema):
    """The answer to one frame of a session."""

    session: OpenedOut
    """What the session was before this frame."""
    sequence: int | None
    """As sent."""
    raw: PoseResponse
    """As for an image by itself."""
    tracks: list[TrackOut]
    """One for each of `raw.poses`, in that order."""
    timing: FrameTimingOut
    resume_token: str | None = None
    """Where it was asked for."""


def opened_json(opened: Opened) -> dict[str, Any]:
    """Of an OpenedOut."""
    return {
        "model": opened.model,
        "decoder": opened.decoder,
        "smoothing": {"name": opened.smoothing, "parameters": dict(opened.parameters)},
        "tracking": opened.tracking,
        "mode": opened.mode.value,
        "mailbox": opened.mailbox,
        "max_age_ms": opened.max_age_s * 1e3,
        "resumed": opened.resumed,
        "last_sequence": opened.last_sequence,
        "last_timestamp_s": opened.last_time_s,
    }


def tracked_json(answer: Answered) -> dict[str, Any]:
    """Of a TrackedResponse, without its session and sequence."""
    prediction = answer.prediction
    timing = prediction.timing
    tracked = {
        "raw": orjson.Fragment(prediction_json(prediction)),
        "tracks": [_track(pose, prediction.keypoints) for pose in answer.poses],
        "timing": {
            "queue_ms": _ms(timing.queue_s),
            "decode_ms": _ms(timing.decode_s),
            "infer_ms": _ms(timing.infer_s),
            "age_ms": _ms(answer.age_s),
        },
    }
    if answer.token is not None:
        tracked["resume_token"] = answer.token
    return tracked


def dropped_json(dropped: Dropped) -> dict[str, Any]:
    """Why a frame was not looked at."""
    return {"reason": dropped.reason.value, "age_ms": _ms(dropped.age_s)}


def closing_json(closing: Closing) -> dict[str, Any]:
    """What a stream can be continued with."""
    return {"resume_token": closing.token}


def error_json(report: Report) -> dict[str, Any]:
    """What was wrong with a frame or a stream."""
    error = {"code": report.status.code, "message": report.message}
    return error if report.field is None else error | {"field": report.field}


def _track(pose: StreamPose, names: tuple[str, ...]) -> dict[str, Any]:
    track = {
        "id": pose.track_id or 0,
        "keypoints": keypoints_json(pose, names) if pose.present else [],
        "lag_ms": pose.lag_ms,
        "lag_frames": pose.lag_frames,
    }
    if pose.reset is not None:
        track["reset"] = pose.reset.value
    heads = pose.heads
    return (
        track if heads is None else track | heads_json(heads.presence, heads.classes if heads.present else ())
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
