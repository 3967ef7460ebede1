"""Write keypoints as Gaussian heatmaps.

Axes: K keypoints, H x W heatmap cells; any axes before K. Coordinates are x, y in cells; (0, 0) is the centre
of the top-left cell. A point on the centre of a cell draws a peak of 1 there.

Three targets, side by side:

* `draw`: unbiased, over the whole map, about the point itself. This is what `manifest.Codec` calls
  `gaussian`. Source: Zhang et al. 2020, arXiv:1910.06278 (DARK).
* `draw_msra`: about the nearest cell, within 3 sigma. Source: Xiao et al. 2018, arXiv:1804.06208.
* `draw_udp`: about the point itself, within 3 sigma of the nearest cell. Source: Huang et al. 2020,
  arXiv:1911.07524. Its points are cells as well; UDP's own scale from pixels to cells is the caller's choice.

Differs from the sources: halves round up for negative coordinates too, and a joint is dropped exactly when
its window holds no cell of the map. (The published code truncates towards zero, and keeps a joint whose
window ends one cell before the map.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.codecs._maps import Floats

WINDOW_SIGMAS = 3.0
"""Half the side of the window of `draw_msra` and `draw_udp`."""


def draw(points: ArrayLike, size: tuple[int, int], sigma: float) -> Floats:
    """Draw each point as a Gaussian over its whole map.

    Args:
        points: (..., K, 2) finite x, y in cells; inside the map or not.
        size: (height, width) of the maps in cells.
        sigma: standard deviation in cells.

    Returns:
        (..., K, H, W) float32, 1 at the point. Multiply by `weights` to empty the maps of joints that do not
        count.
    """
    return _outer(*_distances(np.asarray(points, np.float64), size), sigma)


def draw_msra(
    points: ArrayLike, size: tuple[int, int], sigma: float, visible: ArrayLike = 1.0
) -> tuple[Floats, Floats]:
    """Draw a Gaussian about the cell nearest to each point, cut off at 3 sigma.

    Args:
        points: (..., K, 2) finite x, y in cells.
        size: (height, width) of the maps in cells.
        sigma: standard deviation in cells.
        visible: (..., K) or a scalar; below 0.5 the map stays empty.

    Returns:
        maps (..., K, H, W) float32 with peak 1, and weights (..., K) float32 as `weights` gives them.
    """
    nearest = _nearest(points)
    return _windowed(nearest, nearest, size, sigma, visible)


def draw_udp(
    points: ArrayLike, size: tuple[int, int], sigma: float, visible: ArrayLike = 1.0
) -> tuple[Floats, Floats]:
    """Draw a Gaussian about each point itself, cut off 3 sigma from its nearest cell; else as `draw_msra`."""
    return _windowed(np.asarray(points, np.float64), _nearest(points), size, sigma, visible)


def weights(points: ArrayLike, size: tuple[int, int], sigma: float, visible: ArrayLike = 1.0) -> Floats:
    """Which joints a map can teach: (..., K) float32, 1 or 0.

    A joint counts when its visibility is at least 0.5 and the window of 3 sigma around its nearest cell meets
    the map. Arguments as `draw_msra`.
    """
    nearest, reach = _nearest(points), np.floor(WINDOW_SIGMAS * sigma)
    last = np.array([size[1] - 1, size[0] - 1])
    meets = ((nearest + reach >= 0) & (nearest - reach <= last)).all(axis=-1)
    return (meets & (np.asarray(visible) >= 0.5)).astype(np.float32)


def _nearest(points: ArrayLike) -> Floats:
    """Centres of the cells that hold the points; halves go to the right and down."""
    return np.floor(np.asarray(points, np.float64) + 0.5)


def _distances(points: Floats, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Signed distances (..., K, W) and (..., K, H) of every column and row from the points."""
    height, width = size
    return np.arange(width) - points[..., 0, None], np.arange(height) - points[..., 1, None]


def _outer(dx: Floats, dy: Floats, sigma: float) -> Floats:
    """The 2-D Gaussian as product of two 1-D ones; an infinite distance draws nothing."""
    column, row = (np.exp(-0.5 * np.square(d / sigma)).astype(np.float32) for d in (dx, dy))
    return row[..., :, None] * column[..., None, :]


def _windowed(
    centres: Floats, nearest: Floats, size: tuple[int, int], sigma: float, visible: ArrayLike
) -> tuple[Floats, Floats]:
    counted = weights(nearest, size, sigma, visible)
    dx, dy = (
        np.where(np.abs(from_window) <= WINDOW_SIGMAS * sigma, from_centre, np.inf)
        for from_window, from_centre in zip(_distances(nearest, size), _distances(centres, size), strict=True)
    )
    return _outer(dx, dy, sigma) * counted[..., None, None], counted
