"""Batches of an epoch: who comes up in which step, and their augmented crops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_zoo import skeletons
from trainer.config import RunConfig, Source
from trainer.data import augment, people, store, teacher
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
        self.store = store.build([person for each in sets for person in each], cache)
        repeats = np.repeat([source.repeat for source in config.data.train], self.counts)
        self._entries = np.repeat(np.arange(len(self.store)), repeats)
        self._on_device = (
            torch.from_numpy(np.array(self.store.images)).to(device) if device.type == "cuda" else None
        )
        self.batch = min(config.optimisation.batch, len(self._entries)) // world * world
        if not self.batch:
            raise ConfigError(
                f"{world} processes cannot share batches of {config.optimisation.batch} from {len(self._entries)} "
                "people; take fewer processes"
            )

    def __len__(self) -> int:
        """Steps of an epoch; what does not fill a batch waits for the next epoch's order."""
        return len(self._entries) // self.batch

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0."""
        size = self._config.phase_of(number).size
        order = np.random.default_rng([self._config.seed, number]).permutation(self._entries)
        share = self.batch // self._world
        mine = slice(self._rank * share, (self._rank + 1) * share)
        for step in range(len(self)):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            rng = np.random.default_rng([self._config.seed, number, step])
            drawn = augment.draw(
                self._config.augmentation, self.store.boxes[chosen], size, self._config.padding, rng
            )[mine]
            yield self._make(chosen[mine], drawn, size)

    def _make(self, indices: NDArray[np.int64], drawn: augment.Draw, size: tuple[int, int]) -> Batch:
        points, weights = augment.labels(self.store, indices, drawn, size, self._skeleton)
        if self._on_device is None:
            images = augment.warp(self.store, indices, drawn, size)
        else:
            chosen = self._on_device[torch.from_numpy(indices).to(self._device)]
            images = augment.warp_on_device(chosen, drawn, size)
        return Batch(
            images,
            torch.from_numpy(points).to(self._device),
            torch.from_numpy(weights).to(self._device),
            indices,
        )
