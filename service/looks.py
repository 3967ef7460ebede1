"""Frames and the crops of them that a net looks at: what passes from stage to stage, where a look is laid and what is
said of it.

Without boxes the person is found in two looks: the net sees the whole frame, a box is laid around the joints it is
sure of, and it looks again at that box. The surer of the two looks is the answer: a portrait that fills the frame is
seen best at once, a distant person at the second look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from model_zoo import geometry
from model_zoo.scores import SURE_JOINTS
from service import tracing
from service.decoding import Decoder
from service.images import Decoded
from service.types import (
    Box,
    BoxSource,
    Comparison,
    Floats,
    Frame,
    Heads,
    Heatmaps,
    Pose,
    Reading,
)

FOUND_GROWTH = 1.2
"""From the joints' extent to the person's: hands, feet and hair reach beyond the joints."""
FOUND_FLOOR = 1 / 8
"""Least side of a found box, as a share of the frame's shorter side."""
BOX_SIDES_PX = (1.0, 100_000.0)
"""Least and largest side of a box."""


@dataclass(frozen=True, slots=True)
class Job:
    """A frame on its way through the queue of its model."""

    frame: Frame
    boxes: tuple[Box, ...] | None
    decoder: Decoder
    render: bool
    compare: bool
    heatmaps: bool
    min_presence: float
    """Least probability that somebody is there."""
    since_s: float
    """When it was asked for, by `time.perf_counter`."""
    trace: tracing.Trace | None = None
    """Of the request, where that is recorded."""


@dataclass(eq=False, slots=True)
class Seen:
    """A decoded frame within a batch."""

    index: int
    job: Job
    decoded: Decoded | None
    """None once nobody will look at it again: its memory, still in the cache, serves the next frame."""
    size: tuple[int, int]
    """(height, width) of the frame in full."""
    source: BoxSource
    looks: list[Look] = field(default_factory=list)
    error: Exception | None = None
    queue_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0
    batch: int = 0


@dataclass(eq=False, slots=True)
class Look:
    """One crop of a frame, and what was found in it."""

    seen: Seen
    box: Sequence[float] | Floats
    map: Floats
    """(2, 3) from the frame to the crop."""
    cut_s: float | None = None
    """How long it took to cut the crop; None while that is still to be done."""
    points: Floats | None = None
    scores: Floats | None = None
    answer: tuple[Floats, Floats, float] | None = None
    """Points, scores and the mean score, rounded."""
    readings: tuple[Reading, ...] = ()
    heatmaps: Heatmaps | None = None
    heads: Heads | None = None


def pose_of(look: Look, source: BoxSource) -> Pose:
    """What is answered of a look that was read."""
    points, scores, score = look.answer
    return Pose(
        box=tuple(round(float(number), 3) for number in look.box),
        box_source=source,
        points=points,
        scores=scores,
        score=score,
        comparison=_comparison(look.readings) if look.readings else None,
        heatmaps=look.heatmaps,
        heads=look.heads,
    )


def as_told(points: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Points and scores as answers have them: rounded."""
    return np.round(points.astype(np.float64), 3), np.round(scores.astype(np.float64), 4)


def _comparison(readings: tuple[Reading, ...]) -> Comparison:
    points = np.stack([reading.points for reading in readings])
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return Comparison(readings, round(float(distances.max()), 3))


def without_context(box: Floats, padding: float) -> Floats:
    """The box that fills `box` once the model's context is added."""
    centre, extent = box[:2] + box[2:] / 2, box[2:] / padding
    return np.concatenate([centre - extent / 2, extent])


def coarsest(scale: float) -> float:
    """How many pixels of a frame, along each axis, one may stand for after decoding, seen at crop pixels per pixel.

    As soon as `geometry.crop` would average, by 2, which answers as much as compressing the frame once more would move
    them. JPEG's own reductions by 4 and 8 are sharper than a mean, and leave a halving to it.
    """
    return float(max(min(1 / scale, 2), 0.5 / scale))


def box_of_the_sure(points: Floats, sure: Floats, size: tuple[int, int]) -> Floats | None:
    """A box around the sure joints, (K,) bool, grown to hold the whole person; None where they are too few."""
    if sure.sum() < SURE_JOINTS:
        return None
    tight = geometry.box_of_points(points[sure])
    extent = np.maximum(tight[2:] * FOUND_GROWTH, max(FOUND_FLOOR * min(size), BOX_SIDES_PX[0]))
    return np.concatenate([tight[:2] + tight[2:] / 2 - extent / 2, extent])
