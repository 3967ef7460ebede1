"""Videos in, videos with skeletons out."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from model_zoo.skeletons import SKELETONS, Skeleton
from service import render
from service.client.answers import Answer, Poses
from service.client.blocking import Stream
from service.types import Heads, Image, Pose

AHEAD = 32
"""Pictures that wait in memory for their answers."""
_LEAST_STEP_S = 1e-3


class VideoError(Exception):
    """A video cannot be read or written."""


class Source:
    """The frames of a file or camera.

    Args:
        where: a file, or the number of a camera.
        live: a file is shown at its own pace, as a camera would.
    """

    def __init__(self, where: Path | int, *, live: bool) -> None:
        camera = isinstance(where, int)
        if not camera and not where.is_file():
            raise VideoError(f"there is no file {where}")
        self._capture = cv2.VideoCapture(where if camera else str(where))
        if not self._capture.isOpened():
            raise VideoError(
                f"cannot read camera {where}" if camera else f"{where} is no video that OpenCV can read"
            )
        self._camera, self._paced = camera, live and not camera
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate_hz if 0 < rate_hz <= 1000 else 30.0
        """Frames a second, as the file says; 30 where it says nothing."""
        self.count = 0 if camera else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """Frames, as the file says; 0 where that is not known."""

    def frames(self, stop: threading.Event, longest_s: float | None = None) -> Iterator[tuple[Image, float]]:
        """Every frame, (H, W, 3) RGB, and when it was taken, in seconds that rise; until it ends or is stopped."""
        began_s, time_s = time.monotonic(), None
        try:
            while not stop.is_set():
                there, picture = self._capture.read()
                if not there:
                    return
                if self._camera:
                    taken_s = time.monotonic() - began_s
                else:
                    taken_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                if (
                    time_s is not None and taken_s < time_s + _LEAST_STEP_S
                ):  # files without, or with broken, times
                    taken_s = time_s + 1 / self.rate_hz
                time_s = taken_s
                if longest_s is not None and time_s > longest_s:
                    return
                if self._paced:
                    stop.wait(max(0.0, began_s + time_s - time.monotonic()))
                yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), time_s
        finally:
            self._capture.release()


class Sink:
    """A video that is written beside its place, and put there by `keep`: there is a whole one or none.

    Args:
        path: `.mp4`, or what else OpenCV can write with the MPEG-4 codec.
        rate_hz: frames a second.
    """

    def __init__(self, path: Path, rate_hz: float) -> None:
        self._path, self._rate_hz = path, rate_hz
        self._part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, picture: Image) -> None:
        """Add an (H, W, 3) RGB frame; one of another size is fitted to the first. Raises VideoError."""
        size = picture.shape[1], picture.shape[0]
        if self._writer is None:
            self._size = size
            self._writer = cv2.VideoWriter(
                str(self._part), cv2.VideoWriter_fourcc(*"mp4v"), self._rate_hz, size
            )
            if not self._writer.isOpened():
                raise VideoError(f"OpenCV cannot write {self._path}; .mp4 in a folder that is there works")
        if size != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def keep(self) -> None:
        """Put the video in its place. Raises VideoError where it has no frame."""
        if self._writer is None:
            raise VideoError("there was no frame to draw on")
        self._writer.release()
        self._part.replace(self._path)

    def close(self) -> None:
        """Leave nothing that was not kept."""
        if self._writer is not None:
            self._writer.release()
        self._part.unlink(missing_ok=True)


def draw(picture: Image, poses: Poses, *, raw: bool = False) -> Image:
    """A copy of an (H, W, 3) RGB picture with the people drawn on it.

    Args:
        raw: the points as the model gave them, in place of the smoothed ones.
    """
    found = []
    for person in poses.people:
        smoothed = None if raw else person.smoothed
        points, scores = (
            (person.points, person.scores) if smoothed is None else (smoothed.points, smoothed.scores)
        )
        if not len(points):
            continue  # nobody is there
        said = (person if smoothed is None else smoothed).said
        heads = Heads(said.presence, True, 0.0, tuple(said.classes.values()), None)
        found.append(Pose(person.box, person.box_source, points, scores, person.score, heads=heads))
    return render.draw(picture, found, _skeleton(poses.keypoints))


def follow(
    stream: Stream,
    frames: Iterable[tuple[Image, float]],
    done: Callable[[Image, Answer, Poses | None], None],
) -> Counter[str]:
    """Send every frame, and call `done` with it, its answer, and the last poses there were, in order.

    Returns:
        Frames by what became of them: `answered`, `failed`, or the reason why they were dropped.
    """
    pictures: deque[Image] = deque()
    room, over = threading.Semaphore(AHEAD), threading.Event()
    failures: list[BaseException] = []

    def feed() -> None:
        try:
            for picture, time_s in frames:
                while not room.acquire(timeout=0.1):
                    if over.is_set():
                        return
                if over.is_set():
                    return
                pictures.append(picture)
                stream.send(picture, timestamp_s=time_s)
        except Exception as error:
            failures.append(error)
        finally:
            stream.finish()

    feeder = threading.Thread(target=feed, name="frames")
    counts: Counter[str] = Counter()
    last: Poses | None = None
    feeder.start()
    try:
        for answer in stream:
            if answer.dropped is None:
                last = answer.poses
            counts[answer.dropped or ("answered" if answer.error is None else "failed")] += 1
            done(pictures.popleft(), answer, last)
            room.release()
    finally:
        over.set()
        feeder.join()
    if failures:
        raise failures[0]
    return counts


def _skeleton(keypoints: tuple[str, ...]) -> Skeleton:
    """The known skeleton with these keypoints, or one without bones."""
    for skeleton in SKELETONS.values():
        if skeleton.keypoints == keypoints:
            return skeleton
    return Skeleton("unknown", keypoints, (), (), tuple(np.ones(len(keypoints))))
