"""Losses between predicted maps and the Gaussian about the true keypoint.

Axes: B crops, K keypoints, H x W cells. Points are x, y in cells, the centre of the first cell at (0, 0).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
    return (counted * weights).sum() / weights.sum().clamp(min=1e-6)


def cross_entropy(logits: Tensor, points: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """KL divergence from the normalised target Gaussian to the softmax over all cells, in nats; 0 where equal.

    Args:
        logits: (B, K, H, W).
        points: (B, K, 2) in cells; the value does not matter where the weight is 0.
        weights: (B, K) >= 0.
        sigma: of the target, in cells.
    """
    safe = torch.where((weights > 0)[..., None], points, 0.0)
    target = gaussians(safe, logits.shape[-2:], sigma).flatten(2)
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-12)
    found = functional.log_softmax(_at_least_single(logits).flatten(2), dim=-1)
    return weighted_mean((torch.xlogy(target, target) - target * found).sum(-1), weights)


def mean_square(maps: Tensor, points: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """Mean squared difference from the target Gaussian with peak 1, over the cells.

    Arguments as `cross_entropy`.
    """
    safe = torch.where((weights > 0)[..., None], points, 0.0)
    target = gaussians(safe, maps.shape[-2:], sigma)
    found = _at_least_single(maps)
    return weighted_mean(functional.mse_loss(found, target, reduction="none").mean((-2, -1)), weights)


def _at_least_single(maps: Tensor) -> Tensor:
    """Half-precision maps as float32; float64, which tests of gradients need, as it is."""
    return maps if maps.dtype == torch.float64 else maps.float()


LOSSES = {"softmax": cross_entropy, "linear": mean_square}
"""Loss of each head of `nets.pose`."""
