"""What stands behind people: places made from nothing, or parts of the user's own pictures without people.

None of the places is meant to be believed. They are to be various: edges, textures, lights and things that resemble
limbs without being any, so that a net learns to look for people rather than for what is not smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError
from trainer.synth import places, textures
from trainer.synth.recipe import pictures_of

Image = NDArray[np.uint8]
Place = Callable[[np.random.Generator, int, int], Image]

PLACES: dict[str, Place] = {
    "gradient": places.gradient,
    "noise": places.noise,
    "outdoors": places.outdoors,
    "wall": places.wall,
    "field": places.field,
    "crowd": places.crowd,
    "room": places.room,
    "stripes": places.stripes,
    "shapes": places.shapes,
}
"""Name to (rng, height, width) -> (H, W, 3) RGB."""

OF_PICTURES = 0.75
"""Share of the backgrounds that are pictures, where there are any."""
_GRAINY = 0.75
"""Share of the made ones that are as rough to the last pixel as grass, leaves, gravel or cloth are."""
_SMALLEST = 0.35
"""Least side of a part of a picture, of the largest that fits."""


class Backgrounds:
    """Endless supply of backgrounds; each follows from the generator of random numbers that it is asked with.

    Args:
        folder: of pictures without people, searched below as well; None for made ones only.
        kinds: which made ones.

    Raises:
        DataError: the folder holds no pictures.
    """

    def __init__(self, folder: Path | None = None, kinds: tuple[str, ...] = tuple(PLACES)) -> None:
        self._pictures = pictures_of(folder) if folder else []
        self._kinds = kinds

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[Image, str]:
        """One background and its kind: a key of `PLACES`, or `picture`. DataError: a picture cannot be read."""
        if self._pictures and rng.random() < OF_PICTURES:
            path = self._pictures[rng.integers(len(self._pictures))]
            image, kind = _part(path, rng, height, width), "picture"
        else:
            kind = self._kinds[rng.integers(len(self._kinds))]
            image = PLACES[kind](rng, height, width)
            if rng.random() < 0.4:
                places.clutter(image, rng)
        image = _jittered(image, rng)
        if kind != "picture" and rng.random() < _GRAINY:
            image = textures.grained(image, rng)
        if rng.random() < 0.2:  # out of focus
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.005, 0.03)) * width)
        return image, kind


def _part(path: Path, rng: np.random.Generator, height: int, width: int) -> Image:
    """Any part of a picture, mirrored half of the time."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path} is no readable picture")
    factor = min(image.shape[0] / height, image.shape[1] / width) * rng.uniform(_SMALLEST, 1)
    tall, wide = max(1, int(height * factor)), max(1, int(width * factor))
    top, left = rng.integers(image.shape[0] - tall + 1), rng.integers(image.shape[1] - wide + 1)
    part = image[top : top + tall, left : left + wide, ::-1]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    how = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=how)


def _jittered(image: Image, rng: np.random.Generator) -> Image:
    """Another brightness, contrast and saturation."""
    gain, bias = np.exp(rng.normal(0, 0.2)), rng.normal(0, 12)
    image = cv2.convertScaleAbs(image, alpha=float(gain), beta=float(max(bias, -30)))
    keep = float(np.clip(rng.normal(0.9, 0.25), 0, 1))
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, keep, grey, 1 - keep, 0)
