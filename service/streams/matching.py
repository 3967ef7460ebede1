"""Which pose of a frame is which person of the frames before: similarity, and the assignment that is best in total.

Similarity is the mean of OKS (object keypoint similarity, COCO) over the joints that are sure on both sides, and the
IoU of the boxes. OKS tells people apart who stand close; it is 0 as soon as somebody moved by a few of its narrow
standard deviations, where the boxes still overlap. With fewer than three such joints IoU counts alone, at half its
worth.

Source: COCO keypoint evaluation (OKS). Differs from it: the area is that of the box, there is no segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from model_zoo.scores import SURE_JOINTS, SURE_SCORE
from service.streams.smoothers import Complexes, as_complex
from service.types import Box, Floats

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
    alike = np.exp(squared / (np.maximum(areas, 1.0)[..., None] * (-8 * sigmas**2)))
    return np.vecdot(alike, counted) / np.maximum(counted.sum(axis=-1), 1)


def iou(one: Floats, other: Floats) -> Floats:
    """Intersection over union (...) of boxes (..., 4) x, y, width, height; 0 to 1."""
    mine, theirs = one[..., :2], other[..., :2]
    sides = np.minimum(mine + one[..., 2:], theirs + other[..., 2:]) - np.maximum(mine, theirs)
    sides = np.maximum(sides, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    union = _areas(one) + _areas(other) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


class Person(NamedTuple):
    """One of those people."""

    box: Box
    points: Complexes
    """(K,)."""
    scores: Floats


def similarity(one: Person, other: Person, sigmas: Floats) -> float:
    """`similarities` of two people, quicker than an array of it."""
    (x, y, width, height), (to_x, to_y, to_width, to_height) = one.box, other.box
    across = max(0.0, min(x + width, to_x + to_width) - max(x, to_x))
    down = max(0.0, min(y + height, to_y + to_height) - max(y, to_y))
    shared, areas = across * down, width * height + to_width * to_height
    overlap = shared / (areas - shared) if areas > shared else 0.0
    both = (one.scores >= SURE_SCORE) & (other.scores >= SURE_SCORE)
    counted = np.count_nonzero(both)
    if counted < SURE_JOINTS:
        return overlap / 2
    squared = abs(one.points - other.points) ** 2
    scale = -8 * max(_SEGMENT / 2 * areas, 1.0)
    alike = np.exp(squared / (scale * sigmas * sigmas))
    return (overlap + float(alike.dot(both)) / counted) / 2


def _areas(boxes: Floats) -> Floats:
    return boxes[..., 2] * boxes[..., 3]


def similarities(one: People, other: People, sigmas: Floats) -> Floats:
    """(M, N) how alike each of M people is to each of N, 0 to 1; `sigmas` (K,) are those of the skeleton."""
    boxes = one.boxes[:, None], other.boxes[None]
    both = (one.scores >= SURE_SCORE)[:, None] & (other.scores >= SURE_SCORE)[None]
    squared = abs(as_complex(one.points)[:, None] - as_complex(other.points)[None]) ** 2
    areas = _SEGMENT / 2 * (_areas(boxes[0]) + _areas(boxes[1]))
    enough = both.sum(axis=-1) >= SURE_JOINTS
    return (iou(*boxes) + enough * oks(squared, sigmas, areas, both)) / 2


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
