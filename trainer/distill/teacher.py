"""Targets from a larger net: what it sees in the same crops, mixed with the labels.

The teacher is any callable from raw crops to heatmaps or to points: a bundle run by ONNX Runtime (`export.OnnxNet`), a
torch net (`nets.served.Torch`), or both with a decoder behind. It may have other keypoints, another crop size and
other maps than the pupil; `Teacher` brings its answers to the pupil's. They are constants: no gradient reaches it.

The temperature T is that of the softmax. A teacher's heatmap p is raised to the power 1 / T and made to sum to 1, which
for p = softmax(z) is softmax(z / T); the pupil's logits are divided by T, and the loss is multiplied by T^2, so that
its gradient keeps its size.

Axes: B crops, K keypoints of the pupil, H x W cells. Points are x, y in pixels of the pupil's crop.

Sources: Hinton et al. 2015, arXiv:1503.02531 (temperature); Yang et al., ICCVW 2023, arXiv:2307.15880 (DWPose: the
share of the teacher falls to 0 over the run).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor
from torch.nn import functional

from trainer.losses.heatmap import weighted_mean

Answer = NDArray[np.floating[Any]]
HeatmapNet = Callable[[NDArray[np.uint8]], Answer]
"""(B, h, w, 3) raw crops -> (B, keypoints, H, W) heatmaps, or logits."""
PointNet = Callable[[NDArray[np.uint8]], tuple[Answer, Answer]]
"""(B, h, w, 3) raw crops -> points (B, keypoints, 2) in their pixels, and scores (B, keypoints)."""
Share = Annotated[float, Field(ge=0, le=1)]


class Mixing(BaseModel):
    """How much the teacher counts beside the labels."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    share: Share = 0.5
    """Of the teacher in the loss at the beginning; the labels have the rest."""
    final_share: Share = 0.5
    """Of the teacher at the end; in between it moves steadily."""
    temperature: PositiveFloat = 1.0
    """Above 1 the teacher's maps are softened, so that its doubts count too; below 1 they are sharpened."""
    sure: Share = 0.3
    """Keypoints that the teacher gives a lower score are not learnt from it."""

    def share_at(self, progress: float) -> float:
        """The teacher's share at a part of the run from 0 to 1."""
        return self.share + (self.final_share - self.share) * min(max(progress, 0.0), 1.0)


@dataclass(frozen=True)
class Targets:
    """A teacher's answer to a batch, in the pupil's terms; maps or points, as the teacher gives them."""

    weights: Tensor
    """(B, K) the score, up to 1; 0 where the teacher is unsure or does not know the keypoint."""
    maps: Tensor | None = None
    """(B, K, H, W), >= 0, on any scale."""
    points: Tensor | None = None
    """(B, K, 2) in pixels of the pupil's crop."""


class Teacher:
    """A net to learn from.

    Args:
        net: see `HeatmapNet` and `PointNet`.
        kind: what it answers.
        size: (height, width) of its crops, of the same aspect as the pupil's.
        joints: for each keypoint of the pupil the teacher's index of it, None where it has none; see `joints_by_name`.
        sure: least score of a keypoint that counts. The score of a heatmap is its maximum, that of logits the maximum
            of their softmax.
    """

    def __init__(
        self,
        net: HeatmapNet | PointNet,
        kind: Literal["heatmaps", "logits", "points"],
        size: tuple[int, int],
        joints: Sequence[int | None],
        *,
        sure: float = 0.3,
    ) -> None:
        self._net, self._kind, self._size, self._sure = net, kind, size, sure
        self._known = np.array([index is not None for index in joints])
        self._joints = [index or 0 for index in joints]

    @torch.no_grad()
    def __call__(self, images: Tensor, cells: tuple[int, int]) -> Targets:
        """Look at the pupil's crops.

        Args:
            images: (B, 3, h, w) uint8, augmented as the pupil sees them.
            cells: (H, W) of the pupil's maps; unused by a teacher that answers points.

        Returns:
            On the device of the images.
        """
        size = tuple(images.shape[-2:])
        answer = self._net(_resized(images, self._size).permute(0, 2, 3, 1).contiguous().cpu().numpy())
        if self._kind == "points":
            points, scores = (torch.from_numpy(each[:, self._joints]) for each in answer)
            factor = torch.tensor([size[1] / self._size[1], size[0] / self._size[0]])
            points = ((points + 0.5) * factor - 0.5).float()
            return Targets(self._weights(scores, images), points=points.to(images.device))
        maps = torch.from_numpy(answer[:, self._joints]).float()
        if self._kind == "logits":
            maps = maps.flatten(2).softmax(-1).view_as(maps)
        weights = self._weights(maps.amax(dim=(2, 3)), images)
        maps = functional.interpolate(maps.clamp(min=0), cells, mode="bilinear", antialias=True)
        return Targets(weights, maps=maps.to(images.device))

    def _weights(self, scores: Tensor, images: Tensor) -> Tensor:
        counts = torch.from_numpy(self._known) & (scores >= self._sure)
        return torch.where(counts, scores.clamp(max=1).float(), 0.0).to(images.device)


def joints_by_name(pupil: Sequence[str], teacher: Sequence[str]) -> list[int | None]:
    """For each of the pupil's keypoint names its index among the teacher's, None where it is missing there."""
    known = {name: index for index, name in enumerate(teacher)}
    return [known.get(name) for name in pupil]


def softened(maps: Tensor, temperature: float = 1.0) -> Tensor:
    """(B, K, H, W) maps >= 0 of any scale as probabilities over the cells; an empty map becomes flat."""
    flat = maps.flatten(2)
    peak = flat.amax(dim=-1, keepdim=True)
    flat = torch.where(peak > 0, flat / peak.clamp(min=torch.finfo(flat.dtype).tiny), 1.0) ** (
        1 / temperature
    )
    return (flat / flat.sum(dim=-1, keepdim=True)).view_as(maps)


def heatmap_loss(logits: Tensor, maps: Tensor, weights: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softened maps || softmax(logits / T)) in nats, weighted mean over keypoints; for a softmax head.

    Args:
        logits: (B, K, H, W) of the pupil.
        maps: (B, K, H, W) of the teacher; anything where the weight is 0.
        weights: (B, K) >= 0.
        temperature: T.

    Returns:
        A scalar >= 0; 0 with its gradient path where every weight is 0.
    """
    logits, maps = _counted(logits, weights), _counted(maps, weights)
    target = softened(maps, temperature).flatten(2)
    found = functional.log_softmax(logits.flatten(2) / temperature, dim=-1)
    return weighted_mean((torch.xlogy(target, target) - target * found).sum(-1), weights) * temperature**2


def map_loss(maps: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """Mean squared difference of (B, K, H, W) maps over the cells, weighted mean over keypoints; for a linear head."""
    difference = _counted(maps, weights) - _counted(teacher, weights)
    return weighted_mean(difference.square().mean(dim=(2, 3)), weights)


def point_loss(points: Tensor, teacher: Tensor, weights: Tensor, *, beta: float = 0.0) -> Tensor:
    """Smooth L1 distance of (B, K, 2) points per coordinate, in their unit, weighted mean over keypoints.

    Args:
        points, teacher: anything where the weight is 0.
        weights: (B, K) >= 0.
        beta: below that difference the loss is quadratic; 0 is plain L1.
    """
    difference = functional.smooth_l1_loss(
        _counted(points, weights), _counted(teacher, weights), reduction="none", beta=beta
    )
    return weighted_mean(difference.mean(dim=-1), weights)


def mixed(labels: Tensor, teacher: Tensor, share: float) -> Tensor:
    """(1 - share) of the loss against the labels and share of that against the teacher."""
    return (1 - share) * labels + share * teacher


def _counted(values: Tensor, weights: Tensor) -> Tensor:
    """At least single precision; 0 where the (B, K) weight is, whatever stands there."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return torch.where((weights > 0).view(*weights.shape, *(1,) * (values.ndim - 2)), values, 0.0)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, h, w) uint8 pictures in another size."""
    if tuple(images.shape[-2:]) == size:
        return images
    resized = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
