"""Information dropping: black out a part of every training picture, so that its surroundings give a keypoint away too.

Three shapes of what is dropped:

- `ellipse`: one axis-aligned ellipse, as released. Its centre is uniform over the picture, its radii are independent,
  factor * (1 + U[0, 1]) * width each: both relative to the width.
- `hide_and_seek`: a grid of cells, each hidden on its own.
- `rectangle`: one hole whose sides are a random share of the picture's sides, as RTMPose uses it.

Labels and weights stay as they are: a hidden keypoint is to be found all the same. Pictures are uint8 and dropped
pixels are 0, so this comes before normalisation. Parameters are drawn for the whole global batch and then sliced, as in
`augment`. The schedule is part of the method: train without dropping first, then go on with it.

Sources: Huang et al. 2020, arXiv:2008.07139 (the ellipse is in its code); Singh and Lee, ICCV 2017, arXiv:1704.04232
(hide-and-seek); Jiang et al. 2023, arXiv:2303.07399 (the rectangle).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

Share = Annotated[float, Field(ge=0, le=1)]
Masks = NDArray[np.bool_]


class Dropping(BaseModel):
    """What is dropped, and when."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["ellipse", "hide_and_seek", "rectangle"] = "ellipse"
    """Shape of what is dropped."""
    steps: tuple[tuple[Share, Share], ...] = ((0.5, 1.0),)
    """(from, probability): from that share of the run on, this share of the pictures loses something; nothing does
    before the first. Off for the first half by default; RTMPose is [[0, 1], [0.93, 0.5]]."""
    radius_factor: PositiveFloat = 0.2
    """Ellipse: smallest radius in picture widths; the largest is twice that."""
    grid: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (4, 8)
    """Hide-and-seek: cells along each side; one of these numbers is drawn per picture."""
    hidden: Share = 0.25
    """Hide-and-seek: share of hidden cells."""
    side: tuple[Share, Share] = (0.2, 0.4)
    """Rectangle: smallest and largest side as a share of the picture's."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if list(self.steps) != sorted(self.steps):
            raise ValueError("steps must be in the order of the run")
        if self.side[0] > self.side[1]:
            raise ValueError("side gives the smallest first")
        return self

    def probability(self, progress: float) -> float:
        """Share of pictures that lose something, at a share of the run from 0 to 1."""
        return next((share for start, share in reversed(self.steps) if progress >= start), 0.0)


class Drawn(Protocol):
    """The random parameters of B pictures; a slice of it is those of a part of them."""

    def __getitem__(self, part: slice) -> Drawn: ...

    def masks(self, size: tuple[int, int]) -> Masks:
        """(B, height, width), True where a picture of `size` loses its pixel."""
        ...


@dataclass(frozen=True)
class Ellipses:
    """One per picture; without radius it drops nothing."""

    centres: NDArray[np.float64]
    """(B, 2)."""
    radii: NDArray[np.float64]
    """(B, 2) along x and y."""

    def __getitem__(self, part: slice) -> Ellipses:
        return Ellipses(self.centres[part], self.radii[part])

    def masks(self, size: tuple[int, int]) -> Masks:
        """See `Drawn.masks`."""
        return ellipse(self.centres, self.radii, size)


@dataclass(frozen=True)
class Rectangles:
    """One per picture; without extent it drops nothing."""

    low: NDArray[np.int64]
    """(B, 2) first column and row that is dropped."""
    high: NDArray[np.int64]
    """(B, 2) first column and row that is not dropped any more."""

    def __getitem__(self, part: slice) -> Rectangles:
        return Rectangles(self.low[part], self.high[part])

    def masks(self, size: tuple[int, int]) -> Masks:
        """See `Drawn.masks`."""
        x, y = (
            (np.arange(cells) >= self.low[:, axis, None]) & (np.arange(cells) < self.high[:, axis, None])
            for axis, cells in enumerate(reversed(size))
        )
        return y[:, :, None] & x[:, None, :]


@dataclass(frozen=True)
class Cells:
    """A grid per picture, stored in the largest grid's array."""

    grids: NDArray[np.int64]
    """(B,) cells along each side."""
    hidden: Masks
    """(B, rows, columns); of each picture the first `grids` rows and columns count."""

    def __getitem__(self, part: slice) -> Cells:
        return Cells(self.grids[part], self.hidden[part])

    def masks(self, size: tuple[int, int]) -> Masks:
        """See `Drawn.masks`."""
        row, column = (np.arange(cells) * self.grids[:, None] // cells for cells in size)
        picture = np.arange(len(self.grids))[:, None, None]
        return self.hidden[picture, row[:, :, None], column[:, None, :]]


def ellipse(centres: ArrayLike, radii: ArrayLike, size: tuple[int, int]) -> Masks:
    """Pixels inside axis-aligned ellipses: ((x - cx) / rx)^2 + ((y - cy) / ry)^2 <= 1.

    Args:
        centres: (..., 2) x, y in pixels.
        radii: (..., 2) along x and y, >= 0; with a radius of 0 nothing is inside.
        size: (height, width).

    Returns:
        (..., height, width) bool.
    """
    centres, radii = np.asarray(centres, np.float64), np.asarray(radii, np.float64)
    safe = np.where(radii > 0, radii, 1.0)
    x, y = (
        np.square((np.arange(cells) - centres[..., axis, None]) / safe[..., axis, None])
        for axis, cells in enumerate(reversed(size))
    )
    inside = y[..., :, None] + x[..., None, :] <= 1
    return inside & (radii > 0).all(axis=-1)[..., None, None]


def draw(
    how: Dropping, count: int, size: tuple[int, int], progress: float, rng: np.random.Generator
) -> Drawn:
    """Choose what `count` pictures lose.

    Args:
        how: shape and schedule.
        count: B, of the whole global batch.
        size: (height, width) of the pictures.
        progress: share of the run that is done, 0 to 1.
        rng: consumed in a fixed order, as much at any progress.
    """
    drops = rng.random(count) < how.probability(progress)
    extent = np.array(size[::-1], np.float64)
    if how.kind == "ellipse":
        centres = rng.uniform(0, extent, (count, 2))
        radii = how.radius_factor * (1 + rng.random((count, 2))) * extent[0]
        return Ellipses(centres, radii * drops[:, None])
    if how.kind == "rectangle":
        sides = np.round(rng.uniform(*how.side, (count, 2)) * extent).astype(np.int64)
        low = rng.integers(0, extent.astype(np.int64) - sides, endpoint=True)
        return Rectangles(low, low + sides * drops[:, None])
    grids = rng.choice(np.array(how.grid), count)
    hidden = rng.random((count, max(how.grid), max(how.grid))) < how.hidden
    return Cells(grids, hidden & drops[:, None, None])


def drop(images: Tensor, drawn: Drawn) -> Tensor:
    """Copies of (B, 3, h, w) uint8 pictures with what was drawn set to 0, on the device of the pictures.

    Raises:
        TypeError: the pictures are not uint8: a dropped pixel is black only before normalisation.
    """
    if images.dtype != torch.uint8:
        raise TypeError(
            f"information is dropped before normalisation, from uint8 pictures, not {images.dtype}"
        )
    masks = torch.from_numpy(drawn.masks(tuple(images.shape[-2:]))).to(images.device)
    return images.clone().masked_fill_(masks[:, None], 0)
