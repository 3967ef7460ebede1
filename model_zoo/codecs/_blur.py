"""The Gaussian blur that DARK and UDP put before their Newton step: modulation, in DARK's words.

Source: Zhang et al. 2020, arXiv:1910.06278; the weights are those of OpenCV's GaussianBlur, as in the
published code.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from model_zoo.codecs._maps import Floats

_TABLES = {
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
    9: tuple(part / 256 for part in (4, 13, 30, 51, 60, 51, 30, 13, 4)),
}


def kernel(size: int) -> Floats:
    """The (size,) float64 weights of a blur, summing to 1: OpenCV's, so fixed tables up to 9 cells.

    Raises:
        ValueError: a size that is not odd and positive.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a blur kernel has an odd, positive size, got {size}")
    if size in _TABLES:
        return np.array(_TABLES[size])
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    weights = np.exp(-0.5 * np.square((np.arange(size) - size // 2) / sigma))
    return weights / weights.sum()


@lru_cache(maxsize=64)
def _operator(size: int, cells: int, dtype: np.dtype[Any]) -> Floats:
    """The (cells, cells) matrix that blurs one axis; what lies outside the map is zero."""
    distance = np.abs(np.subtract.outer(np.arange(cells), np.arange(cells)))
    half = kernel(size)[size // 2 :]
    matrix = np.where(distance < len(half), half[np.minimum(distance, len(half) - 1)], 0.0).astype(dtype)
    matrix.flags.writeable = False
    return matrix


def modulate(maps: Floats, size: int, peaks: Floats) -> Floats:
    """Blur maps with a `size` x `size` Gaussian and raise their maxima to the old ones again.

    Args:
        maps: (B, K, H, W), finite. Outside a map there is zero. Never written to.
        size: side of the blur, odd and positive.
        peaks: (B, K), the maximum of each map.

    Returns:
        (B, K, H, W), clipped at 0; float32 for float32 maps, which is four times as quick as float64. A map
        whose blur is nowhere positive comes back as zeros.
    """
    height, width = maps.shape[2:]
    dtype = np.result_type(maps.dtype, np.float32)
    halved = np.multiply(maps, 0.5, dtype=dtype)  # no sum can overflow; the factor goes with the maximum
    blurred = _operator(size, height, dtype) @ (halved @ _operator(size, width, dtype))
    np.maximum(blurred, 0.0, out=blurred)
    highest = blurred.max(axis=(2, 3), keepdims=True)
    blurred /= np.where(highest > 0, highest, 1.0)
    blurred *= np.maximum(peaks, 0.0)[..., None, None]
    return blurred
