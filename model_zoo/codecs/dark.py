"""Decode heatmaps by one Newton step on their logarithm from the maximum: DARK.

Axes: B crops, K keypoints, H x W heatmap cells. Coordinates are x, y in cells; (0, 0) is
the centre of the top-left cell, so the map covers [-0.5, W - 0.5] x [-0.5, H - 0.5].

Source: Zhang et al. 2020, arXiv:1910.06278, with the second differences over two cells of its published code.
Differs from it: the step is taken only where the logarithm is strictly concave, and is never longer than a
bound; a map without a positive value keeps its maximum (the published code answers (0, 0)). A maximum within
two cells of the border stays on its cell, as there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_zoo.codecs._blur import modulate
from model_zoo.codecs._maps import Floats, Integers, checked, peaks
from model_zoo.codecs._newton import newton
from model_zoo.manifest import Codec

FLOOR = 1e-10
"""Smallest value that is told from zero before the logarithm."""
_REACH = 2
"""Cells that the differences reach from the maximum."""


def decode(
    heatmaps: ArrayLike, *, blur_kernel: int = 0, max_offset_cells: float = 1.5
) -> tuple[Floats, Floats]:
    """Find each keypoint at the peak of the Gaussian through its heatmap's maximum.

    Args:
        heatmaps: (B, K, H, W) scores, positive about a peak, on any scale well above 1e-10. Never written to.
        blur_kernel: side of the Gaussian blur that goes first, odd; 0 for none. The paper takes 3, 11 and 17
            cells for targets of sigma 1, 2 and 3. The maximum is still that of the map as given.
        max_offset_cells: longest step from the maximum; a longer one keeps its direction and is cut to this.

    Returns:
        points (B, K, 2) in cells, and scores (B, K): the value at the maximum, before any blur. Both float64.

    Raises:
        HeatmapError: not four axes, an empty map, or a value that is not finite.
        ValueError: a blur kernel that is neither 0 nor odd and positive.
    """
    maps = checked(heatmaps)
    column, row, scores = peaks(maps)
    points = np.stack([column, row], axis=-1).astype(np.float64)
    from_border = np.minimum(
        np.minimum(column, maps.shape[3] - 1 - column), np.minimum(row, maps.shape[2] - 1 - row)
    )
    inner = from_border >= _REACH
    if blur_kernel:
        maps = modulate(maps, blur_kernel, scores)
    logs = _log_around(maps, inner, column[inner], row[inner])
    points[inner] += newton(*_differences(logs), longest=max_offset_cells)
    return points, scores


def decode_with(heatmaps: ArrayLike, codec: Codec) -> tuple[Floats, Floats]:
    """`decode` as a `codecs.Decoder`, with the blur that the codec names."""
    return decode(heatmaps, blur_kernel=codec.dark_blur_kernel)


def _log_around(maps: Floats, inner: NDArray[np.bool_], column: Integers, row: Integers) -> Floats:
    """Logarithms (N, 5, 5) around the maxima of the N maps that `inner` (B, K) marks."""
    crop, joint = (index[:, None, None] for index in np.nonzero(inner))
    step = np.arange(-_REACH, _REACH + 1)
    around = maps[crop, joint, row[:, None, None] + step[:, None], column[:, None, None] + step]
    return np.log(np.maximum(around.astype(np.float64), FLOOR))


def _differences(logs: Floats) -> tuple[Floats, Floats]:
    """Gradients (N, 2) and second derivatives xx, yy, xy (N, 3) in the middle of (N, 5, 5) logarithms."""
    dx, dy = (logs[:, 2, 3] - logs[:, 2, 1]) / 2, (logs[:, 3, 2] - logs[:, 1, 2]) / 2
    dxx = (logs[:, 2, 4] - 2 * logs[:, 2, 2] + logs[:, 2, 0]) / 4
    dyy = (logs[:, 4, 2] - 2 * logs[:, 2, 2] + logs[:, 0, 2]) / 4
    dxy = (logs[:, 3, 3] - logs[:, 1, 3] - logs[:, 3, 1] + logs[:, 1, 1]) / 4
    return np.stack([dx, dy], axis=-1), np.stack([dxx, dyy, dxy], axis=-1)
