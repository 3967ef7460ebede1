"""Augmentation of whole batches: flip, turn, scale and shift as ONE affine from `geometry`; colour as one table.

Parameters are drawn in NumPy from a generator that the caller seeds by (seed, epoch, batch), so a resumed run
repeats the same pictures. They are drawn for the whole global batch and then sliced, so the number of processes does
not change them. The warp runs with OpenCV on a CPU and with `grid_sample` on a GPU, where the store lies too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from model_zoo import geometry
from model_zoo.skeletons import Skeleton
from trainer.data.aid import Dropping
from trainer.data.backdrop import Backdrops
from trainer.data.blur import Blur
from trainer.data.half_body import HalfBody
from trainer.data.store import CropStore

Probability = Annotated[float, Field(ge=0, le=1)]


class Augmentation(BaseModel):
    """How much training pictures are varied. All zero leaves every person upright in its own box."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    flip: Probability = 0.5
    """Share of mirrored pictures; left and right keypoints change names."""
    turn: Probability = 0.7
    """Share of turned pictures."""
    turn_deg: Annotated[float, Field(ge=0, le=180)] = 35.0
    """Standard deviation of the turn; cut at 2.5 of it and at 180."""
    turn_any: Probability = 0.0
    """Share of pictures that are turned to any angle instead, all of them alike."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Largest relative change of the box: its size is multiplied by 1 - scale .. 1 + scale."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.06
    """Largest shift along each axis, in box sizes."""
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Largest relative change of contrast, all channels together."""
    bias: Annotated[float, Field(ge=0, le=255)] = 32.0
    """Largest change of brightness, all channels together, in pixel values."""
    tint: Annotated[float, Field(ge=0, lt=1)] = 0.12
    """Largest relative change of each channel on its own."""
    grey: Probability = 0.05
    """Share of pictures without colour."""
    half_body: HalfBody | None = None
    """Boxes about the upper or the lower body alone; none without it."""
    dropping: Dropping | None = None
    """Parts of the pictures are blacked out; none without it."""
    blur: Blur | None = None
    """Pictures out of focus; none without it."""
    backdrops: Backdrops | None = None
    """Other backgrounds behind people of sets that are `plain`; none without it."""


NONE = Augmentation(flip=0, turn=0, turn_deg=0, scale=0, shift=0, gain=0, bias=0, tint=0, grey=0)


@dataclass(frozen=True)
class Draw:
    """The random parameters of B samples."""

    matrices: NDArray[np.float64]
    """(B, 2, 3) from stored crop to net crop."""
    flipped: NDArray[np.bool_]
    """(B,)."""
    tables: NDArray[np.uint8]
    """(B, 256, 3) new value of each old value, per channel."""
    grey: NDArray[np.bool_]
    """(B,)."""

    def __getitem__(self, part: slice) -> Draw:
        return Draw(self.matrices[part], self.flipped[part], self.tables[part], self.grey[part])


def draw(
    how: Augmentation,
    boxes: NDArray[np.float64],
    size: tuple[int, int],
    padding: float,
    rng: np.random.Generator,
) -> Draw:
    """Choose the parameters of B samples.

    Args:
        how: the ranges.
        boxes: (B, 4) person boxes in stored crops.
        size: (height, width) of the net's crop.
        padding: context around the box, as in serving.
        rng: consumed in a fixed order.
    """
    count = len(boxes)
    flipped = rng.random(count) < how.flip
    turned = rng.random(count) < how.turn
    limit = min(2.5 * how.turn_deg, 180.0)
    angle = np.clip(rng.normal(0.0, how.turn_deg, count), -limit, limit) * turned
    scale = 1 + how.scale * rng.uniform(-1, 1, count)
    shift = how.shift * rng.uniform(-1, 1, (count, 2))
    gain = 1 + how.gain * rng.uniform(-1, 1, (count, 1)) + how.tint * rng.uniform(-1, 1, (count, 3))
    bias = how.bias * rng.uniform(-1, 1, (count, 1))
    grey = rng.random(count) < how.grey
    # Drawn last, so that what else is drawn is the same with and without.
    angle = np.where(rng.random(count) < how.turn_any, rng.uniform(-180, 180, count), angle)
    extent = boxes[:, 2:] * scale[:, None]
    centre = boxes[:, :2] + boxes[:, 2:] * (0.5 + shift)
    varied = np.concatenate([centre - extent / 2, extent], axis=1)
    matrices = geometry.crop_affine(varied, size, padding=padding, rotation_deg=angle, flip=flipped)
    values = np.arange(256.0)[None, :, None]
    tables = (values - 128) * gain[:, None] + 128 + bias[:, None]
    return Draw(matrices, flipped, np.clip(tables.round(), 0, 255).astype(np.uint8), grey)


def labels(
    store: CropStore, indices: NDArray[np.int64], drawn: Draw, size: tuple[int, int], skeleton: Skeleton
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (B, K, 2) in crop pixels and weights (B, K), mirrored where the picture is; outside the crop weight 0."""
    points = geometry.apply(drawn.matrices, store.points[indices])
    weights = store.weights[indices]
    order = np.array(skeleton.flip_order)
    points = np.where(drawn.flipped[:, None, None], points[:, order], points)
    weights = np.where(drawn.flipped[:, None], weights[:, order], weights)
    height, width = size
    inside = ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all(-1)
    return points.astype(np.float32), (weights * inside).astype(np.float32)


def warp(store: CropStore, indices: NDArray[np.int64], drawn: Draw, size: tuple[int, int]) -> Tensor:
    """(B, 3, h, w) uint8 crops in channels_last memory, on the CPU."""
    batch = np.empty((len(indices), *size, 3), np.uint8)
    near = np.empty(store.images.shape[1:], np.uint8)
    for crop, index, matrix, table, grey in zip(
        batch, indices, drawn.matrices, drawn.tables, drawn.grey, strict=True
    ):
        np.copyto(near, store.images[index])  # turning it straight from the store takes twice as long
        geometry.warp(near, matrix, size, out=crop)
        cv2.LUT(crop, table[None], dst=crop)
        if grey:
            crop[:] = (crop @ _LUMA).astype(np.uint8)[..., None]
    return torch.from_numpy(batch).permute(0, 3, 1, 2)


_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def warp_on_device(images: Tensor, drawn: Draw, size: tuple[int, int]) -> Tensor:
    """The same as `warp` in one call on the device of `images`, (B, S, S, 3) uint8 stored crops."""
    device, (height, width) = images.device, size
    inverse = torch.from_numpy(geometry.invert(drawn.matrices)).to(device, torch.float32)
    rows = torch.arange(height, device=device, dtype=torch.float32)
    columns = torch.arange(width, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3)
    source = (pixels @ inverse.transpose(1, 2)).view(-1, height, width, 2)
    side = torch.tensor([images.shape[2], images.shape[1]], device=device)
    grid = (2 * source + 1) / side - 1
    stored = images.permute(0, 3, 1, 2).float()
    crops = functional.grid_sample(stored, grid, padding_mode="zeros", align_corners=False).round().long()
    tables = torch.from_numpy(drawn.tables).to(device).permute(0, 2, 1)
    coloured = tables.gather(2, crops.flatten(2)).view_as(crops)
    luma = torch.from_numpy(_LUMA).to(device).view(1, 3, 1, 1)
    greyed = (coloured * luma).sum(1, keepdim=True).to(torch.uint8).expand_as(coloured)
    grey = torch.from_numpy(drawn.grey).to(device).view(-1, 1, 1, 1)
    return torch.where(grey, greyed, coloured)
