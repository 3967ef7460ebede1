"""OKS loss: one minus the object keypoint similarity, the score that COCO's average precision is built on.

Axes: B people, K joints. Points and the square roots of the areas share one unit, pixels of the crop or the image.

    OKS = mean over labelled joints of exp(-d^2 / (2 area (2 sigma)^2))

The sigmas are COCO's, as `model_zoo.skeletons` holds them; the evaluation doubles them, and so does this. Far from the
target the gradient vanishes: add another loss, or begin with one. Source: COCO's keypoint evaluation; as a loss: Maji
et al. 2022, arXiv:2204.06806.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.losses.masks import masked_mean, only, precise


def similarity(predicted: Tensor, target: Tensor, weights: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """OKS of each person, (B,); 0 where nothing is labelled.

    Args:
        predicted, target: (B, K, 2).
        weights: (B, K) >= 0; what stands at a joint of weight 0 does not matter.
        areas: (B,) of the people, in the square of the points' unit; positive where anything is labelled.
        sigmas: (K,).
    """
    counted = weights > 0
    squares = (only(precise(predicted), counted) - only(precise(target), counted)).square().sum(-1)
    areas = torch.where(counted.any(-1), areas, 1.0)[:, None]
    near = torch.exp(-squares / (2 * areas * (2 * sigmas).square()))
    shares = weights.to(near) / torch.where(counted.any(-1), weights.sum(-1), 1.0)[:, None]
    return (near * shares).sum(-1)


class OKSLoss(nn.Module):
    """1 - OKS, averaged over the people with labels.

    Args:
        sigmas: of the K joints, a skeleton's `sigmas`.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("sigmas", torch.tensor(sigmas, dtype=torch.float32), persistent=False)

    def forward(self, predicted: Tensor, target: Tensor, weights: Tensor, areas: Tensor) -> Tensor:
        """A scalar from 0 to 1; 0 with its gradient path where nobody is labelled. Arguments as `similarity`."""
        losses = 1 - similarity(predicted, target, weights, areas, self.sigmas)
        return masked_mean(losses, (weights > 0).any(-1).to(losses))
