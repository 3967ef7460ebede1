"""Online distillation between branches of one net: OKDHP.

A net is trained with M copies of its last stage and decoder on one shared trunk. An ensemble of the copies is the
teacher of each of them; one copy is kept. With maps h_m of the branches and e of the ensemble,

    loss = sum_m L(h_m) + ensemble * L(e) + distillation * r(t) * sum_m KL(softmax e || softmax h_m)

where L compares with the labels and r rises from exp(-5) to 1 over the first epochs. Three ensembles:

- `mean`: the plain mean of the branches.
- `fau`: per keypoint, a mean weighted by a gate that looks at the trunk's output.
- `groups`: every group of two and more branches (1+2, 1+3, 2+3, 1+2+3) has a head of its own on their joint features.
  The heads learn from the labels like the branches; the teacher is the mean of their maps.

Axes: M branches, B crops, K keypoints, H x W cells.

Source: Li et al., ICCV 2021, arXiv:2108.02092. Differs from its code: the teacher is detached, so that it does not move
towards its pupils; a hidden keypoint stays out even where its map is NaN; and the loss against the labels is the
caller's choice, `mean_square` being the published one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from trainer.nets.pose import NetConfig, PoseNet

Ensemble = Literal["mean", "fau", "groups"]


class Weighting(BaseModel):
    """How much each part of the loss counts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ensemble: NonNegativeFloat = 6.0
    """Of the ensemble's loss against the labels."""
    distillation: NonNegativeFloat = 5.0
    """Of the branches' distance from the ensemble, after the rise."""
    rise_epochs: NonNegativeFloat = 60.0
    """Epochs until distillation has its full weight."""
    temperature: PositiveFloat = 1.0
    """Maps are divided by it before the softmax. Maps in [0, 1] are nearly flat over thousands of cells: 0.1 makes
    them differ."""
    detach_teacher: bool = True
    """Whether the ensemble ignores its pupils; the published code does not."""


@dataclass(frozen=True)
class Outputs:
    """What a net with branches answers."""

    branches: Tensor
    """(M, B, K, H, W)."""
    ensemble: Tensor
    """(B, K, H, W)."""
    groups: Tensor
    """(G, B, K, H, W) of the heads on groups; G = 0 where there are none."""


@dataclass(frozen=True)
class Losses:
    """The parts, before their weights, and their weighted sum; scalars."""

    branches: Tensor
    """Of branches and heads on groups against the labels, summed."""
    ensemble: Tensor
    """Of the ensemble against the labels."""
    distillation: Tensor
    """Distance of the branches from the ensemble, summed."""
    total: Tensor


def mean(branches: Tensor) -> Tensor:
    """(M, B, K, H, W) -> (B, K, H, W)."""
    return branches.mean(dim=0)


def gated_mean(branches: Tensor, gate: Tensor) -> Tensor:
    """(M, B, K, H, W) with a (M, B, K) gate that sums to 1 over M -> (B, K, H, W)."""
    return (branches * gate[..., None, None]).sum(dim=0)


def groupings(branches: int) -> list[tuple[int, ...]]:
    """Every group of at least two of the branches, small groups first: 01, 02, 12, 012 for three."""
    return [group for size in range(2, branches + 1) for group in combinations(range(branches), size)]


def ramp_up(epoch: float, length: float) -> float:
    """r(t) = exp(-5 (1 - t / length)^2) up to `length` epochs, 1 from there on."""
    done = 1.0 if epoch >= length else epoch / length
    return math.exp(-5 * (1 - done) ** 2)


def mean_square(maps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Half the mean squared difference of (B, K, H, W) maps, both multiplied by the (B, K) weights; a scalar.

    The mean is over everything; keypoints of weight 0 count there with a difference of 0.
    """
    return 0.5 * (_weighted(maps, weights) - _weighted(target, weights)).square().mean()


def divergence(maps: Tensor, teacher: Tensor, weights: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of a softmax over all cells from the teacher's, in nats per crop and cell, summed over keypoints.

    Args:
        maps: (B, K, H, W), on any scale: a constant that is added to one of them changes nothing.
        teacher: (B, K, H, W). Its gradient is the caller's business.
        weights: (B, K); both maps are multiplied by it, so one of weight 0 is flat in both and adds 0.
        temperature: divides both.

    Returns:
        A scalar >= 0, 0 where the maps are equal.
    """
    pupil, master = (
        functional.log_softmax(_weighted(each, weights).flatten(2) / temperature, dim=-1)
        for each in (maps, teacher)
    )
    summed = functional.kl_div(pupil, master, reduction="sum", log_target=True)
    return summed / (len(maps) * pupil.shape[-1])


def loss(
    outputs: Outputs,
    supervised: Callable[[Tensor], Tensor],
    weights: Tensor,
    epoch: float,
    how: Weighting | None = None,
) -> Losses:
    """Everything a step minimises.

    Args:
        outputs: of the net.
        supervised: (B, K, H, W) maps -> scalar loss against the labels.
        weights: (B, K) visibility.
        epoch: done so far, with fractions.
        how: the weights of the parts; default: as published.
    """
    how = how or Weighting()
    labels = torch.stack([supervised(maps) for maps in (*outputs.branches, *outputs.groups)]).sum()
    ensemble = supervised(outputs.ensemble)
    teacher = outputs.ensemble.detach() if how.detach_teacher else outputs.ensemble
    apart = torch.stack(
        [divergence(maps, teacher, weights, how.temperature) for maps in outputs.branches]
    ).sum()
    rise = ramp_up(epoch, how.rise_epochs)
    return Losses(labels, ensemble, apart, labels + how.ensemble * ensemble + how.distillation * rise * apart)


class FeatureAggregation(nn.Module):
    """The gate of the `fau` ensemble: which branch is right about which keypoint, by a look at the features.

    Args:
        channels: of the features.
        keypoints: K.
        branches: M.
        middle: width between the two layers of the gate.
    """

    def __init__(self, channels: int, keypoints: int, branches: int, middle: int = 64) -> None:
        super().__init__()
        self.views = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, size, padding=size // 2, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
            for size in (3, 5, 7)
        )
        self.squeeze = nn.Linear(channels, middle)
        self.choose = nn.Linear(middle, branches * keypoints)
        self._shape = branches, keypoints

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) -> (M, B, K), above 0, sums to 1 over M."""
        seen = torch.stack([view(features) for view in self.views]).sum(dim=0).mean(dim=(2, 3))
        choice = self.choose(self.squeeze(seen)).unflatten(1, self._shape)
        return choice.softmax(dim=1).transpose(0, 1)


class BranchedNet(nn.Module):
    """A pose net that is trained with branches and exported with one.

    Args:
        config: the shape of the exported net.
        keypoints: K.
        branches: M, at least 2.
        ensemble: what teaches them.
    """

    def __init__(
        self,
        config: NetConfig,
        keypoints: int,
        *,
        branches: int = 3,
        ensemble: Ensemble = "mean",
    ) -> None:
        super().__init__()
        self.config = config
        self.net = PoseNet(config, keypoints)
        self.others = nn.ModuleList(_tail(config, keypoints) for _ in range(branches - 1))
        self.gate = FeatureAggregation(config.widths[2], keypoints, branches) if ensemble == "fau" else None
        self._groups = groupings(branches) if ensemble == "groups" else []
        self.group_heads = nn.ModuleList(
            nn.Conv2d(len(group) * config.decoder[-1], keypoints, 1) for group in self._groups
        )

    def forward(self, x: Tensor) -> Outputs:
        """(B, 3, h, w) normalised crops -> the maps of all branches."""
        tails = [self.net, *self.others]
        levels = self.net.trunk(x)
        features = [tail.features(levels) for tail in tails]
        branches = torch.stack([tail.head(each) for tail, each in zip(tails, features, strict=True)])
        groups = branches[:0]
        if self.gate is not None:
            ensemble = gated_mean(branches, self.gate(levels[-1]))
        elif self._groups:
            joint = [torch.cat([features[index] for index in group], dim=1) for group in self._groups]
            groups = torch.stack([head(each) for head, each in zip(self.group_heads, joint, strict=True)])
            ensemble = mean(groups)
        else:
            ensemble = mean(branches)
        return Outputs(branches, ensemble, groups)

    def exported(self, branch: int = 0) -> PoseNet:
        """A plain net with the weights of one branch; shares nothing with this one."""
        net = copy.deepcopy(self.net)
        if branch:
            net.load_state_dict(self.others[branch - 1].state_dict(), strict=False)
        return net


def _tail(config: NetConfig, keypoints: int) -> PoseNet:
    """A pose net's last stage, decoder and head under their usual names, and nothing before them."""
    net = PoseNet(config, keypoints)
    net.stem = nn.Identity()
    for index in range(len(net.stages) - 1):
        net.stages[index] = nn.Identity()
    return net


def _weighted(maps: Tensor, weights: Tensor) -> Tensor:
    """At least single precision; 0 where the weight is, whatever the map holds there."""
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    weights = weights.reshape(*maps.shape[:2], 1, 1)
    return torch.where(weights > 0, maps * weights, 0.0)
