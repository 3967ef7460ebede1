"""Losses between predicted maps and the Gaussian about the true keypoint.

Axes: B crops, K keypoints, H x W cells. Points are x, y in cells, the centre of the first cell at (0, 0).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_WEIGHT = 1e-6
"""Least sum of weights that a mean is divided by."""


def gaussians(points: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Target maps: a Gaussian about the un-rounded point, peak 1 at the point itself.

    Args:
        points: (B, K, 2) in cells.
        size: (H, W).
        sigma: in cells.

    Returns:
        (B, K, H, W), on the device of the points.
    """
    height, width = size
    x = torch.arange(width, device=points.device) - points[..., :1]
    y = torch.arange(height, device=points.device) - points[..., 1:]
    along = [torch.exp(-(distance**2) / (2 * sigma**2)) for distance in (x, y)]
    return along[1][..., :, None] * along[0][..., None, :]


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Mean of (B, K) losses over the weights; 0 with its gradient path where every weight is 0.

    A loss of weight 0 never counts, not even as NaN.
    """
    counted = torch.where(weights > 0, losses, 0.0)
    return (counted * weights).sum() / weights.sum().clamp(min=SMALLEST_WEIGHT)


def divergence(logits: Tensor, points: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """KL divergence (B, K) from the normalised target Gaussian to the softmax over all cells, in nats; 0 where equal.

    Args:
        logits: (B, K, H, W).
        points: (B, K, 2) in cells; the value does not matter where the weight is 0.
        weights: (B, K) >= 0; of a keypoint of weight 0 the result means nothing.
        sigma: of the target, in cells.
    """
    safe = torch.where((weights > 0)[..., None], points, 0.0)
    target = gaussians(safe, logits.shape[-2:], sigma).flatten(2)
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-12)
    found = functional.log_softmax(_at_least_single(logits).flatten(2), dim=-1)
    return (torch.xlogy(target, target) - target * found).sum(-1)


def difference(maps: Tensor, points: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """Mean squared difference (B, K) from the target Gaussian with peak 1 over the cells; arguments as `divergence`."""
    safe = torch.where((weights > 0)[..., None], points, 0.0)
    target = gaussians(safe, maps.shape[-2:], sigma)
    return functional.mse_loss(_at_least_single(maps), target, reduction="none").mean((-2, -1))


def cross_entropy(logits: Tensor, points: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """`divergence`, averaged over the weights."""
    return weighted_mean(divergence(logits, points, weights, sigma), weights)


def mean_square(maps: Tensor, points: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """`difference`, averaged over the weights."""
    return weighted_mean(difference(maps, points, weights, sigma), weights)


def _at_least_single(maps: Tensor) -> Tensor:
    """Half-precision maps as float32; float64, which tests of gradients need, as it is."""
    return maps if maps.dtype == torch.float64 else maps.float()


LOSSES = {"softmax": cross_entropy, "linear": mean_square}
"""Loss of each head of `nets.pose`."""
PER_KEYPOINT = {"softmax": divergence, "linear": difference}
"""The same before the mean, (B, K)."""
