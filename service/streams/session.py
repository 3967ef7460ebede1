"""One stream of frames: who is who, smoothed per person, and a state that can be carried elsewhere.

    session = Session(SessionConfig(model="body19-small@1", keypoints=19), sigmas)
    boxes = session.plan(time_s)                 # Options.boxes; None: the whole frame
    ...                                          # the frame is answered: a Prediction
    poses = session.update(time_s, prediction.poses, prediction.size, planned=boxes is not None)
    data = session.to_bytes()                    # here, and elsewhere:
    session = Session.from_bytes(data, sigmas)   # goes on bit by bit as if nothing had happened

Time is the moment a frame was taken, in seconds on the client's clock, and must move on from frame to frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_zoo.manifest import Calibration
from model_zoo.scores import for_rules, of_rules
from service.errors import BrokenSession, InvalidRequest
from service.streams import said, smoothers, smoothing, state, tracking
from service.streams.smoothing import Reset
from service.streams.state import SessionConfig, SessionState
from service.types import Box, Floats, Heads, Pose

MAX_TIME_S = 1e12
"""Times beyond this are no times of frames."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamPose:
    """One person in a frame of a stream."""

    pose: Pose
    """As the model gave it: the raw points."""
    track_id: int | None
    """The person's identity, 1 and up, never used again in the stream; None for one that is nobody sure."""
    points: Floats
    """(K, 2) smoothed, in pixels of the frame, rounded to 1/1000; the raw ones of a person without identity."""
    scores: Floats
    """(K,) of the smoothed points, rounded to 1/10000: those of a hidden joint fade."""
    lag_ms: float
    """By how much the smoothed points of what moves are estimated to be late."""
    lag_frames: float
    """The same in intervals since this person's frame before."""
    reset: Reset | None
    """Why the person's past was forgotten before this frame, if it was."""
    heads: Heads | None = None
    """What is said beside keypoints by now; None of a model that says no more."""

    @property
    def present(self) -> bool:
        """Whether somebody is there, so that keypoints mean anything."""
        return self.heads is None or self.heads.present


class Session:
    """The state of one stream and what a frame does to it. No thread may use it while another does.

    Args:
        config: what the stream was opened with.
        sigmas: (K,) OKS standard deviations of the model's skeleton.
        begin: the state to go on from; None for a new stream.
        calibration: of the model's scores; None where these are as the net gives them.

    Raises:
        InvalidRequest: no such smoother, or not with these settings.
        ValueError: the sigmas are not those of the model.
    """

    def __init__(
        self,
        config: SessionConfig,
        sigmas: Sequence[float],
        begin: SessionState | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        if len(sigmas) != config.keypoints:
            raise ValueError(f"{len(sigmas)} sigmas for {config.keypoints} keypoints")
        self.config = config
        self._calibration = calibration
        self._smoother = smoothers.make(config.smoothing, config.parameters)
        begin = SessionState() if begin is None else begin
        self._tracker = tracking.Tracker(sigmas, state=begin.tracker)
        self._state = begin

    @classmethod
    def from_bytes(
        cls, data: bytes, sigmas: Sequence[float], calibration: Calibration | None = None
    ) -> Session:
        """Go on where `to_bytes` was called.

        Raises:
            BrokenSession: the bytes are damaged, of another version, or of a model with other keypoints.
            InvalidRequest: the session's smoother is not installed here.
        """
        config, begin = state.from_bytes(data)
        if len(sigmas) != config.keypoints:
            raise BrokenSession(
                f"the session is of a model with {config.keypoints} keypoints, not {len(sigmas)}"
            )
        return cls(config, sigmas, begin, calibration)

    def to_bytes(self) -> bytes:
        """The session as it is after the last `update`."""
        return state.to_bytes(self.config, self._state)

    @property
    def time_s(self) -> float | None:
        """When the last frame was taken; None before the first."""
        return self._state.time_s

    @property
    def sequence(self) -> int | None:
        """The number of the last frame, where it had one."""
        return self._state.sequence

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the last frame, which `plan` is for; None before the first."""
        return self._state.tracker.size

    @property
    def people(self) -> int:
        """How many are followed or remembered."""
        return len(self._state.tracker.tracks)

    def check_time(self, time_s: float) -> None:
        """Refuse a time that `update` would refuse.

        Raises:
            InvalidRequest: it is not finite, or not after the last frame's.
        """
        if not (math.isfinite(time_s) and abs(time_s) <= MAX_TIME_S):
            raise InvalidRequest("a timestamp must be a finite number of seconds", "timestamp_s")
        if self.time_s is not None and not time_s > self.time_s:
            raise InvalidRequest(f"time must move on: {time_s!r} follows {self.time_s!r}", "timestamp_s")

    def plan(self, time_s: float) -> tuple[Box, ...] | None:
        """Where to look in a frame taken at `time_s`; None for the whole frame, always so without tracking."""
        return self._tracker.plan(time_s) if self.config.tracking else None

    def update(
        self,
        time_s: float,
        poses: Sequence[Pose],
        size: tuple[int, int],
        *,
        planned: bool,
        sequence: int | None = None,
    ) -> tuple[StreamPose, ...]:
        """Take in what was found in a frame; a frame that failed is simply not told of.

        Args:
            time_s: when the frame was taken.
            poses: what was found.
            size: (height, width) of the frame.
            planned: the boxes were those of `plan`.
            sequence: the client's number of the frame, 0 and up.

        Returns:
            One per pose, in their order.

        Raises:
            InvalidRequest: time does not move on; nothing has changed then.
        """
        self.check_time(time_s)
        found = [tracking.Found(pose.box, pose.points, self._trusted(pose)) for pose in poses]
        ids = self._tracker.update(time_s, found, size, planned=planned)
        kept = {track.id for track in self._tracker.state.tracks}
        states = {number: each for number, each in self._state.smoothing.items() if number in kept}
        before = self._state.said
        heard = {number: before[number] for number in before if number in kept} if before else {}
        answers = []
        for number, pose, look in zip(ids, poses, found, strict=True):
            if number is None:
                answers.append(StreamPose(pose, None, pose.points, pose.scores, 0.0, 0.0, None, pose.heads))
                continue
            smoothed, after = smoothing.smooth(
                self._smoother, states.get(number), time_s, pose.points, look.scores
            )
            if number in kept:
                states[number] = after
            heads = pose.heads
            if heads is not None:
                heads, remembered = said.calm(heard.get(number), time_s, heads)
                if number in kept:
                    heard[number] = remembered
            answers.append(self._answer(pose, number, smoothed, heads))
        self._state = SessionState(time_s, sequence, self._tracker.state, states, heard)
        return tuple(answers)

    def _trusted(self, pose: Pose) -> Floats:
        """Scores on the scale that the rules of following and smoothing are on; of nobody they are 0."""
        heads = pose.heads
        if heads is not None and heads.presence is not None and heads.presence < said.bounds(heads.least)[0]:
            return np.zeros_like(pose.scores)
        return pose.scores if self._calibration is None else for_rules(pose.scores, self._calibration)

    def _answer(
        self, pose: Pose, number: int, smoothed: smoothing.Smoothed, heads: Heads | None
    ) -> StreamPose:
        return StreamPose(
            pose,
            number,
            smoothed.points.round(3),
            of_rules(smoothed.scores, self._calibration).round(4),
            round(smoothed.lag_s * 1e3, 3),
            round(smoothed.lag_frames, 3),
            smoothed.reset,
            heads,
        )
