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


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """What the people of two frames are compared by; N of them."""

    boxes: Floats
    """(N, 4) x, y, width, height."""
    points: Floats
    """(N, K, 2)."""
    scores: Floats
    """(N, K)."""


def oks(squared: Floats, sigmas: Floats, areas: Floats, counted: Floats) -> Floats:
    """Object keypoint similarity, 0 to 1; 0 where no joint is counted.

    Args:
        squared: (..., K) squared distances.
        sigmas: (K,) of the skeleton.
        areas: (...) of the person.
        counted: (..., K) bool.
    """
    alike = np.exp(-squared / (2 * np.maximum(areas, 1.0)[..., None] * (2 * sigmas) ** 2))
    return (alike * counted).sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)


def iou(one: Floats, other: Floats) -> Floats:
    """Intersection over union (...) of boxes (..., 4) x, y, width, height; 0 to 1."""
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., :2] + one[..., 2:], other[..., :2] + other[..., 2:])
    shared = np.maximum(high - low, 0.0).prod(axis=-1)
    union = one[..., 2:].prod(axis=-1) + other[..., 2:].prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def similarities(one: People, other: People, sigmas: Floats) -> Floats:
    """(M, N) how alike each of M people is to each of N, 0 to 1; `sigmas` (K,) are those of the skeleton."""
    boxes = one.boxes[:, None], other.boxes[None]
    overlap = iou(*boxes)
    both = (one.scores >= SURE_SCORE)[:, None] & (other.scores >= SURE_SCORE)[None]
    squared = np.square(one.points[:, None] - other.points[None]).sum(axis=-1)
    areas = _SEGMENT * (boxes[0][..., 2:].prod(axis=-1) + boxes[1][..., 2:].prod(axis=-1)) / 2
    enough = both.sum(axis=-1) >= SURE_JOINTS
    return (overlap + enough * oks(squared, sigmas, areas, both)) / 2


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
