"""Labels beside the keypoints of the stored crops: area, depth, presence, class and hand, each with its own gaps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model_zoo.skeletons import Skeleton
from trainer.data.people import Person
from trainer.data.store import CropStore
from trainer.errors import DataError
from trainer.losses.multitask import IGNORED

UNKNOWN = -1.0
"""Presence of a crop without that label, and handedness."""
LEFT, RIGHT = 1.0, 0.0
"""Handedness."""


_HANDS = {None: UNKNOWN, "left": LEFT, "right": RIGHT}


@dataclass(frozen=True)
class CropLabels:
    """Of N stored crops; a slice or a choice of them is one too."""

    areas: NDArray[np.float32]
    """(N,) of the people, in square pixels of the stored crop."""
    depth: NDArray[np.float32]
    """(N, K) z in pixels of the stored crop, relative to the root keypoint; NaN where not labelled."""
    presence: NDArray[np.float32]
    """(N,) 0, 1 or `UNKNOWN`."""
    classes: NDArray[np.int64]
    """(N,) index of the class, or `IGNORED`."""
    handedness: NDArray[np.float32]
    """(N,) `LEFT`, `RIGHT` or `UNKNOWN`."""
    root: int
    """Index of the keypoint whose z is 0."""

    def __getitem__(self, part: NDArray[np.int64]) -> CropLabels:
        arrays = (self.areas, self.depth, self.presence, self.classes, self.handedness)
        return CropLabels(*(each[part] for each in arrays), self.root)

    def drawn(
        self, factor: NDArray[np.float64], flipped: NDArray[np.bool_], skeleton: Skeleton
    ) -> CropLabels:
        """In crops that are (N,) times as large, and mirrored where `flipped` (N,) says so.

        z is relative to the keypoint that is the root after that; all of it is NaN where that has none.
        """
        order = np.where(flipped[:, None], np.array(skeleton.flip_order), np.arange(len(skeleton)))
        depth = np.take_along_axis(self.depth, order, axis=1)
        depth = (depth - depth[:, [self.root]]) * factor[:, None]
        other = flipped & (self.handedness != UNKNOWN)
        return replace(
            self,
            areas=(self.areas * factor**2).astype(np.float32),
            depth=depth.astype(np.float32),
            handedness=np.where(other, LEFT + RIGHT - self.handedness, self.handedness),
        )


def of(people: list[Person], store: CropStore, classes: tuple[str, ...], root: int) -> CropLabels:
    """The labels of the people of a store.

    Args:
        people: in the order of the store.
        store: says how large they are there.
        classes: names; a person of another class is an error, unless there are none at all.
        root: index of the keypoint whose z becomes 0.

    Raises:
        DataError: a class that is not known.
    """
    if unknown := {person.gesture for person in people} - {None, *classes} if classes else None:
        raise DataError(f"classes that net.classes does not name: {', '.join(sorted(map(str, unknown)))}")
    scale = store.boxes[:, 2] / np.array([person.box[2] for person in people])
    keypoints = store.points.shape[1]
    depth = np.stack([np.full(keypoints, np.nan) if p.depth is None else p.depth for p in people])
    number = {name: index for index, name in enumerate(classes)}
    return CropLabels(
        areas=np.array([person.area for person in people] * scale**2, np.float32),
        depth=((depth - depth[:, [root]]) * scale[:, None]).astype(np.float32),
        presence=np.array([UNKNOWN if p.presence is None else p.presence for p in people], np.float32),
        classes=np.array([number.get(person.gesture, IGNORED) for person in people], np.int64),
        handedness=np.array([_HANDS[person.handedness] for person in people], np.float32),
        root=root,
    )
