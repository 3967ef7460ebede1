"""Online hard keypoint mining: of every crop only the keypoints that are worst at present are learnt from.

Axes: B crops, K keypoints. Source: Chen et al., CVPR 2018, arXiv:1711.07319 (CPN), which keeps 8 of 17.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.losses.masks import only


def hardest(losses: Tensor, weights: Tensor, count: int) -> Tensor:
    """The (B, K) weights of the `count` labelled keypoints of each crop with the largest losses; 0 for the others.

    Args:
        losses: (B, K); what stands at a keypoint of weight 0 does not matter.
        weights: (B, K) >= 0.
        count: kept per crop; all labelled ones where there are no more.
    """
    if count >= weights.shape[1]:
        return weights
    counted = weights > 0
    ranked = torch.where(counted, only(losses.detach(), counted), -torch.inf)
    chosen = torch.zeros_like(counted).scatter_(1, ranked.topk(count, dim=1).indices, True)
    return torch.where(chosen & counted, weights, 0.0)
