"""What every loss shares: leaving out what is not labelled, means over the rest, and safe arithmetic.

`weights` are >= 0, one per joint (or sample); 0 means not labelled. What is not labelled counts neither in a loss
nor in a gradient, whatever stands there: it is replaced BEFORE anything is computed from it, because a gradient of
0 times NaN is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """Half-precision values as float32; float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def only(values: Tensor, counted: Tensor) -> Tensor:
    """Values with 0 where they do not count; neither they nor their gradients pass, not even as NaN.

    Args:
        values: (*A, ...).
        counted: (*A) bool, over the leading axes of the values.
    """
    return torch.where(counted.reshape(*counted.shape, *(1,) * (values.ndim - counted.ndim)), values, 0.0)


def masked_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Sum of weight times loss over max(sum of weights, 1); 0 with its gradient path where every weight is 0.

    Both of one shape. A loss of weight 0 may be NaN.
    """
    return (only(losses, weights > 0) * weights).sum() / weights.sum().clamp(min=1)


def bounded(values: Tensor, low: float, high: float) -> Tensor:
    """Values cut to [low, high] with the gradient of uncut ones, so that a value outside can find its way back."""
    return values + (values.clamp(low, high) - values).detach()
