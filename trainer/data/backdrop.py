"""Other backgrounds behind people who were photographed before a plain wall.

A net that saw a class before one wall alone learns the wall. Of a set that says `plain`, what is not wall is cut out
once: the wall is a smooth colour, fitted to what lies far from the keypoints; GrabCut (Rother et al. 2004) draws the
line. Where that fails the picture stays as it is. Behind the cut-out comes one of a bank of made places, or a picture
of the user's, cut, mirrored and scaled anew for every crop.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor
from torch.nn import functional

from model_zoo import geometry
from model_zoo.skeletons import Skeleton
from trainer.data.store import CropStore
from trainer.progress import track

Mask = NDArray[np.uint8]

BANK_PX = 192
"""Side of a background of the bank."""
SMALLEST = 0.45
"""Least part of a background's side that is seen."""
_WORK_PX = 128
_FURTHEST = 1.0
"""Squared distance in `_SPREAD`s beyond which a colour is not the wall's."""
_SPREAD = np.array([13.0, 5.0, 6.0], np.float32)
"""Of a wall's colour about its smooth part, in 8-bit Lab."""
_AREA = (0.04, 0.7)
"""Least and largest share of the picture that a believable cut-out has."""
WHOLE = 255
"""Of a mask where there is nothing to cut away."""
_VERSION = 1
"""Of the masks; raised when they are cut otherwise."""


class Backdrops(BaseModel):
    """Other backgrounds for crops of sets that are `plain`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    probability: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of the crops that get another background."""
    count: PositiveInt = 256
    """Backgrounds to choose from."""
    pictures: Path | None = None
    """Folder of pictures that three in four backgrounds are cut from, relative to the data root; none without it."""


@dataclass(frozen=True)
class Chosen:
    """Backgrounds of B crops."""

    replaced: NDArray[np.bool_]
    """(B,)."""
    numbers: NDArray[np.int64]
    """(B,) in the bank."""
    matrices: NDArray[np.float64]
    """(B, 2, 3) from background to crop."""

    def __getitem__(self, part: slice) -> Chosen:
        return Chosen(self.replaced[part], self.numbers[part], self.matrices[part])


def choose(how: Backdrops, count: int, size: tuple[int, int], rng: np.random.Generator) -> Chosen:
    """Draw backgrounds for so many crops of (height, width) `size`; the generator is used in a fixed order."""
    replaced = rng.random(count) < how.probability
    numbers = rng.integers(how.count, size=count)
    side = BANK_PX * rng.uniform(SMALLEST, 1, count)
    corner = (BANK_PX - side)[:, None] * rng.random((count, 2)) - 0.5
    mirrored = rng.random(count) < 0.5
    boxes = np.concatenate([corner, np.stack([side, side], axis=1)], axis=1)
    height, width = size
    scale = np.array([width, height]) / boxes[:, 2:]
    matrices = np.zeros((count, 2, 3))
    for axis in (0, 1):
        matrices[:, axis, axis] = scale[:, axis]
        matrices[:, axis, 2] = -boxes[:, axis] * scale[:, axis] - 0.5
    matrices[mirrored, 0] *= -1
    matrices[mirrored, 0, 2] += width - 1
    return Chosen(replaced, numbers, matrices)


class Cutouts:
    """Which crops of a store can be put before other backgrounds, and the backgrounds.

    Args:
        how: of the configuration.
        store: all crops.
        plain: (N,) which of them lie before plain walls.
        skeleton: of its points.
        folder: where masks are kept.
        root: data root.
        seed: of the bank.
        device: of the crops.

    Raises:
        DataError: `how.pictures` holds none.
    """

    def __init__(
        self,
        how: Backdrops,
        store: CropStore,
        plain: NDArray[np.bool_],
        skeleton: Skeleton,
        folder: Path,
        *,
        root: Path,
        seed: int,
        device: torch.device,
    ) -> None:
        self._row = np.full(len(store), -1)
        self._row[plain] = np.arange(plain.sum())
        self._masks = _masks(store, np.flatnonzero(plain), skeleton, folder)
        self._bank = _bank(how, root, seed)
        self._on_device: tuple[Tensor, Tensor] | None = None
        if device.type == "cuda":
            self._on_device = (
                torch.from_numpy(np.array(self._masks)).to(device),
                torch.from_numpy(self._bank).to(device),
            )

    def put(
        self, images: Tensor, indices: NDArray[np.int64], matrices: NDArray[np.float64], chosen: Chosen
    ) -> Tensor:
        """Exchange the backgrounds of crops where that was drawn.

        Args:
            images: (B, 3, h, w); may be written to.
            indices: (B,) in the store.
            matrices: (B, 2, 3) from stored crop to crop.
            chosen: of these crops.
        """
        rows = self._row[indices]
        todo = np.flatnonzero(chosen.replaced & (rows >= 0))
        if not len(todo):
            return images
        if self._on_device is None:
            return self._put_here(images, rows, todo, matrices, chosen)
        masks, bank = self._on_device
        return put_on_device(
            images, masks[torch.from_numpy(rows[todo]).to(masks.device)],
            bank[torch.from_numpy(chosen.numbers[todo]).to(bank.device)], todo, matrices, chosen.matrices,
        )  # fmt: skip

    def _put_here(
        self,
        images: Tensor,
        rows: NDArray[np.int64],
        todo: NDArray[np.int64],
        matrices: NDArray[np.float64],
        chosen: Chosen,
    ) -> Tensor:
        crops = images.permute(0, 2, 3, 1).contiguous().numpy()
        height, width = crops.shape[1:3]
        for at in todo:
            mask = cv2.warpAffine(np.ascontiguousarray(self._masks[rows[at]]), matrices[at], (width, height))
            behind = geometry.warp(self._bank[chosen.numbers[at]], chosen.matrices[at], (height, width))
            share = mask[..., None].astype(np.float32) / 255
            crops[at] = (crops[at] * share + behind * (1 - share) + 0.5).astype(np.uint8)
        return torch.from_numpy(crops).permute(0, 3, 1, 2)


def put_on_device(
    images: Tensor,
    masks: Tensor,
    behind: Tensor,
    todo: NDArray[np.int64],
    matrices: NDArray[np.float64],
    matrices_behind: NDArray[np.float64],
) -> Tensor:
    """The same in a few calls on the device of `images`.

    Args:
        images: (B, 3, h, w).
        masks: (T, S, S) uint8 of the crops `todo`.
        behind: (T, S', S', 3) uint8.
        todo: (T,) which crops.
        matrices: (B, 2, 3) from mask to crop.
        matrices_behind: (B, 2, 3) from background to crop.
    """
    size = tuple(images.shape[-2:])
    share = _sampled(masks[:, None].float(), matrices[todo], size) / 255
    other = _sampled(behind.permute(0, 3, 1, 2).float(), matrices_behind[todo], size)
    at = torch.from_numpy(todo).to(images.device)
    mixed = images[at].float() * share + other * (1 - share)
    return images.index_copy(0, at, (mixed + 0.5).to(images.dtype))


def _sampled(images: Tensor, matrices: NDArray[np.float64], size: tuple[int, int]) -> Tensor:
    device, (height, width) = images.device, size
    inverse = torch.from_numpy(geometry.invert(matrices)).to(device, torch.float32)
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3).float()
    source = (pixels @ inverse.transpose(1, 2)).view(-1, height, width, 2)
    side = torch.tensor([images.shape[3], images.shape[2]], device=device)
    return functional.grid_sample(
        images, (2 * source + 1) / side - 1, padding_mode="zeros", align_corners=False
    )


def matte(crop: NDArray[np.uint8], points: NDArray[np.float64], skeleton: Skeleton) -> Mask:
    """(H, W) how much of each pixel is somebody before a plain wall, 0 to 255; all 255 where no wall can be told.

    Args:
        crop: (H, W, 3) RGB, black outside the picture.
        points: (K, 2) in its pixels, NaN where not labelled.
        skeleton: of the points.
    """
    height, width = crop.shape[:2]
    whole = np.full((height, width), WHOLE, np.uint8)
    known = np.isfinite(points).all(axis=1)
    if known.sum() < 2:
        return whole
    factor = _WORK_PX / max(height, width)
    small = cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    points = (points + 0.5) * factor - 0.5
    inside = cv2.erode((small.max(axis=2) > 0).astype(np.uint8), np.ones((3, 3))) > 0
    bones = _drawn(small.shape[:2], points, known, skeleton)
    away = cv2.distanceTransform(1 - bones, cv2.DIST_L2, 3)
    reach = float(np.ptp(points[known], axis=0).max())
    distance = _from_wall(small, inside & (away > 0.3 * reach), inside & (bones == 0))
    if distance is None:
        return whole
    start = np.where(distance > _FURTHEST, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    start[~inside | ((distance < 0.4 * _FURTHEST) & (away > 0.12 * reach))] = cv2.GC_BGD
    start[(bones > 0) & inside] = cv2.GC_FGD
    try:
        cv2.grabCut(small, start, None, np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # not enough of one kind to tell apart
        return whole
    found = np.isin(start, (cv2.GC_FGD, cv2.GC_PR_FGD)) & inside
    found &= (distance > 0.5 * _FURTHEST) | (bones > 0)  # the wall between fingers too
    _, parts = cv2.connectedComponents(found.astype(np.uint8))
    found = np.isin(parts, np.unique(parts[(bones > 0) & found])) & found
    share = found.sum() / max(inside.sum(), 1)
    if not _AREA[0] < share < _AREA[1]:
        return whole
    soft = cv2.GaussianBlur(found.astype(np.float32), (0, 0), 0.8)
    soft = np.clip(
        (soft - 0.35) / 0.5, 0, 1
    )  # a little less than all, for the line's pixels have the wall in them
    return (cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) * 255).round().astype(np.uint8)


def _drawn(
    size: tuple[int, int], points: NDArray[np.float64], known: NDArray[np.bool_], skeleton: Skeleton
) -> Mask:
    canvas = np.zeros(size, np.uint8)
    thick = max(1, round(0.03 * float(np.ptp(points[known], axis=0).max())))
    for a, b in skeleton.bones:
        if known[a] and known[b]:
            ends = (tuple(int(v) for v in points[each].round()) for each in (a, b))
            cv2.line(canvas, *ends, 1, thick)
    return canvas


def _from_wall(
    image: NDArray[np.uint8], likely: NDArray[np.bool_], possible: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    """(H, W) squared distance from the wall's colour, which varies smoothly; None where no smooth colour fits.

    Args:
        image: (H, W, 3) RGB.
        likely: (H, W) where the wall is.
        possible: (H, W) where it may be as well.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float32)
    kept = likely
    for _ in range(6):
        if kept.sum() < 200:
            return None
        fit, *_ = np.linalg.lstsq(terms[kept], lab[kept], rcond=None)
        distance = (((lab - terms @ fit) / _SPREAD) ** 2).sum(axis=-1)
        kept = possible & (distance < _FURTHEST)
    return distance if (kept & likely).sum() > 0.4 * likely.sum() else None


def _masks(store: CropStore, rows: NDArray[np.int64], skeleton: Skeleton, folder: Path) -> NDArray[np.uint8]:
    """(T, S, S) of the crops in these rows; made once, and kept as a file that appears complete or not at all."""
    side = store.images.shape[1]
    facts = [
        store.points[rows].round(2).tolist(),
        store.weights[rows].tolist(),
        rows.tolist(),
        store.name,
        _VERSION,
    ]
    path = folder / f"masks-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            array = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(rows), side, side))
            for at, row in enumerate(track(rows, "Cutting people out", total=len(rows))):
                points = np.where((store.weights[row] > 0)[:, None], store.points[row], np.nan)
                array[at] = matte(np.array(store.images[row]), points, skeleton)
            array.flush()
            del array
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _bank(how: Backdrops, root: Path, seed: int) -> NDArray[np.uint8]:
    """(count, BANK_PX, BANK_PX, 3)."""
    from trainer.synth.backgrounds import Backgrounds

    supply = Backgrounds(None if how.pictures is None else root / how.pictures)
    numbers = track(range(how.count), "Making backgrounds", total=how.count)
    made = [supply.draw(np.random.default_rng([seed, n]), BANK_PX, BANK_PX)[0] for n in numbers]
    return np.stack(made)
