"""Direct regression of coordinates: L1, L2, Smooth-L1, and Laplace and Gaussian likelihoods with a learnt scale.

Axes: B crops, K joints, D dimensions of a point. Points may have any unit; losses are means over the coordinates of a
joint, then over the weights of the joints.

L1 is the likelihood of a Laplace density of fixed scale, whose best answer is the median; L2 that of a Gaussian, the
mean. Smooth-L1 with its usual beta of 1 on coordinates within [-0.5, 0.5] would be L2 everywhere, so the default here
is 0.02. The scale of the likelihoods is learnt as its logarithm and is bounded, so that a joint predicted exactly
cannot draw the loss to minus infinity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses.masks import bounded, masked_mean, only, precise

LOG_SCALE_BOUND = 10.0
"""Log-scales beyond +-this count as this; e^-10 of a crop is a hundredth of a pixel."""


def l1(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute difference of (B, K, D) points.

    Args:
        predicted, target: (B, K, D).
        weights: (B, K) >= 0; what stands at a joint of weight 0 does not matter.
    """
    return _mean(_difference(predicted, target, weights).abs(), weights)


def l2(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean squared difference; arguments as `l1`."""
    return _mean(_difference(predicted, target, weights).square(), weights)


def smooth_l1(predicted: Tensor, target: Tensor, weights: Tensor, *, beta: float = 0.02) -> Tensor:
    """A parabola up to a difference of beta, L1 less beta / 2 beyond; arguments as `l1`."""
    difference = _difference(predicted, target, weights)
    losses = functional.smooth_l1_loss(difference, torch.zeros_like(difference), beta=beta, reduction="none")
    return _mean(losses, weights)


def laplace(predicted: Tensor, log_scale: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Negative log-likelihood log 2b + |difference| / b, per coordinate.

    Args:
        predicted, target: (B, K, D).
        log_scale: log b, (B, K, D).
        weights: (B, K) >= 0; what stands at a joint of weight 0 does not matter.
    """
    log_scale = _log_scale(log_scale, weights)
    difference = _difference(predicted, target, weights)
    return _mean(difference.abs() * torch.exp(-log_scale) + log_scale + math.log(2), weights)


def gaussian(predicted: Tensor, log_scale: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Negative log-likelihood log(sigma sqrt(2 pi)) + (difference / sigma)^2 / 2; arguments as `laplace`."""
    log_scale = _log_scale(log_scale, weights)
    ratio = _difference(predicted, target, weights) * torch.exp(-log_scale)
    return _mean(ratio.square() / 2 + log_scale + math.log(2 * math.pi) / 2, weights)


def _difference(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    return only(precise(predicted), weights > 0) - only(precise(target), weights > 0)


def _log_scale(log_scale: Tensor, weights: Tensor) -> Tensor:
    return bounded(only(precise(log_scale), weights > 0), -LOG_SCALE_BOUND, LOG_SCALE_BOUND)


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    return masked_mean(losses.mean(-1), weights)
