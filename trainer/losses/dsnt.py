"""The differentiable spatial to numerical transform, DSNT: coordinates as expectations, and what trains them.

Axes: B crops, K joints, then the spatial axes S: H x W, or D x H x W for volumes. Coordinates are x, y[, z], the
reverse of the axes' order, normalised as in `model_zoo.codecs.dsnt`, which decodes what is trained here: cell i of
n is at (2 i - (n - 1)) / n, so the outer edges of the map are -1 and 1.

The loss is the distance of the expectation from the target plus a regulariser of the map's shape. Each part gives
(B, K); `total` puts them together. A volume may be trained by 2D labels: they supervise its depth-marginal.

Source: Nibali et al. 2018, arXiv:1801.07372, and the definitions of its library dsntnn. Differs from them: the
gradient of the Euclidean distance is 0 where the distance is (there NaN); joints of weight 0 are left out before
the softmax; half precision is raised to float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from trainer.losses.masks import masked_mean, only, precise

TINY = 1e-24
"""Added inside logarithms and to the sum of a target before the division, as dsntnn does."""


def axis(cells: int, like: Tensor) -> Tensor:
    """The (cells,) normalised positions of cell centres, in the type and on the device of `like`."""
    return (2 * _indices(cells, like) - (cells - 1)) / cells


def to_normalised(points: Tensor, size: tuple[int, ...]) -> Tensor:
    """Map (..., D) points in cells of a map of `size` ([depth,] height, width) to normalised ones."""
    return (2 * points + 1) / _extent(points, size) - 1


def to_cells(points: Tensor, size: tuple[int, ...]) -> Tensor:
    """Map (..., D) normalised points to cells; the inverse of `to_normalised`."""
    return ((points + 1) * _extent(points, size) - 1) / 2


def softmax(logits: Tensor) -> Tensor:
    """Turn (B, K, *S) logits into probabilities: each map sums to 1 over all its spatial axes."""
    return precise(logits).flatten(2).softmax(-1).view_as(logits)


def expectation(probabilities: Tensor) -> Tensor:
    """The mean position (B, K, D) of (B, K, *S) maps that sum to 1: normalised x, y[, z]."""
    means = [(each * axis(each.shape[-1], each)).sum(-1) for each in _marginals(probabilities)]
    return torch.stack(means, dim=-1)


def depth_marginal(probabilities: Tensor) -> Tensor:
    """(B, K, D, H, W) -> (B, K, H, W): what a 2D label says something about."""
    return probabilities.sum(2)


def gaussian(points: Tensor, size: tuple[int, ...], sigma: float, *, normalise: bool = True) -> Tensor:
    """Draw the Gaussian that a map is compared with.

    Args:
        points: (..., D) normalised.
        size: ([depth,] height, width) of the maps in cells.
        sigma: standard deviation in cells.
        normalise: whether the cells sum to 1; else a point on a cell's centre has the value 1 there.

    Returns:
        (..., *size).
    """
    centres, dimensions = to_cells(points, size), len(size)
    squares = points.new_zeros(())
    for dimension, cells in enumerate(reversed(size)):
        shape = [1] * dimensions
        shape[-1 - dimension] = cells
        along = ((_indices(cells, points) - centres[..., dimension, None]) / sigma).square()
        squares = squares + along.reshape(*centres.shape[:-1], *shape)
    drawn = torch.exp(-squares / 2)
    if normalise:
        drawn = drawn / (drawn.sum(tuple(range(-dimensions, 0)), keepdim=True) + TINY)
    return drawn


def euclidean(coordinates: Tensor, target: Tensor) -> Tensor:
    """Distance (B, K) between (B, K, D) points."""
    return torch.linalg.vector_norm(coordinates - target, dim=-1)


def l1(coordinates: Tensor, target: Tensor) -> Tensor:
    """Mean (B, K) of the absolute differences of (B, K, D) points."""
    return (coordinates - target).abs().mean(-1)


def mse(coordinates: Tensor, target: Tensor) -> Tensor:
    """Mean (B, K) of the squared differences of (B, K, D) points."""
    return (coordinates - target).square().mean(-1)


def kl(probabilities: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B, K) of (B, K, *S) maps from target maps, in nats."""
    p, q = probabilities.flatten(2), target.flatten(2)
    return (p * ((p + TINY).log() - (q + TINY).log())).sum(-1)


def js(probabilities: Tensor, target: Tensor) -> Tensor:
    """Jensen-Shannon divergence (B, K) between (B, K, *S) maps, in nats: from 0 to log 2."""
    middle = (probabilities + target) / 2
    return (kl(probabilities, middle) + kl(target, middle)) / 2


def variance(probabilities: Tensor, sigma: float) -> Tensor:
    """Squared difference (B, K) of a map's variance from sigma^2, in cells, summed over the axes."""
    total = probabilities.new_zeros(())
    for each in _marginals(probabilities):
        cells = _indices(each.shape[-1], each)
        mean = (each * cells).sum(-1, keepdim=True)
        total = total + ((each * (cells - mean).square()).sum(-1) - sigma**2).square()
    return total


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"euclidean": euclidean, "l1": l1, "mse": mse}
"""How far the expectation is from the target."""


def total(
    logits: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    sigma: float = 1.0,
    distance: Literal["euclidean", "l1", "mse"] = "euclidean",
    regulariser: Literal["js", "kl", "variance"] | None = "js",
    strength: float = 1.0,
) -> Tensor:
    """Mean over the weights of distance + strength x regulariser, in normalised units.

    Args:
        logits: (B, K, *S), before any softmax.
        target: (B, K, D) normalised; D = 2 on a volume supervises its depth-marginal.
        weights: (B, K) >= 0; what stands at a joint of weight 0 does not matter.
        sigma: of the regulariser's target, in cells.
        distance: of the expectation from the target.
        regulariser: divergence from a Gaussian about the target, or the map's variance; None for no regulariser.
        strength: factor of the regulariser.
    """
    logits, target = (only(precise(each), weights > 0) for each in (logits, target))
    probabilities = softmax(logits)
    if probabilities.ndim - 2 > target.shape[-1]:
        probabilities = depth_marginal(probabilities)
    losses = DISTANCES[distance](expectation(probabilities), target)
    if regulariser == "variance":
        losses = losses + strength * variance(probabilities, sigma)
    elif regulariser is not None:
        divergence = {"js": js, "kl": kl}[regulariser]
        drawn = gaussian(target, tuple(probabilities.shape[2:]), sigma)
        losses = losses + strength * divergence(probabilities, drawn)
    return masked_mean(losses, weights)


def _marginals(maps: Tensor) -> list[Tensor]:
    """(B, K, n) sums over all spatial axes but one: along x, y[, z]."""
    spatial = range(2, maps.ndim)
    return [maps.sum([other for other in spatial if other != kept]) for kept in reversed(spatial)]


def _indices(cells: int, like: Tensor) -> Tensor:
    return torch.arange(cells, dtype=like.dtype, device=like.device)


def _extent(like: Tensor, size: tuple[int, ...]) -> Tensor:
    """Cells along x, y[, z]."""
    return like.new_tensor(size[::-1])
