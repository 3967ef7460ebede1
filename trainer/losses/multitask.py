"""Losses of nets with several heads and of batches with several kinds of labels.

Axes: B crops, K joints, C classes. Masks are per crop: presence is learnt on every crop, coordinates, bones and
handedness only where something is present, so the caller multiplies their weights by the presence label. A crop
without a label of one kind takes no part in that kind's loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses.masks import masked_mean, only, precise

IGNORED = -1
"""Class label of a crop whose class is not known."""
_IN_SPACE = (2.0, 2.0, 1.0)
"""Shares of x, y, z in the loss of a 3D label: x and y count double."""


def presence(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy in nats, averaged over the weights; also for left or right and the like.

    Args:
        logits: (B,).
        labels: (B,) from 0 to 1.
        weights: (B,) >= 0; what stands at a crop of weight 0 does not matter.
    """
    logits, labels = (only(precise(each), weights > 0) for each in (logits, labels))
    losses = functional.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
    return masked_mean(losses, weights)


def classification(
    logits: Tensor, labels: Tensor, *, smoothing: float = 0.0, ignored: int = IGNORED
) -> Tensor:
    """Cross-entropy in nats, averaged over the crops whose class is known; 0 where none is.

    Args:
        logits: (B, C); what stands at an ignored crop does not matter.
        labels: (B,) integers; `ignored` where the class is not known.
        smoothing: share of the label that is spread over all classes.
        ignored: the label that is none.
    """
    counted = labels != ignored
    losses = functional.cross_entropy(
        only(precise(logits), counted),
        torch.where(counted, labels, 0),
        reduction="none",
        label_smoothing=smoothing,
    )
    return masked_mean(losses, counted.to(losses))


def mixed_coordinates(
    predicted: Tensor,
    target: Tensor,
    weights: Tensor,
    in_space: Tensor,
    *,
    penalty: Callable[[Tensor], Tensor] = torch.abs,
) -> Tensor:
    """Coordinate loss of a batch in which some crops have 2D labels and some 3D ones.

    A 3D crop's joint costs the mean over x, y and z with x and y counted twice, a 2D crop's the mean over x and y.
    Each kind is averaged on its own, and the means are averaged over the kinds that the batch holds, so that a rare
    kind is not drowned. z has a gradient from 3D crops only.

    Args:
        predicted: (B, K, 3): x, y, and z relative to the root joint.
        target: (B, K, 3); what stands at a joint of weight 0, and as z of a 2D crop, does not matter.
        weights: (B, K) >= 0.
        in_space: (B,) bool, whether the crop's label has a z.
        penalty: elementwise, of the differences.
    """
    has_z = torch.stack([torch.ones_like(in_space), torch.ones_like(in_space), in_space], dim=-1)
    counted = (weights > 0)[..., None] & has_z[:, None]
    difference = only(precise(predicted), counted) - only(precise(target), counted)
    shares = has_z * difference.new_tensor(_IN_SPACE)
    shares = (shares / shares.sum(-1, keepdim=True))[:, None]
    losses = (penalty(difference) * shares).sum(-1)
    kinds = [only(weights, in_space), only(weights, ~in_space)]
    held = sum((kind > 0).any() for kind in kinds)
    return sum(masked_mean(losses, kind) for kind in kinds) / held.clamp(min=1)
