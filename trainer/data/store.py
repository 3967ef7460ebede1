"""All training people decoded once: one uint8 array of square crops, mapped from disk.

Every process of a run maps the same file, so it lies in memory once, and an epoch decodes nothing. On a GPU the
whole array is moved to the device. Points are in pixels of the stored crop.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_zoo import geometry
from trainer.data.people import Person, pictures
from trainer.errors import DataError
from trainer.progress import track

SIDE_PX = 256
"""Side of a stored crop."""
CONTEXT = 1.6
"""Region of the picture that is kept, in multiples of the box's long side."""
RESAMPLED = "averaged"
"""How, so that no file is mapped that was made otherwise."""


@dataclass(frozen=True)
class CropStore:
    """N people, ready to be augmented."""

    images: NDArray[np.uint8]
    """(N, SIDE_PX, SIDE_PX, 3) RGB, read-only; black outside the picture."""
    boxes: NDArray[np.float64]
    """(N, 4) person boxes."""
    points: NDArray[np.float64]
    """(N, K, 2)."""
    weights: NDArray[np.float64]
    """(N, K) how much each label counts; 0 where there is none."""
    name: str = ""
    """Tells the pictures from those of any other store."""

    def __len__(self) -> int:
        return len(self.images)


def build(people: list[Person], folder: Path) -> CropStore:
    """Decode and crop everybody, or map the file of an earlier call for the same people.

    Args:
        people: in the order of the store.
        folder: where the array is kept; its name is a hash of what went into it. Safe with several processes:
            the file appears complete or not at all.

    Raises:
        DataError: nobody, or a picture that cannot be read.
    """
    if not people:
        raise DataError("there is nobody to learn from")
    side = (SIDE_PX, SIDE_PX)
    matrices = geometry.crop_affine(np.stack([person.box for person in people]), side, padding=CONTEXT)
    name = _fingerprint(people)
    path = folder / f"crops-{name}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            array = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(people), *side, 3))
            for index, (_, image) in enumerate(track(pictures(people), "Decoding people", total=len(people))):
                geometry.crop(image, matrices[index], side, out=array[index])
            array.flush()
            del array
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    corners = np.stack([[p.box[:2], p.box[:2] + p.box[2:]] for p in people])
    low, high = np.moveaxis(geometry.apply(matrices, corners), 1, 0)
    return CropStore(
        images=np.load(path, mmap_mode="r"),
        boxes=np.concatenate([low, high - low], axis=1),
        points=geometry.apply(matrices, np.stack([person.points for person in people])),
        weights=np.stack([person.weight for person in people]),
        name=name,
    )


def _fingerprint(people: list[Person]) -> str:
    files = {person.picture.file for person in people}
    try:
        known = {file: (str(file.resolve()), file.stat().st_size) for file in files}
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read a picture: {error}") from error
    facts = [(*known[p.picture.file], p.picture.offset, p.box.tolist()) for p in people]
    return hashlib.sha256(json.dumps([SIDE_PX, CONTEXT, RESAMPLED, facts]).encode()).hexdigest()[:16]
