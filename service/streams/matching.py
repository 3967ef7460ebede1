"""Which pose of a frame is which person of the frames before: similarity, and the assignment that is best in total.

Similarity is the mean of OKS (object keypoint similarity, COCO) over the joints that are sure on both sides, and the
IoU of the boxes. OKS tells people apart who stand close; it is 0 as soon as somebody moved by a few of its narrow
standard deviations, where the boxes still overlap. With fewer than three such joints IoU counts alone, at half its
worth.

Source: COCO keypoint evaluation (OKS). Differs from it: the area is that of the box, there is no segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from service.types import Floats

SURE_SCORE = 0.3
"""A joint with at least this score counts."""
SURE_JOINTS = 3
"""Fewer sure joints say too little of a person."""
_SEGMENT = 0.53
"""Area of a person's segment, as a share of its box; COCO's sigmas are meant for that area."""


def oks(one: Floats, other: Floats, sigmas: Floats, area: float) -> float:
    """Object keypoint similarity of two (N, 2) sets of points with (N,) sigmas for a person of this area; 0 to 1."""
    squared = ((one - other) ** 2).sum(axis=-1)
    return float(np.exp(-squared / (2 * max(area, 1.0) * (2 * sigmas) ** 2)).mean())


def iou(one: Floats, other: Floats) -> float:
    """Intersection over union of two boxes x, y, width, height; 0 to 1."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    union = float(np.prod(one[2:]) + np.prod(other[2:])) - shared
    return shared / union if union > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """What two frames are compared by."""

    box: Floats
    """(4,) x, y, width, height."""
    points: Floats
    """(K, 2)."""
    scores: Floats
    """(K,)."""


def similarity(one: Person, other: Person, sigmas: Floats) -> float:
    """How alike two people are, 0 to 1; `sigmas` (K,) are those of the skeleton."""
    overlap = iou(one.box, other.box)
    both = (one.scores >= SURE_SCORE) & (other.scores >= SURE_SCORE)
    if both.sum() < SURE_JOINTS:
        return overlap / 2
    area = _SEGMENT * float(np.prod(one.box[2:]) + np.prod(other.box[2:])) / 2
    return (oks(one.points[both], other.points[both], sigmas[both], area) + overlap) / 2


def assign(similarities: Floats, least: float) -> list[tuple[int, int]]:
    """The pairs (row, column), each row and column at most once, whose sum of similarities is greatest.

    Args:
        similarities: (M, N), 0 to 1.
        least: a pair that is less alike is none.
    """
    if not similarities.size:
        return []
    worth = np.where(
        similarities >= least, similarities, 0.0
    )  # so that no pair is broken up for the sake of one
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(m), int(n)) for m, n in zip(rows, columns, strict=True) if worth[m, n] > 0]
