"""Decode heatmaps by their expectation: the differentiable spatial to numerical transform, DSNT.

Axes: B crops, K keypoints, then the spatial axes S: H x W, or D x H x W for volumes. Coordinates are x, y[,
z], the reverse of the axes' order. Normalised coordinates run over the map's extent, so the first cell's
centre of n is at (1 - n) / n, the last at (n - 1) / n, and the ends -1 and 1 are the outer edges of those
cells:

    u = (2 * x_cell + 1) / n - 1        x_cell = ((u + 1) * n - 1) / 2

Source: Nibali et al. 2018, arXiv:1801.07372.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.codecs._maps import Floats, checked
from model_zoo.manifest import Codec

TINY = 1e-24
"""Added to the sum of a target before the division, so that one far outside its map stays finite."""


def axis(cells: int) -> Floats:
    """The (cells,) normalised positions of cell centres."""
    return (2.0 * np.arange(cells) - (cells - 1)) / cells


def to_cells(points: ArrayLike, size: tuple[int, ...]) -> Floats:
    """Map (..., D) normalised points to cells of a map of `size` ([depth,] height, width)."""
    return ((np.asarray(points, np.float64) + 1.0) * _extent(size) - 1.0) / 2.0


def to_normalised(points: ArrayLike, size: tuple[int, ...]) -> Floats:
    """Map (..., D) points in cells to normalised ones; the inverse of `to_cells`."""
    return (2.0 * np.asarray(points, np.float64) + 1.0) / _extent(size) - 1.0


def softmax(logits: ArrayLike) -> Floats:
    """Turn (B, K, *S) finite logits into probabilities: each map sums to 1 over all its spatial axes."""
    logits = np.asarray(logits)
    spatial = tuple(range(2, logits.ndim))
    raised = np.exp(logits - logits.max(axis=spatial, keepdims=True))
    return raised / raised.sum(axis=spatial, keepdims=True)


def expectation(probabilities: ArrayLike) -> Floats:
    """The mean position (B, K, D) of (B, K, *S) maps that sum to 1: normalised x, y[, z]."""
    probabilities = np.asarray(probabilities)
    spatial = range(2, probabilities.ndim)
    marginals = [
        probabilities.sum(axis=tuple(other for other in spatial if other != kept))
        for kept in reversed(spatial)
    ]
    return np.stack([marginal @ axis(marginal.shape[-1]) for marginal in marginals], axis=-1)


def target(points: ArrayLike, size: tuple[int, ...], sigma: float, *, normalise: bool = True) -> Floats:
    """Draw the Gaussian that a map is compared with.

    Args:
        points: (..., D) finite normalised points.
        size: ([depth,] height, width) of the maps in cells.
        sigma: standard deviation in cells.
        normalise: whether the cells sum to 1; else a point on a cell's centre has the value 1 there.

    Returns:
        (..., *size) float64.
    """
    centres = to_cells(points, size)
    leading, dimensions = centres.shape[:-1], len(size)
    squares = 0.0
    for dimension, cells in enumerate(reversed(size)):
        along = np.square((np.arange(cells) - centres[..., dimension, None]) / sigma)
        squares = squares + along.reshape(
            *leading, *(1,) * (dimensions - 1 - dimension), cells, *(1,) * dimension
        )
    drawn = np.exp(-0.5 * squares)
    if normalise:
        drawn /= drawn.sum(axis=tuple(range(-dimensions, 0)), keepdims=True) + TINY
    return drawn


def decode(heatmaps: ArrayLike) -> tuple[Floats, Floats]:
    """Find each keypoint at the centre of mass of its heatmap, negative values taken as 0.

    Args:
        heatmaps: (B, K, H, W) scores; probabilities, or Gaussians on any scale. Never written to.

    Returns:
        points (B, K, 2) in cells, and scores (B, K): the value at the maximum. Both float64. A map without a
        positive value gives its centre.

    Raises:
        HeatmapError: not four axes, an empty map, or a value that is not finite.
    """
    maps = checked(heatmaps)
    scores = maps.max(axis=(2, 3)).astype(np.float64)
    scale = np.where(scores > 0, scores, 1.0)[..., None, None]
    mass = np.maximum(maps, 0).astype(np.result_type(maps.dtype, np.float32), copy=False)
    mass /= scale  # so that no sum can overflow
    total = mass.sum(axis=(2, 3))
    centre_of_mass = expectation(mass) / np.where(total > 0, total, 1.0)[..., None]
    return to_cells(centre_of_mass, maps.shape[2:]), scores


def decode_with(heatmaps: ArrayLike, codec: Codec) -> tuple[Floats, Floats]:
    """`decode` as a `codecs.Decoder`; no field of the codec matters to it."""
    return decode(heatmaps)


def _extent(size: tuple[int, ...]) -> Floats:
    """Cells along x, y[, z]."""
    return np.array(size[::-1], np.float64)
