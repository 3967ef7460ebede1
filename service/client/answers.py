"""What the service answers, as arrays; and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from service.pb.reppose.v1 import pose_pb2 as pb
from service.types import Box, BoxSource, Classified, Floats

LOST = "lost"
"""Why a frame has no answer: the connection broke after it was sent. The only reason that no server gives."""
SUPERSEDED = "superseded"
"""Why a frame has no answer: a newer one took its place, here or at the service."""

_SOURCES = {
    pb.BOX_SOURCE_REQUEST: BoxSource.REQUEST,
    pb.BOX_SOURCE_FOUND: BoxSource.FOUND,
    pb.BOX_SOURCE_IMAGE: BoxSource.IMAGE,
}
_PREFIX = "DROP_REASON_"


class ClientError(Exception):
    """What went wrong with a call or a frame.

    Attributes:
        code: stable name of the error, such as `invalid_image`; `connection` where no service said anything.
        field: the field of the request that is wrong; None where there is none.
        status: the gRPC status.
        retry_after_s: when trying again may make sense; None where the service did not say.
    """

    def __init__(
        self,
        message: str,
        code: str,
        field: str | None,
        status: grpc.StatusCode,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.field, self.status, self.retry_after_s = code, field, status, retry_after_s


@dataclass(frozen=True, slots=True)
class Said:
    """What a model says of somebody beside the keypoints."""

    presence: float | None
    """Probability that somebody is there; None of a model that does not tell."""
    classes: Mapping[str, Classified]
    """Which of several classes they are of, by what these are classes of: `gesture`, `handedness`. Empty where nobody
    is there."""


NOTHING = Said(None, {})
"""Of a model that says no more than keypoints."""


@dataclass(frozen=True, slots=True)
class Smoothed:
    """What a stream adds to a pose."""

    track_id: int
    """The person's identity, 1 and up; 0 for a pose that is nobody sure."""
    points: Floats
    """(K, 2) x, y in pixels of the frame."""
    scores: Floats
    """(K,) 0 to 1; that of a joint that is hidden fades."""
    lag_ms: float
    """By how much the points of what moves are estimated to be late."""
    reset: str | None
    """`gap` or `jump` where this person's past was forgotten before this frame."""
    said: Said = NOTHING
    """As of the person, calmed over time."""


@dataclass(frozen=True, slots=True)
class Person:
    """One person in a frame."""

    box: Box
    """x, y (left and top edge), width, height in pixels of the frame."""
    box_source: BoxSource | None
    """Where the box comes from; None for one that this client does not know."""
    points: Floats
    """(K, 2) x, y in pixels of the frame, as the model gave them; (0, 2) where it says that nobody is there."""
    scores: Floats
    """(K,) 0 to 1; (0,) where nobody is there."""
    score: float
    """Mean of the scores."""
    smoothed: Smoothed | None = None
    """In a stream."""
    said: Said = NOTHING
    """What there is beside the keypoints."""
    depth: Floats | None = None
    """(K,) pixels behind the root keypoint; None of a model without depth, and where nobody is there."""


@dataclass(frozen=True, slots=True)
class Poses:
    """The answer to one image."""

    model: str
    """`name@version`."""
    decoder: str
    size: tuple[int, int]
    """(height, width) of the image after its EXIF orientation."""
    keypoints: tuple[str, ...]
    """Names of the K keypoints; empty where there is nobody."""
    people: tuple[Person, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one frame of a stream: exactly one of `poses`, `dropped` and `error` is there."""

    sequence: int
    """What `send` returned for the frame."""
    poses: Poses | None = None
    dropped: str | None = None
    """`superseded`, `deadline`, `overloaded` or `draining`, as in the contract, or `lost`."""
    error: ClientError | None = None
    age_ms: float = 0.0
    """From the frame's arrival at the service to its answer."""
    waited_ms: float = 0.0
    """The part of it in which nothing was done for this frame."""


def poses_from(message: pb.EstimateResponse, tracks: Sequence[pb.Track] = ()) -> Poses:
    """The answer to an image, or to a frame with as many tracks as poses."""
    pairs = zip(message.poses, tracks or [None] * len(message.poses), strict=True)
    return Poses(
        model=f"{message.model}@{message.version}",
        decoder=message.decoder,
        size=(message.image.height, message.image.width),
        keypoints=next((names for pose in (*message.poses, *tracks) if (names := _names(pose))), ()),
        people=tuple(_person(pose, track) for pose, track in pairs),
    )


def answer_from(message: pb.EstimateStreamResponse, sequence: int) -> Answer:
    """The answer to the frame that this client calls `sequence`."""
    kind = message.WhichOneof("outcome")
    if kind == "tracked":
        timing = message.tracked.timing
        waited_ms = max(0.0, timing.age_ms - timing.decode_ms - timing.infer_ms)
        poses = poses_from(message.tracked.raw, message.tracked.tracks)
        return Answer(sequence, poses=poses, age_ms=timing.age_ms, waited_ms=waited_ms)
    if kind == "dropped":
        reason = pb.DropReason.Name(message.dropped.reason).removeprefix(_PREFIX).lower()
        return Answer(sequence, dropped=reason, age_ms=message.dropped.age_ms)
    told = message.error
    status = next((each for each in grpc.StatusCode if each.value[0] == told.status), grpc.StatusCode.UNKNOWN)
    return Answer(sequence, error=ClientError(told.message, told.code, told.field or None, status))


def error_from(error: grpc.aio.AioRpcError) -> ClientError:
    """What a call ended with."""
    facts = dict(error.trailing_metadata() or ())
    code = facts.get("reppose-code", "connection")
    told = error.details() or error.code().name
    return ClientError(
        told, code, facts.get("reppose-field"), error.code(), _seconds(facts.get("retry-after"))
    )


def _seconds(told: str | bytes | None) -> float | None:
    """Of a `retry-after`; None where there is none, or a proxy names a date."""
    try:
        seconds = float(told or "nan")
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None


def _person(pose: pb.Pose, track: pb.Track | None) -> Person:
    points, scores = _read(pose.keypoints)
    box = pose.box
    return Person(
        box=(box.x, box.y, box.width, box.height),
        box_source=_SOURCES.get(pose.box_source),
        points=points,
        scores=scores,
        score=pose.score,
        smoothed=None
        if track is None
        else Smoothed(track.id, *_read(track.keypoints), track.lag_ms, track.reset or None, _said(track)),
        said=_said(pose),
        depth=np.array([each.z for each in pose.keypoints])
        if pose.keypoints and pose.keypoints[0].HasField("z")
        else None,
    )


def _said(message: pb.Pose | pb.Track) -> Said:
    if not message.HasField("presence") and not message.classes:
        return NOTHING
    return Said(
        message.presence if message.HasField("presence") else None,
        {
            each.of: Classified(
                each.of,
                labels := tuple(one.label for one in each.probabilities),
                np.array([one.probability for one in each.probabilities]),
                labels.index(each.label),
            )
            for each in message.classes
        },
    )


def _names(message: pb.Pose | pb.Track) -> tuple[str, ...]:
    return tuple(each.name for each in message.keypoints)


def _read(keypoints: Iterable[pb.Keypoint]) -> tuple[Floats, Floats]:
    rows = np.array([(each.x, each.y, each.score) for each in keypoints], float).reshape(-1, 3)
    return rows[:, :2], rows[:, 2]
