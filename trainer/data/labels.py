"""Labels beside the keypoints of the stored crops: area, depth, presence and class, each with its own gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_zoo.skeletons import Skeleton
from trainer.data.people import Person
from trainer.data.store import CropStore
from trainer.errors import DataError
from trainer.losses.multitask import IGNORED

UNKNOWN = -1.0
"""Presence of a crop without that label."""


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
    root: int
    """Index of the keypoint whose z is 0."""

    def __getitem__(self, part: NDArray[np.int64]) -> CropLabels:
        return CropLabels(
            self.areas[part], self.depth[part], self.presence[part], self.classes[part], self.root
        )

    def scaled(self, factor: NDArray[np.float64], flip: NDArray[np.int64]) -> CropLabels:
        """In crops that are (N,) times as large, with the keypoints in the order of the (N, K) indices.

        z is relative to the keypoint that is the root in the new order; all of it is NaN where that has none.
        """
        depth = np.take_along_axis(self.depth, flip, axis=1)
        depth = (depth - depth[:, [self.root]]) * factor[:, None]
        areas = (self.areas * factor**2).astype(np.float32)
        return CropLabels(areas, depth.astype(np.float32), self.presence, self.classes, self.root)


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
        root=root,
    )


def flip_indices(flipped: NDArray[np.bool_], skeleton: Skeleton) -> NDArray[np.int64]:
    """(N, K) keypoint that each one of a crop comes from."""
    return np.where(flipped[:, None], np.array(skeleton.flip_order), np.arange(len(skeleton)))
