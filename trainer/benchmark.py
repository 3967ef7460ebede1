"""How fast the training loop is, against the bare forward and backward pass of the same net.

Both are timed in turns in one process, so that whatever else the machine does falls on both alike. The bare pass knows
no data, no loss worth the name and no optimiser; what the loop loses against it is the price of everything else. The
same people come up in every turn, as their crops lie in memory already in every epoch but the first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import cv2
import torch
from lightning.fabric import Fabric
from torch import Tensor

from trainer import loop
from trainer.config import RunConfig
from trainer.data.loader import Batch, Loader
from trainer.data.prefetch import ahead
from trainer.learner import Learner, Moment
from trainer.nets.served import normalised


@dataclass(frozen=True)
class Speed:
    """Medians over the turns."""

    loop: float
    """Images per second of the loop."""
    bare: float
    """Images per second of the bare passes."""
    share: float
    """Of the loop in the bare passes, turn by turn."""

    def __str__(self) -> str:
        return f"loop {self.loop:.1f} images/s, bare {self.bare:.1f} images/s, share {self.share:.3f}"


def run(
    config: RunConfig,
    root: Path,
    cache: Path,
    *,
    accelerator: str = "auto",
    threads: int = 1,
    rounds: int = 8,
    steps: int = 4,
) -> Speed:
    """Time the first phase of a run.

    Args:
        config: the run; nothing of it is written.
        root: data root.
        cache: folder of decoded crops.
        accelerator: `cpu`, `cuda` or `auto`.
        threads: of torch, on a CPU.
        rounds: turns of each.
        steps: per turn.
    """
    fabric = loop.fabric_of(config, accelerator, 1)
    fabric.seed_everything(config.seed, verbose=False)
    if fabric.device.type == "cpu":
        torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    loader = Loader(config, root, cache, device=fabric.device)
    learner = Learner(config, fabric)
    learner.net.train()
    batches = ahead(_repeated(loader, steps))
    first = next(batches)
    images = normalised(first.images, config)
    turns = [
        (_loop(learner, batches, steps, loader), _bare(learner, images, steps)) for _ in range(rounds + 1)
    ][1:]  # the first turn warms up
    people = steps * loader.batch
    medians = [median([people / each[side] for each in turns]) for side in (0, 1)]
    return Speed(*medians, median([bare / whole for whole, bare in turns]))


def _loop(learner: Learner, batches: Iterator[Batch], steps: int, loader: Loader) -> float:
    """Seconds of some steps as training does them."""
    _wait(learner.fabric)
    started = time.perf_counter()
    for step in range(steps):
        learner.learn(next(batches), Moment(0, step % len(loader), len(loader)))
    _wait(learner.fabric)
    return time.perf_counter() - started


def _bare(learner: Learner, images: Tensor, steps: int) -> float:
    """Seconds of as many forward and backward passes."""
    _wait(learner.fabric)
    started = time.perf_counter()
    for _ in range(steps):
        answers = learner.net(images)
        learner.fabric.backward(
            torch.stack([each.float().mean() for each in answers.values() if each.numel()]).sum()
        )
        learner.optimiser.zero_grad()
    _wait(learner.fabric)
    return time.perf_counter() - started


def _repeated(loader: Loader, steps: int) -> Iterator[Batch]:
    """The same people turn by turn."""
    while True:
        yield from islice(loader.epoch(0), steps)


def _wait(fabric: Fabric) -> None:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)
