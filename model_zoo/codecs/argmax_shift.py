"""Decode heatmaps by their maximum, moved a quarter cell towards the higher neighbour.

Axes: B crops, K keypoints, H x W heatmap cells. Coordinates are x, y in cells; (0, 0) is
the centre of the top-left cell, so the map covers [-0.5, W - 0.5] x [-0.5, H - 0.5].

Source: Newell et al. 2016, arXiv:1603.06937 (the quarter offset). Differs from the paper: each axis moves on
its own, and a maximum on the border does not move along the axis on which it lacks a neighbour. Differs from
the published
code: a map without a positive value has a maximum like any other (MMPose answers -1, HRNet 0), and the second
row and column may move too; `rule` brings the published guards back.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.codecs._maps import Floats, checked, peaks
from model_zoo.manifest import Codec

Rule = Literal["neighbours", "mmpose", "hrnet"]


def decode(heatmaps: ArrayLike, *, shift: float = 0.25, rule: Rule = "neighbours") -> tuple[Floats, Floats]:
    """Find each keypoint at the maximum of its heatmap.

    Args:
        heatmaps: (B, K, H, W) scores on any scale. Never written to.
        shift: how far to move along each axis, in cells.
        rule: where a maximum may move. `neighbours`: along every axis on which it has both neighbours.
            `mmpose`: along every axis on which also 1 < x (the guard of MMPose 1.x). `hrnet`: as `mmpose`,
            but along both axes or none (the guard of HRNet's code).

    Returns:
        points (B, K, 2) in cells, and scores (B, K): the value at the maximum. Both float64.

    Raises:
        HeatmapError: not four axes, an empty map, or a value that is not finite.
    """
    maps = checked(heatmaps)
    column, row, scores = peaks(maps)
    height, width = maps.shape[2:]
    crop, joint = np.ogrid[: maps.shape[0], : maps.shape[1]]
    first = 1 if rule == "neighbours" else 2

    left, right = np.maximum(column - 1, 0), np.minimum(column + 1, width - 1)
    above, below = np.maximum(row - 1, 0), np.minimum(row + 1, height - 1)
    across = _sign(maps[crop, joint, row, right], maps[crop, joint, row, left])
    down = _sign(maps[crop, joint, below, column], maps[crop, joint, above, column])
    may_move = np.stack(
        [(column >= first) & (column <= width - 2), (row >= first) & (row <= height - 2)], axis=-1
    )
    if rule == "hrnet":
        may_move = may_move.all(axis=-1, keepdims=True)
    moved = np.where(may_move, np.stack([across, down], axis=-1), 0)
    return np.stack([column, row], axis=-1) + shift * moved, scores


def decode_with(heatmaps: ArrayLike, codec: Codec) -> tuple[Floats, Floats]:
    """`decode` as a `codecs.Decoder`; no field of the codec matters to it."""
    return decode(heatmaps)


def _sign(one: Floats, other: Floats) -> Floats:
    """1 where `one` is greater, -1 where `other` is, else 0; by comparison, so that nothing can overflow."""
    return (one > other).astype(np.float64) - (one < other)
