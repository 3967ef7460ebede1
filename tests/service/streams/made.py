"""A made-up model whose answers follow from the frame alone, and streams over it."""

from __future__ import annotations

import asyncio
import math
import time

import numpy as np

from model_zoo import skeletons
from service.errors import InvalidImage
from service.streams.contract import Clocks, Mode, Opened, Outcome, StreamFrame
from service.streams.live import Stream
from service.streams.session import Session
from service.streams.state import SessionConfig
from service.types import BoxSource, Frame, Options, Pose, Prediction, Timing
from tests import tiny_model

SIGMAS = skeletons.BODY19.sigmas
SIZE = (480, 640)
GARBAGE = b"garbage"


def seen(data: bytes, boxes: tuple | None = None, size: tuple[int, int] = SIZE) -> Prediction:
    """What the model sees in a frame: a person that trembles, once per box."""
    if data == GARBAGE:
        raise InvalidImage("these bytes are no image")
    poses = []
    for number, sent in enumerate(boxes or ((100.0, 50.0, 80.0, 240.0),)):
        noise = np.random.default_rng([len(data), *data, number])
        points = np.round(
            tiny_model.person((100.0, 50.0, 80.0, 240.0)) + noise.normal(0, 2, (len(SIGMAS), 2)), 3
        )
        scores = np.round(noise.uniform(0.5, 1, len(SIGMAS)), 4)
        source = BoxSource.FOUND if boxes is None else BoxSource.REQUEST
        poses.append(Pose(sent, source, points, scores, float(scores.mean())))
    timing = Timing(0.001, 0.002, 0.003, 1)
    return Prediction("tiny", "1", "argmax_shift", size, skeletons.BODY19.keypoints, tuple(poses), timing)


class Model:
    """Answers one frame whenever it is let: `let` it by a number, or for good by `free`."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Options]] = []
        self.running = self.most = 0
        self._let = asyncio.Semaphore(0)
        self._free = False

    def free(self) -> None:
        self._free = True
        self.let(1000)

    def let(self, number: int = 1) -> None:
        for _ in range(number):
            self._let.release()

    async def predict(
        self, frame: Frame, options: Options, *, wait_for_room: bool = False, deadline_s: float = math.inf
    ) -> Prediction:
        self.asked.append((frame.data, options))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if not self._free:
                await self._let.acquire()
            return seen(frame.data, options.boxes)
        finally:
            self.running -= 1


class Seen:
    """Remembers what an observer is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def frame(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def session(**changes: object) -> Session:
    return Session(SessionConfig(model="tiny@1", keypoints=len(SIGMAS), **changes), SIGMAS)


def stream(
    predict, mode: Mode = Mode.LIVE, *, begin: Session | None = None, mailbox: int = 1, max_age_s: float = 60.0,
    clocks: Clocks | None = None, **changes: object,
) -> Stream:  # fmt: skip
    begin = session() if begin is None else begin
    opened = Opened(
        model="tiny@1", decoder="argmax_shift", smoothing="one_euro", parameters={},
        tracking=begin.config.tracking, mode=mode, mailbox=mailbox, max_age_s=max_age_s,
        resumed=False, last_sequence=begin.sequence, last_time_s=begin.time_s,
    )  # fmt: skip
    return Stream(
        begin,
        opened,
        predict,
        sign=lambda each: each.to_bytes().hex(),
        clocks=clocks or Clocks(time.monotonic, time.time),
        observer=Seen(),
        **changes,
    )


def frame(
    sequence: int, timestamp_s: float | None = None, data: bytes | None = None, **changes
) -> StreamFrame:
    data = sequence.to_bytes(8, "little") if data is None else data
    return StreamFrame(
        sequence, Frame(data), Options(boxes=changes.pop("boxes", None)), timestamp_s, **changes
    )


async def rest(of: Stream) -> list[Outcome]:
    """All outcomes to the end."""
    found = []
    while (outcome := await of.next_outcome()) is not None:
        found.append(outcome)
    return found


async def settle() -> None:
    """Let every task do what it can."""
    for _ in range(20):
        await asyncio.sleep(0)
