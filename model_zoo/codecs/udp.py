"""Decode heatmaps by one Newton step with differences over one cell, as UDP does.

Axes: B crops, K keypoints, H x W heatmap cells. Coordinates are x, y in cells; (0, 0) is
the centre of the top-left cell, so the map covers [-0.5, W - 0.5] x [-0.5, H - 0.5].

Source: Huang et al. 2020, arXiv:1911.07524, with the zero-padded blur of MMPose's `UDPHeatmap`. Differs from
them: the step is taken only where the logarithm is strictly concave, and is never longer than a bound. UDP's
own scale from cells to pixels, (w - 1) / (W - 1), is not that of `geometry` and is the caller's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.codecs._blur import modulate
from model_zoo.codecs._maps import Floats, checked, peaks
from model_zoo.codecs._newton import newton
from model_zoo.manifest import Codec

LOWEST, HIGHEST = 1e-3, 50.0
"""Bounds of the values before the logarithm."""


def decode(
    heatmaps: ArrayLike, *, blur_kernel: int = 11, max_offset_cells: float = 1.5, concave_only: bool = True
) -> tuple[Floats, Floats]:
    """Find each keypoint at the peak of the paraboloid through the 3 x 3 logarithms about its maximum.

    Args:
        heatmaps: (B, K, H, W) scores with peaks near 1. Never written to.
        blur_kernel: side of the Gaussian blur that goes first, odd; 0 for none.
        max_offset_cells: longest step from the maximum; a longer one keeps its direction and is cut to this.
        concave_only: False also steps where the logarithm is not concave, as the published code does; it
            throws points on the border out by half a cell.

    Returns:
        points (B, K, 2) in cells, inside the map, and scores (B, K): the value at the maximum, before any
        blur. Both float64.

    Raises:
        HeatmapError: not four axes, an empty map, or a value that is not finite.
        ValueError: a blur kernel that is neither 0 nor odd and positive.
    """
    maps = checked(heatmaps)
    column, row, scores = peaks(maps)
    height, width = maps.shape[2:]
    if blur_kernel:
        maps = modulate(maps, blur_kernel, scores)
    step = np.arange(-1, 2)
    crop, joint = (axis[..., None, None] for axis in np.ogrid[: maps.shape[0], : maps.shape[1]])
    rows = np.clip(row[..., None, None] + step[:, None], 0, height - 1)
    columns = np.clip(column[..., None, None] + step, 0, width - 1)
    around = maps[crop, joint, rows, columns].astype(np.float64)
    gradients, curvatures = _differences(np.log(np.clip(around, LOWEST, HIGHEST)))
    offsets = newton(gradients, curvatures, longest=max_offset_cells, concave_only=concave_only)
    points = np.stack([column, row], axis=-1) + offsets
    return np.clip(points, -0.5, (width - 0.5, height - 0.5)), scores


def decode_with(heatmaps: ArrayLike, codec: Codec) -> tuple[Floats, Floats]:
    """`decode` as a `codecs.Decoder`, with the blur that the codec names."""
    return decode(heatmaps, blur_kernel=codec.dark_blur_kernel)


def _differences(logs: Floats) -> tuple[Floats, Floats]:
    """Gradients (..., 2) and second derivatives xx, yy, xy (..., 3) in the middle of (..., 3, 3) cells."""
    middle = logs[..., 1, 1]
    left, right, above, below = logs[..., 1, 0], logs[..., 1, 2], logs[..., 0, 1], logs[..., 2, 1]
    diagonal = logs[..., 0, 0] + logs[..., 2, 2]
    dxx, dyy = right - 2 * middle + left, below - 2 * middle + above
    dxy = (diagonal - right - left - above - below + 2 * middle) / 2
    gradients = np.stack([(right - left) / 2, (below - above) / 2], axis=-1)
    return gradients, np.stack([dxx, dyy, dxy], axis=-1)
