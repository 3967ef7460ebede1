"""The Newton step that DARK and UDP share: from a cell to the peak of the paraboloid through logarithms."""

from __future__ import annotations

import numpy as np

from model_zoo.codecs._maps import Floats

FLAT = 1e-12
"""A determinant up to this is rounding, not curvature: it would belong to a sigma of 1000 cells."""


def newton(gradients: Floats, curvatures: Floats, *, longest: float, concave_only: bool = True) -> Floats:
    """Steps (..., 2) to the stationary point of a quadratic.

    Args:
        gradients: (..., 2), first derivatives along x and y.
        curvatures: (..., 3), second derivatives xx, yy, xy.
        longest: bound of a step's length; a longer one keeps its direction.
        concave_only: False also steps where the quadratic is a saddle or a bowl, as the published codes do.

    Returns:
        (..., 2) float64, finite for finite input; 0 where the quadratic is flat or, unless told otherwise,
        not concave.
    """
    dx, dy = np.moveaxis(gradients, -1, 0)
    dxx, dyy, dxy = np.moveaxis(curvatures, -1, 0)
    determinant = dxx * dyy - dxy * dxy
    steps = (determinant > FLAT) & (dxx < 0) if concave_only else np.abs(determinant) > FLAT
    step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], axis=-1)
    step = np.where(steps[..., None], step, 0.0) / np.where(steps, determinant, 1.0)[..., None]
    length = np.hypot(step[..., 0], step[..., 1])
    return step * (longest / np.maximum(length, longest))[..., None]
