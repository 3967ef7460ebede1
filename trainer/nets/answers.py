"""From what a net answers to keypoints in pixels of its crop.

Axes: B crops, K keypoints, D dimensions. Points are x, y and, in space, z in pixels of the crop relative to the root
keypoint. `points` has a gradient, for losses on coordinates; `served` is what is measured and exported, with a score
from 0 to 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model_zoo.manifest import Codec
from trainer.losses import dsnt, integral
from trainer.losses.masks import precise
from trainer.nets.heads import Outputs
from trainer.nets.pose import NetConfig

SIMCC_BETA = 10.0
"""Factor of SimCC's logits before the softmax, as RTMPose has it."""


def points(outputs: Outputs, config: NetConfig, size: tuple[int, int]) -> Tensor:
    """(B, K, D) points.

    Args:
        outputs: of a `HeadedNet`; a linear head's maps are none to take an expectation of.
        config: the net's shape.
        size: (height, width) of the crops in pixels.
    """
    if config.head in ("regression", "rle"):
        return _from_shares(outputs["points"], size)
    if config.head == "simcc":
        along = [_along(outputs[name], config.split_ratio) for name in ("simcc_x", "simcc_y")]
        return torch.stack(along, dim=-1)
    if config.head == "dsnt" and config.debiased is None:
        return _from_normalised(outputs["points"], size)
    if config.head == "dsnt":
        return _from_normalised(integral.debiased(outputs["logits"], mass=config.debiased), size)
    maps = outputs["heatmaps"]
    cells = dsnt.to_cells(dsnt.expectation(dsnt.softmax(maps)), tuple(maps.shape[-2:]))
    return cells * config.stride + (config.stride - 1) / 2


def served(outputs: Outputs, config: NetConfig, codec: Codec, size: tuple[int, int]) -> Tensor:
    """(B, K, 3): x, y and score, of a head that answers keypoints; depth is left out. Arguments as `points`."""
    if config.head == "simcc":
        found, scores = _largest(outputs, config.split_ratio)
    else:
        found = points(outputs, config, size)[..., :2]
        scores = _scores(outputs, codec, found)
    return torch.cat([precise(found), precise(scores).clamp(0, 1)[..., None]], dim=-1)


def _scores(outputs: Outputs, codec: Codec, like: Tensor) -> Tensor:
    """(B, K): the likeliest cell against that of a perfect map, or 1 - scale; 1 where a net says neither."""
    if "logits" in outputs:
        return outputs["scores"] * (2 * math.pi * codec.sigma_cells**2)
    if "scores" in outputs:
        return outputs["scores"]
    if "log_scales" in outputs:
        return 1 - precise(outputs["log_scales"]).exp().mean(-1)
    return torch.ones_like(like[..., 0])


def _largest(outputs: Outputs, split_ratio: float) -> tuple[Tensor, Tensor]:
    """As `model_zoo.codecs.simcc` on the probabilities of both axes, so that the scores are from 0 to 1."""
    axes = [(precise(outputs[name]) * SIMCC_BETA).softmax(-1).max(-1) for name in ("simcc_x", "simcc_y")]
    bins = torch.stack([axis.indices for axis in axes], dim=-1)
    return bins / split_ratio, torch.minimum(axes[0].values, axes[1].values)


def _along(logits: Tensor, split_ratio: float) -> Tensor:
    """(B, K, bins) logits -> (B, K) expectation in pixels."""
    probabilities = (precise(logits) * SIMCC_BETA).softmax(-1)
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=probabilities.dtype)
    return (probabilities * bins).sum(-1) / split_ratio


def _from_shares(shares: Tensor, size: tuple[int, int]) -> Tensor:
    """See `data.normalise`; z in crop widths."""
    height, width = size
    flat = (precise(shares[..., :2]) + 0.5) * shares.new_tensor([width, height], dtype=torch.float32)
    return torch.cat([flat, precise(shares[..., 2:]) * width], dim=-1)


def _from_normalised(normalised: Tensor, size: tuple[int, int]) -> Tensor:
    """See `losses.dsnt`; z in half crop widths."""
    flat = dsnt.to_cells(normalised[..., :2], size)
    return torch.cat([flat, normalised[..., 2:] * (size[1] / 2)], dim=-1)
