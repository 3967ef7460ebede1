"""Debiased integral regression: soft-argmax without the pull of the softmax's tail towards the map's centre.

Axes: B crops, K joints, H x W cells. Coordinates are x, y, normalised as in `losses.dsnt`.

A map that is 0 away from its peak keeps a mass of exp(0) = 1 in each of those cells, which draws the expectation to
the centre. With C the mass of exp(scale x logits), the published correction on an axis from 0 to 1 is

    x = C / (C - 1) (x' - 1 / (2 C)),    which in coordinates whose centre is 0 is    u = u' C / (C - 1).

C is the SUM over the cells in the public code (MMPose), which hardly corrects. The argument above asks for the mass
of a cell, the MEAN: it recovers the centre of a symmetric peak exactly. Both are here, the sum as the default because
it is the published number; use the mean on maps whose background is 0.

Source: Gu et al., "Removing the Bias of Integral Pose Regression", ICCV 2021. Differs from the public code: C contains
the scale of the softmax (MMPose leaves it out there); cells are where `losses.dsnt` has them, (i + 1/2) / n instead
of i / n, so that an even map is the centre; the factor is computed from log C, so that it does not overflow, and is
bounded, also where C <= 1, where the published one has a pole and changes its sign.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from trainer.losses import dsnt
from trainer.losses.masks import masked_mean, only, precise

Mass = Literal["sum", "mean"]


def correction(logits: Tensor, *, scale: float = 1.0, mass: Mass = "sum", largest: float = 10.0) -> Tensor:
    """The factor C / (C - 1), (B, K, 1), at most `largest`; see `debiased`."""
    flat = precise(logits).flatten(2) * scale
    log_mass = flat.logsumexp(-1, keepdim=True)
    if mass == "mean":
        log_mass = log_mass - torch.ones_like(flat).sum(-1, keepdim=True).log()  # a number that can be traced
    at_the_bound = -math.log1p(-1 / largest)  # the log C that gives the largest factor
    return 1 / (1 - torch.exp(-log_mass.clamp(min=at_the_bound)))  # expm1 has no ONNX form


def debiased(logits: Tensor, *, scale: float = 1.0, mass: Mass = "sum", largest: float = 10.0) -> Tensor:
    """Expectation of the softmax without its bias.

    Args:
        logits: (B, K, H, W).
        scale: of the logits in the softmax (beta); a larger one sharpens.
        mass: what C is, see the head of this module.
        largest: bound of the correction, above 1; reached as C falls to 1 and below.

    Returns:
        (B, K, 2) normalised; a little outside of [-1, 1] where the background is not 0.
    """
    coordinates = dsnt.expectation(dsnt.softmax(precise(logits) * scale))
    return coordinates * correction(logits, scale=scale, mass=mass, largest=largest)


def loss(
    logits: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    scale: float = 1.0,
    mass: Mass = "sum",
    largest: float = 10.0,
    distance: Literal["euclidean", "l1", "mse"] = "l1",
) -> Tensor:
    """Mean over the weights of the distance between debiased coordinates and target, in normalised units.

    Args:
        logits: (B, K, H, W).
        target: (B, K, 2) normalised.
        weights: (B, K) >= 0; what stands at a joint of weight 0 does not matter.
        scale, mass, largest: as `debiased`.
        distance: as in `losses.dsnt`.
    """
    logits, target = (only(precise(each), weights > 0) for each in (logits, target))
    found = debiased(logits, scale=scale, mass=mass, largest=largest)
    return masked_mean(dsnt.DISTANCES[distance](found, target), weights)
