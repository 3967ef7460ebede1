"""Decode SimCC: one score vector per axis, whose maximum is the coordinate.

Axes: B crops, K keypoints, X and Y bins along the axes of the crop. Points are x, y in pixels of the crop; bin i
stands for the coordinate i / split_ratio.

Source: Li et al. 2022, arXiv:2107.03332, and MMPose's `SimCCLabel`, with its one-dimensional DARK step. Differs from
them: a joint without a positive score keeps its maxima like any other (there bin -1); the step is taken only where
the logarithm is strictly concave and its differences lie inside the vector, and is never longer than a bound; an
all-zero vector stays on its maximum (there NaN). `rule="mmpose"` brings the published bin -1 and the free step back,
but never the NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.codecs._blur import modulate
from model_zoo.codecs._maps import Floats, checked, peaks
from model_zoo.codecs._newton import FLAT

Rule = Literal["guarded", "mmpose"]

LOWEST, HIGHEST = 1e-3, 50.0
"""Bounds of the values before the logarithm."""
_REACH = 2
"""Bins that the differences reach from the maximum."""
_PUBLISHED_SOFTENING = 1e-9
"""What the published code adds to the second derivative."""


def blur_kernel(sigma: float) -> int:
    """Bins of the blur that the published DARK step takes for labels of this sigma; always odd."""
    size = int((sigma * 20 - 7) // 3)
    return size if size % 2 else size - 1


def decode(
    x: ArrayLike,
    y: ArrayLike,
    *,
    split_ratio: float = 2.0,
    blur_kernels: tuple[int, int] | None = None,
    max_offset_bins: float = 1.5,
    rule: Rule = "guarded",
) -> tuple[Floats, Floats]:
    """Find each keypoint at the first maximum of its vectors.

    Args:
        x, y: (B, K, X) and (B, K, Y) scores. Never written to.
        split_ratio: bins per pixel.
        blur_kernels: sides of the blurs along x and y before a DARK step, odd, see `blur_kernel`; None: no step.
        max_offset_bins: longest step from the maximum.
        rule: where a step is taken and what a joint without a positive score gives, see the head of this module.

    Returns:
        points (B, K, 2) in pixels, and scores (B, K): the smaller of the two maxima. Both float64.

    Raises:
        HeatmapError: vectors that are empty, have not three axes or a value that is not finite.
    """
    rows = [checked(np.expand_dims(np.asarray(each), -2)) for each in (x, y)]
    found = [peaks(each) for each in rows]
    scores = np.minimum(found[0][2], found[1][2])
    bins = np.stack([place for place, _, _ in found], axis=-1).astype(np.float64)
    if blur_kernels is not None:
        for axis, (row, size) in enumerate(zip(rows, blur_kernels, strict=True)):
            place, _, value = found[axis]
            log = np.log(np.clip(modulate(row, size, value)[:, :, 0].astype(np.float64), LOWEST, HIGHEST))
            longest = max_offset_bins if rule == "guarded" else np.inf
            bins[..., axis] += _step(log, place, longest, guarded=rule == "guarded")
    if rule == "mmpose":
        bins[scores <= 0] = -1.0
    return bins / split_ratio, scores


def _step(logs: Floats, place: np.ndarray, longest: float, *, guarded: bool) -> Floats:
    """The Newton step (B, K) from a bin of (B, K, n) logarithms; beyond the ends, the last value goes on."""
    last = logs.shape[-1] - 1
    around = np.clip(place[..., None] + np.arange(-_REACH, _REACH + 1), 0, last)
    far_left, left, middle, right, far_right = np.moveaxis(np.take_along_axis(logs, around, -1), -1, 0)
    slope = (right - left) / 2
    curvature = (far_right - 2 * middle + far_left) / 4
    if guarded:
        steps = (curvature < -FLAT) & (np.minimum(place, last - place) >= _REACH)
    else:
        curvature = curvature + _PUBLISHED_SOFTENING
        steps = curvature != 0
    step = -np.where(steps, slope, 0.0) / np.where(steps, curvature, 1.0)
    return np.clip(step, -longest, longest)
