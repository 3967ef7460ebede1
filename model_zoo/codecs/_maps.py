"""What every codec shares: the array type, the check of incoming heatmaps and the search for maxima."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_zoo.errors import HeatmapError

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.intp]


def checked(heatmaps: ArrayLike) -> Floats:
    """The heatmaps as an array, untouched where they are one already.

    Raises:
        HeatmapError: not four axes, an empty map, not real numbers, or a value that is not finite.
    """
    maps = np.asarray(heatmaps)
    if maps.ndim != 4 or maps.size == 0 or maps.dtype.kind not in "fiu" or not np.isfinite(maps).all():
        raise HeatmapError(f"expected finite (B, K, H, W) heatmaps, got shape {maps.shape} of {maps.dtype}")
    return maps


def peaks(maps: Floats) -> tuple[Integers, Integers, Floats]:
    """Column, row and value (B, K) of each map's maximum; the first in row order where several are equal."""
    height, width = maps.shape[2:]
    flat = maps.reshape(*maps.shape[:2], height * width)
    cell = flat.argmax(axis=-1)
    value = np.take_along_axis(flat, cell[..., None], axis=-1)[..., 0].astype(np.float64)
    row, column = np.divmod(cell, width)
    return column, row, value
