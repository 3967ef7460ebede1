"""Coordinates on (-0.5, 0.5): what a direct regression predicts, near 0 for centred people.

    u = x / width - 0.5        x = (u + 0.5) * width

Axes: ... any leading ones, K keypoints; points are x, y[, z]. Depth, where there is one, is z / depth - 0.5 and then
relative to a root keypoint, whose own z cannot be predicted and is needed again on the way back.

This is the rule of the published code, which divides pixel numbers as they are; in this project's pixel convention the
middle of a crop is (w - 1) / 2 and so lies at -0.5 / w. Do not mix it with `codecs.dsnt`, which runs over (-1, 1).

Source: Li et al., ICCV 2021, arXiv:2107.11291 (RLE), its target generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Target:
    """What a regression learns from."""

    points: Floats
    """(..., K, 2) normalised; beyond 0.5 where a keypoint lies outside its crop."""
    weights: Floats
    """(..., K, 2) the visibility, once per coordinate; keypoints outside the crop keep theirs."""
    in_crop: NDArray[np.bool_]
    """(..., K) visible and inside on both axes, the edges included."""


def to_normalised(points: ArrayLike, size: tuple[int, int]) -> Floats:
    """Map (..., 2) points in pixels of a crop of `size` (height, width); float64."""
    return np.asarray(points, np.float64) / _extent(size) - 0.5


def to_pixels(points: ArrayLike, size: tuple[int, int]) -> Floats:
    """Map (..., 2) normalised points back; the inverse of `to_normalised`."""
    return (np.asarray(points, np.float64) + 0.5) * _extent(size)


def to_normalised_3d(points: ArrayLike, size: tuple[int, int], depth: float, root: int) -> Floats:
    """Map (..., K, 3) points, z in the unit of `depth`, to normalised ones with z relative to the root keypoint.

    Args:
        points: x, y in pixels, z.
        size: (height, width) of the crop.
        depth: range of z that a difference of 1 stands for.
        root: index of the keypoint whose z becomes 0.
    """
    points = np.asarray(points, np.float64)
    z = points[..., 2] / depth - 0.5
    flat = to_normalised(points[..., :2], size)
    return np.concatenate([flat, (z - z[..., root, None])[..., None]], axis=-1)


def to_pixels_3d(points: ArrayLike, size: tuple[int, int], depth: float, root_z: ArrayLike = 0.0) -> Floats:
    """Map (..., K, 3) normalised points back; z is relative to the root without its (...) `root_z`."""
    points = np.asarray(points, np.float64)
    z = points[..., 2] * depth + np.asarray(root_z, np.float64)[..., None]
    return np.concatenate([to_pixels(points[..., :2], size), z[..., None]], axis=-1)


def target(points: ArrayLike, visible: ArrayLike, size: tuple[int, int]) -> Target:
    """Everything a regression needs of (..., K, 2) points in pixels with (..., K) visibility.

    A point that is not visible is mapped all the same, as in the published code; where it is not even a number it
    becomes 0, so that weight times error stays 0.
    """
    visible = np.asarray(visible, np.float64)
    normalised = to_normalised(points, size)
    inside = (np.abs(normalised) <= 0.5).all(axis=-1)
    weights = np.repeat(visible[..., None], 2, axis=-1)
    usable = np.isfinite(normalised) | (visible > 0)[..., None]
    return Target(np.where(usable, normalised, 0.0), weights, inside & (visible > 0))


def _extent(size: tuple[int, int]) -> Floats:
    """Along x and y."""
    return np.array(size[::-1], np.float64)
