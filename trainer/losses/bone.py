"""Bone loss: distances between joints should be those of the target.

Axes: B crops, K joints. Joints are points (B, K, D), whose distance is Euclidean, or heatmaps (B, K, H, W), whose
distance is the Frobenius norm of their difference: a similarity of maps, not a length. The loss does not see rigid
motions and reflections of a whole pose, so it cannot stand alone.

Source: the JointBoneLoss after Kulon et al. 2020, arXiv:2004.01946. Differs from it: a pair counts as far as both its
joints do (weight v_i v_j; there invisible joints count); the gradient of the distance of two equal joints is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.losses.masks import masked_mean, only, precise


def all_pairs(keypoints: int) -> list[tuple[int, int]]:
    """The K (K - 1) / 2 pairs of joints. On small data the edges of the skeleton are the better choice."""
    return [(first, second) for first in range(keypoints) for second in range(first + 1, keypoints)]


def lengths(joints: Tensor, pairs: Tensor) -> Tensor:
    """Distances (B, P) between the joints of (P, 2) pairs; joints (B, K, D) or (B, K, H, W)."""
    first, second = pairs.unbind(-1)
    return torch.linalg.vector_norm((joints[:, first] - joints[:, second]).flatten(2), dim=-1)


class JointBoneLoss(nn.Module):
    """Mean absolute difference of bone lengths, in the unit of the joints.

    Args:
        pairs: (first, second) joints, zero-based, at least one: `all_pairs(K)`, or a skeleton's `bones`.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        if not pairs:
            raise ValueError("a bone loss needs at least one pair of joints")
        self.register_buffer("pairs", torch.tensor(pairs), persistent=False)

    def forward(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Compare two sets of joints. Returns a scalar; 0 with its gradient path where no pair counts.

        Args:
            predicted, target: (B, K, D) points or (B, K, H, W) heatmaps.
            weights: (B, K) >= 0; what stands at a joint of weight 0 does not matter.
        """
        found, wanted = _lengths(predicted, target, weights, self.pairs)
        return masked_mean((found - wanted).abs(), weights[:, self.pairs].prod(-1))


class BatchMeanBoneLoss(JointBoneLoss):
    """MMPose's variant: lengths are averaged over the batch BEFORE they are compared.

    It constrains the mean skeleton of a batch and no single crop; `JointBoneLoss` is the one to take.
    """

    def forward(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """As `JointBoneLoss.forward`; a pair that counts nowhere in the batch is left out."""
        found, wanted = _lengths(predicted, target, weights, self.pairs)
        pair_weights = weights[:, self.pairs].prod(-1).to(found)
        share = pair_weights / pair_weights.sum(0).clamp(min=1)
        found, wanted = (found * share).sum(0), (wanted * share).sum(0)
        return masked_mean((found - wanted).abs(), (pair_weights > 0).any(0).to(found))


def parent_pairs(parents: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs (parent, child) of a list that names each joint's parent; a root is its own."""
    return [(parent, child) for child, parent in enumerate(parents) if parent != child]


def _lengths(predicted: Tensor, target: Tensor, weights: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    found, wanted = (lengths(only(precise(each), weights > 0), pairs) for each in (predicted, target))
    return found, wanted
