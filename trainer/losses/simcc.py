"""SimCC: each coordinate as a classification over fine bins of its axis; labels and loss.

Axes: B crops, K joints, X = split_ratio x width and Y = split_ratio x height bins. Points are x, y in pixels of the
crop; bin i stands for the pixel coordinate i / split_ratio. `model_zoo.codecs.simcc` decodes.

Source: Li et al. 2022, arXiv:2107.03332, in the form of MMPose's `SimCCLabel` and `KLDiscretLoss`. Differs from them:
any weight above 0 draws its label (there visibility from 0.5), so that pseudo-labels may count little; the default
reduction is a mean over what counts (the published one grows with the batch, see `kl`).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from trainer.losses.masks import masked_mean, only, precise

SIGMA = (4.9, 5.66)
"""Bins along x and y for crops of 192 x 256 pixels, as RTMPose takes them."""
_REACH_SIGMAS = 3


def labels(
    points: Tensor,
    weights: Tensor,
    size: tuple[int, int],
    *,
    sigma: tuple[float, float] = SIGMA,
    split_ratio: float = 2.0,
    normalise: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw each coordinate as a Gaussian about its nearest bin.

    Args:
        points: (B, K, 2) in pixels.
        weights: (B, K) >= 0; what stands at a joint of weight 0 does not matter.
        size: (height, width) of the crop in pixels.
        sigma: along x and y, in bins.
        split_ratio: bins per pixel.
        normalise: divide by sigma sqrt(2 pi), so that a label sums to 1 instead of having the peak 1.

    Returns:
        (B, K, X) and (B, K, Y) labels, 0 where a joint does not count, and the weights (B, K), 0 for joints further
        than 3 sigma outside the crop.
    """
    nearest = torch.round(only(precise(points), weights > 0) * split_ratio)
    counted, drawn = weights > 0, []
    for dimension, pixels in enumerate(reversed(size)):
        width, bins = sigma[dimension], round(pixels * split_ratio)
        centre = nearest[..., dimension]
        reach = _REACH_SIGMAS * width
        counted = counted & (centre - reach < bins) & (centre + reach + 1 >= 0)
        distance = torch.arange(bins, device=points.device) - centre[..., None]
        label = torch.exp(-distance.square() / (2 * width**2))
        drawn.append(label / (width * math.sqrt(2 * math.pi)) if normalise else label)
    x, y = (only(label, counted) for label in drawn)
    return x, y, only(weights, counted)


def divergence(logits: Tensor, label: Tensor, *, beta: float = 10.0, label_softmax: bool = True) -> Tensor:
    """KL divergence (B, K) of one axis, averaged over its bins (not summed, as published).

    Args:
        logits: (B, K, bins).
        label: (B, K, bins) >= 0.
        beta: factor of the logits before their softmax.
        label_softmax: take softmax(beta x label) for the label; else the label as it is.
    """
    found = (precise(logits) * beta).log_softmax(-1)
    label = label.to(found)
    wanted = (label * beta).softmax(-1) if label_softmax else label
    return (torch.xlogy(wanted, wanted) - wanted * found).mean(-1)


def kl(
    logits: tuple[Tensor, Tensor],
    label: tuple[Tensor, Tensor],
    weights: Tensor,
    *,
    beta: float = 10.0,
    label_softmax: bool = True,
    reduction: Literal["mean", "mmpose"] = "mean",
) -> Tensor:
    """The divergences of both axes together.

    Args:
        logits: (B, K, X) and (B, K, Y).
        label: of the same shapes, from `labels`.
        weights: (B, K) >= 0; what stands at a joint of weight 0 does not matter.
        beta, label_softmax: as `divergence`. RTMPose takes 10 and True; 1 and False is the plain form for labels
            that sum to 1.
        reduction: `mean` over the weights; `mmpose`: summed over batch and joints, divided by K.
    """
    losses = sum(
        divergence(
            only(found, weights > 0), only(wanted, weights > 0), beta=beta, label_softmax=label_softmax
        )
        for found, wanted in zip(logits, label, strict=True)
    )
    if reduction == "mmpose":
        return (losses * weights).sum() / weights.shape[1]
    return masked_mean(losses, weights)
