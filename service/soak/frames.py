"""What the streams show: frames of real clips, or made pictures of somebody who walks, as JPEG files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from service.bench import pictures
from service.errors import InvalidRequest

FRAMES = 90
"""Most frames of a clip; shown there and back again, so that nobody leaps."""
LONG_SIDE = 640
"""A longer side of a clip is reduced to this, in pixels."""
QUALITY = 85
_MADE, _MADE_SIZE = 4, (240, 320)
_STEP_PX = 2.0


def write(folder: Path, clips: Path | None) -> list[Path]:
    """One folder for each clip, its frames in the order of their names.

    Args:
        folder: to write to.
        clips: folder of `*.mp4`; None for made pictures.

    Raises:
        InvalidRequest: there is no clip that OpenCV can read.
    """
    if clips is None:
        return [_write(folder / f"made-{number}", _made(number)) for number in range(_MADE)]
    found = [_write(folder / path.stem, _filmed(path)) for path in sorted(clips.glob("*.mp4"))]
    if not found:
        raise InvalidRequest(f"no clips (*.mp4) in {clips}")
    return found


def read(folder: Path) -> list[bytes]:
    """The frames of a clip, there and back again."""
    there = [path.read_bytes() for path in sorted(folder.iterdir())]
    return there + there[-2:0:-1]


def _write(folder: Path, frames: Iterable[np.ndarray]) -> Path:
    """BGR frames to files."""
    folder.mkdir()
    for number, frame in enumerate(frames):
        done, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        assert done
        (folder / f"{number:04}.jpg").write_bytes(data.tobytes())
    return folder


def _filmed(path: Path) -> Iterable[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    for number in range(FRAMES):
        there, frame = capture.read()
        if not there:
            if number < 2:
                raise InvalidRequest(f"cannot read a video from {path}")
            return
        scale = LONG_SIDE / max(frame.shape[:2])
        yield (
            frame if scale >= 1 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        )


def _made(number: int) -> Iterable[np.ndarray]:
    _, width = _MADE_SIZE
    for step in range(FRAMES // 2):
        at = 0.3 + _STEP_PX * step / width, 0.5
        drawn = pictures.figure(_MADE_SIZE, at=at, height=0.9 - 0.1 * number, seed=pictures.SEED + number)
        yield cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
