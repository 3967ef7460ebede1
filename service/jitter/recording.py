"""Run clips through the real service, in this process: what the model says of every frame, with tracking.

A recording can be smoothed again and again without the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from model_zoo.scores import for_rules
from service.errors import InvalidRequest
from service.jitter.motion import KnownClip
from service.predictor import Predictor
from service.registry import ServedModel
from service.streams import smoothers, smoothing
from service.streams.session import Session
from service.streams.smoothing import length_of
from service.streams.state import SessionConfig
from service.types import Floats, Frame, Options

CLIPS_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Recording:
    """One person through one clip."""

    times: Floats
    """(T,) seconds."""
    points: Floats
    """(T, K, 2) as the model gave them."""
    scores: Floats
    """(T, K) on the scale of rules, see `model_zoo.scores`."""
    keypoints: tuple[str, ...]
    """K names."""

    @property
    def size(self) -> Floats:
        """(T,) length of the person, in pixels."""
        return np.array([max(length_of(each), 1.0) for each in self.points])


@dataclass(frozen=True, eq=False)
class Track:
    """A recording after a smoother."""

    points: Floats
    """(T, K, 2)."""
    scores: Floats
    """(T, K)."""
    lag_frames: Floats
    """(T,) as the smoother estimates it."""
    resets: int
    """How often the past was forgotten."""


async def record(
    predictor: Predictor, model: ServedModel, frames: Iterable[bytes], times: Floats
) -> list[Recording]:
    """Follow people through frames; one recording per identity.

    Args:
        predictor: of the service.
        model: that it answers with.
        frames: encoded.
        times: (T,) of the frames.
    """
    names, calibration = tuple(model.manifest.keypoints), model.manifest.score_calibration
    config = SessionConfig(model=model.reference, keypoints=len(names), smoothing=smoothers.NONE)
    session = Session(config, model.skeleton.sigmas, calibration=calibration)
    seen: dict[int, list[tuple[float, Floats, Floats]]] = {}
    for number, (time_s, data) in enumerate(zip(times, frames, strict=True)):
        boxes = session.plan(time_s) if number else None
        asked = Options(boxes=boxes, model=model.reference)
        answer = await predictor.predict(Frame(data), asked, wait_for_room=True)
        for person in session.update(float(time_s), answer.poses, answer.size, planned=boxes is not None):
            if person.track_id is not None:
                scores = for_rules(person.pose.scores, calibration)
                seen.setdefault(person.track_id, []).append((time_s, person.pose.points, scores))
    return [
        Recording(np.array(when), np.stack(points), np.stack(scores), names)
        for when, points, scores in (zip(*each, strict=True) for each in seen.values())
    ]


async def record_clips(
    predictor: Predictor, model: ServedModel, clips: Sequence[KnownClip], done: Callable[[], None]
) -> list[list[Recording]]:
    """`record` for clips, some at once; `done` is called after each."""
    room = asyncio.Semaphore(CLIPS_AT_ONCE)

    async def one(clip: KnownClip) -> list[Recording]:
        async with room:
            found = await record(predictor, model, clip.frames(), clip.times)
        done()
        return found

    return await asyncio.gather(*map(one, clips))


def smooth(recording: Recording, smoother: smoothers.Smoother) -> Track:
    """What a stream with this smoother would have answered."""
    state, answers = None, []
    for time_s, points, scores in zip(recording.times, recording.points, recording.scores, strict=True):
        answer, state = smoothing.smooth(smoother, state, float(time_s), points, scores)
        answers.append(answer)
    return Track(
        np.stack([each.points for each in answers]),
        np.stack([each.scores for each in answers]),
        np.array([each.lag_frames for each in answers]),
        sum(each.reset is not None for each in answers),
    )


def video_frames(path: Path) -> tuple[Floats, Iterator[bytes]]:
    """(times, encoded frames) of a video file; the frames as JPEG of high quality, one after the other.

    Raises:
        InvalidRequest: OpenCV cannot read it.
    """
    capture = cv2.VideoCapture(str(path))
    rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if not capture.isOpened() or not rate > 0 or count < 1:
        raise InvalidRequest(f"cannot read a video from {path}")

    def frames() -> Iterator[bytes]:
        for number in range(count):
            there, picture = capture.read()
            if not there:
                raise InvalidRequest(f"{path} ends after {number} of {count} frames")
            yield cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()

    return np.arange(count) / rate, frames()
