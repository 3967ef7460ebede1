"""Batches of an epoch: who comes up in which step, and their augmented crops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_zoo import skeletons
from trainer.config import RunConfig, Source
from trainer.data import aid, augment, backdrop, blur, half_body, labels, people, store, teacher
from trainer.data.people import Person
from trainer.errors import ConfigError, DataError


@dataclass(frozen=True)
class Batch:
    """What one process learns from in one step."""

    images: Tensor
    """(B, 3, h, w) raw pixels, 0..255, channels_last."""
    points: Tensor
    """(B, K, 2) float32 in crop pixels."""
    weights: Tensor
    """(B, K) float32."""
    people: NDArray[np.int64]
    """(B,) indices in the store."""
    areas: Tensor
    """(B,) float32, of the people in square crop pixels."""
    depth: Tensor
    """(B, K) float32, z in crop pixels relative to the root keypoint; NaN where not labelled."""
    presence: Tensor
    """(B,) float32: 1, 0, or -1 where not labelled."""
    classes: Tensor
    """(B,) int64, -1 where not labelled."""
    handedness: Tensor
    """(B,) float32: 1 for a left hand, 0 for a right one, or -1 where not labelled."""


def read(source: Source, root: Path, skeleton: skeletons.Skeleton) -> list[Person]:
    """The people of one configured set, labels already merged with its teacher's; paths start at `root`.

    Raises:
        DataError: the set cannot be read, or has nobody with enough labelled keypoints.
    """
    images = None if source.images is None else root / source.images
    found = people.read(
        root / source.annotations, skeleton, images=images, keypoints_at_least=source.keypoints_at_least
    )
    if not found:
        raise DataError(
            f"{root / source.annotations} has nobody with {source.keypoints_at_least} labelled keypoints"
        )
    return found if source.teacher is None else teacher.apply(found, root / source.teacher, skeleton)


class Loader:
    """Endless supply of augmented batches, the same for the same seed whatever was asked before.

    Args:
        config: the run.
        root: data root.
        cache: folder of decoded crops.
        rank, world: this process and how many there are; each gets its slice of every global batch.
        device: where batches are made; on a GPU the whole store lies in its memory.

    Raises:
        DataError: as `read`.
        ConfigError: a batch has fewer people than there are processes.
    """

    def __init__(
        self,
        config: RunConfig,
        root: Path,
        cache: Path,
        *,
        rank: int = 0,
        world: int = 1,
        device: torch.device,
    ) -> None:
        self._config, self._rank, self._world, self._device = config, rank, world, device
        self._skeleton = skeletons.skeleton(config.skeleton)
        sets = [read(source, root, self._skeleton) for source in config.data.train]
        self.counts = [len(each) for each in sets]
        everybody = [person for each in sets for person in each]
        self.store = store.build(everybody, cache)
        self._labels = labels.of(everybody, self.store, config.net.classes, config.root_index)
        repeats = np.repeat([source.repeat for source in config.data.train], self.counts)
        self._entries = np.repeat(np.arange(len(self.store)), repeats)
        self._on_device = (
            torch.from_numpy(np.array(self.store.images)).to(device) if device.type == "cuda" else None
        )
        self._cutouts = self._cut_out(root, cache)
        self.batch = min(config.optimisation.batch, len(self._entries)) // world * world
        if not self.batch:
            raise ConfigError(
                f"{world} processes cannot share batches of {config.optimisation.batch} from {len(self._entries)} "
                "people; take fewer processes"
            )

    def __len__(self) -> int:
        """Steps of an epoch; what does not fill a batch waits for the next epoch's order."""
        return len(self._entries) // self.batch

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0, from a step on."""
        size = self._config.phase_of(number).size
        order = np.random.default_rng([self._config.seed, number]).permutation(self._entries)
        share = self.batch // self._world
        mine = slice(self._rank * share, (self._rank + 1) * share)
        for step in range(start, len(self)):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            key = [self._config.seed, number, step]
            drawn = augment.draw(
                self._config.augmentation,
                self._boxes(chosen, np.random.default_rng([*key, _HALVES])),
                size,
                self._config.padding,
                np.random.default_rng(key),
            )[mine]
            batch = self._make(chosen[mine], drawn, size)
            batch = replace(batch, images=self._seen(batch, drawn, len(chosen), mine, key))
            if (dropping := self._config.augmentation.dropping) is not None:
                progress = (number + step / len(self)) / self._config.epochs
                rng = np.random.default_rng([*key, _DROPPING])
                lost = aid.draw(dropping, len(chosen), size, progress, rng)[mine]
                batch = replace(batch, images=aid.drop(batch.images, lost))
            yield batch

    def _cut_out(self, root: Path, cache: Path) -> backdrop.Cutouts | None:
        """What backgrounds can be exchanged of, where the configuration asks for it."""
        how, sources = self._config.augmentation.backdrops, self._config.data.train
        if how is None or not any(source.plain for source in sources):
            return None
        plain = np.repeat([source.plain for source in sources], self.counts)
        return backdrop.Cutouts(
            how,
            self.store,
            plain,
            self._skeleton,
            cache,
            root=root,
            seed=self._config.seed,
            device=self._device,
        )

    def _seen(self, batch: Batch, drawn: augment.Draw, count: int, mine: slice, key: list[int]) -> Tensor:
        """The crops before other backgrounds and out of focus; `count` is that of the whole batch."""
        images, how = batch.images, self._config.augmentation
        size = tuple(images.shape[-2:])
        if self._cutouts is not None:
            chosen = backdrop.choose(how.backdrops, count, size, np.random.default_rng([*key, _BACKDROPS]))
            images = self._cutouts.put(images, batch.people, drawn.matrices, chosen[mine])
        if how.blur is not None:
            sigmas = blur.draw(how.blur, count, np.random.default_rng([*key, _BLUR]))
            images = blur.apply(images, sigmas[mine])
        return images

    def _boxes(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Where the crops of a batch are taken from, before they are varied."""
        boxes, how = self.store.boxes[chosen], self._config.augmentation.half_body
        if how is None:
            return boxes
        upper = half_body.upper_body(self._skeleton)
        return half_body.draw(how, boxes, self.store.points[chosen], self.store.weights[chosen], upper, rng)

    def _make(self, indices: NDArray[np.int64], drawn: augment.Draw, size: tuple[int, int]) -> Batch:
        points, weights = augment.labels(self.store, indices, drawn, size, self._skeleton)
        if self._on_device is None:
            images = augment.warp(self.store, indices, drawn, size)
        else:
            chosen = self._on_device[torch.from_numpy(indices).to(self._device)]
            images = augment.warp_on_device(chosen, drawn, size)
        factor = np.sqrt(np.abs(np.linalg.det(drawn.matrices[:, :, :2])))
        more = self._labels[indices].drawn(factor, drawn.flipped, self._skeleton)
        arrays = (more.areas, more.depth, more.presence, more.classes, more.handedness)
        return Batch(
            images,
            torch.from_numpy(points).to(self._device),
            torch.from_numpy(weights).to(self._device),
            indices,
            *(torch.from_numpy(each).to(self._device) for each in arrays),
        )


_HALVES, _DROPPING, _BACKDROPS, _BLUR = 1, 2, 4, 5
"""Streams of random numbers beside that of `augment`, so that one technique does not change the draws of another."""
