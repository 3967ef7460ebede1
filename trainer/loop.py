"""The training loop, on Lightning Fabric: one process per core or GPU.

Whatever their number, every step learns from the same pictures; batch norm sees each process's share of them.
"""

from __future__ import annotations

import math
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from lightning.fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from torch import Tensor, nn

from model_zoo import geometry, skeletons
from trainer import evaluate, metrics
from trainer.checkpoint import Row, RunFolder
from trainer.config import Phase, RunConfig
from trainer.data.loader import Loader, read
from trainer.data.people import Person
from trainer.ema import WeightEma
from trainer.errors import ConfigError, NotFinite
from trainer.losses.heatmap import LOSSES
from trainer.nets.pose import OUTPUT_STRIDE, PoseNet, heatmaps
from trainer.progress import track


ACCELERATORS = ("auto", "cpu", "cuda")


def learning_rate(config: RunConfig, progress: float) -> float:
    """Linear rise over the warm-up, then a cosine to the final rate.

    Args:
        config: the run.
        progress: epochs done so far, with fractions.
    """
    how = config.optimisation
    if progress < how.warmup_epochs:
        return how.learning_rate * progress / how.warmup_epochs
    rest = max(config.epochs - how.warmup_epochs, 1e-9)
    cosine = 0.5 * (1 + math.cos(math.pi * min((progress - how.warmup_epochs) / rest, 1.0)))
    return how.learning_rate * (how.final_rate + (1 - how.final_rate) * cosine)


def optimiser(net: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms and other vectors are not decayed."""
    vectors = [each for each in net.parameters() if each.ndim <= 1]
    others = [each for each in net.parameters() if each.ndim > 1]
    groups = [
        {"params": others, "weight_decay": config.optimisation.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99))


@dataclass(frozen=True)
class Torch:
    """A torch net as `evaluate.Net`."""

    net: nn.Module
    config: RunConfig
    device: torch.device

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) raw crops -> (B, K, H, W) heatmaps."""
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
            logits = self.net(normalised(pixels, self.config))
            return heatmaps(logits.float(), self.config.net.head, self.config.codec.sigma_cells).cpu().numpy()


def normalised(pixels: Tensor, config: RunConfig) -> Tensor:
    """(B, 3, h, w) raw pixels -> the net's numbers, channels_last."""
    floats = pixels.to(torch.float32, memory_format=torch.channels_last)
    return (floats - config.normalisation.mean) / config.normalisation.scale


def train(
    config: RunConfig,
    root: Path,
    folder: RunFolder,
    *,
    cache: Path,
    accelerator: str = "auto",
    processes: int = 1,
) -> None:
    """Run, or go on with, one configuration until its last epoch.

    Args:
        config: the run.
        root: data root.
        folder: where everything is written; an interrupted run is continued from its last finished epoch.
        cache: folder of decoded crops.
        accelerator: `cpu`, `cuda` or `auto`.
        processes: how many share each batch.

    Raises:
        NotFinite: the loss or its gradient was NaN or infinite.
        ConfigError: this machine lacks the accelerator, or a batch cannot be shared by so many processes.
        DataError, CheckpointError: as their modules say.
    """
    if accelerator not in ACCELERATORS:
        raise ConfigError(f"unknown accelerator {accelerator!r}; known: {', '.join(ACCELERATORS)}")
    logger = TensorBoardLogger(folder.path, name="tensorboard", version="")
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=processes, strategy="ddp" if processes > 1 else "auto",
            precision=config.precision, loggers=logger,
        )  # fmt: skip
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(f"cannot train on {processes} x {accelerator}: {error}") from error
    fabric.launch()
    if fabric.device.type == "cpu" and processes > 1:
        torch.set_num_threads(1)
    cv2.setNumThreads(1)
    fabric.seed_everything(config.seed, verbose=False)
    if fabric.is_global_zero:
        loader = _loader(config, root, cache, fabric)
        folder.start(config, loader.counts, _hardware(fabric))
    fabric.barrier()
    if not fabric.is_global_zero:
        loader = _loader(config, root, cache, fabric)
    _Run(config, root, folder, loader, fabric).finish()


def _hardware(fabric: Fabric) -> str:
    """For people: how many processes on what."""
    if fabric.device.type == "cuda":
        device = torch.cuda.get_device_name(fabric.device)
    else:
        information = Path("/proc/cpuinfo")
        lines = information.read_text().splitlines() if information.is_file() else []
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        device = f"cores of {next(names, platform.machine())}"
    return (
        f"{fabric.world_size} x {device}" if fabric.device.type == "cuda" else f"{fabric.world_size} {device}"
    )


def _loader(config: RunConfig, root: Path, cache: Path, fabric: Fabric) -> Loader:
    return Loader(config, root, cache, rank=fabric.global_rank, world=fabric.world_size, device=fabric.device)


class _Run:
    """One process's share of a run."""

    def __init__(
        self, config: RunConfig, root: Path, folder: RunFolder, loader: Loader, fabric: Fabric
    ) -> None:
        self.config, self.folder, self.loader, self.fabric = config, folder, loader, fabric
        self.skeleton = skeletons.skeleton(config.skeleton)
        net = PoseNet(config.net, len(self.skeleton)).to(memory_format=torch.channels_last)
        self.average = WeightEma(net, config.optimisation.ema)
        self.average.net.to(fabric.device)
        self.net, self.optimiser = fabric.setup(net, optimiser(net, config))
        self.loss = LOSSES[config.net.head]
        self.validation = [
            (source.annotations.stem, read(source, root, self.skeleton)) for source in config.data.validate_on
        ]
        for _, people in self.validation:
            # Labels that allow no PCK shall stop the run now, not when it is measured for the first time.
            metrics.pck(people, np.stack([person.points for person in people]), self.skeleton)
        self.epoch, self.history = 0, []
        if folder.checkpoint_file.is_file():
            self._restore(folder.load_checkpoint())

    def finish(self) -> None:
        """All epochs that are left."""
        while self.epoch < self.config.epochs:
            row = self._one_epoch()
            self.epoch += 1
            if self.epoch % self.config.validate_every == 0 or self.epoch == self.config.epochs:
                row |= self._measured()
            self.history.append(row)
            self._save()

    def _one_epoch(self) -> Row:
        """Learn from everybody once."""
        self.net.train()
        total = torch.zeros((), device=self.fabric.device)
        started = time.perf_counter()
        batches = self.loader.epoch(self.epoch)
        if self.fabric.is_global_zero:
            title = f"Epoch {self.epoch + 1} of {self.config.epochs}"
            batches = track(batches, title, total=len(self.loader))
        for step, batch in enumerate(batches):
            rate = learning_rate(self.config, self.epoch + step / len(self.loader))
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            logits = self.net(normalised(batch.images, self.config))
            cells = geometry.pixels_to_cells(batch.points.cpu(), OUTPUT_STRIDE).astype(np.float32)
            points = torch.from_numpy(cells).to(self.fabric.device)
            loss = self.loss(logits, points, batch.weights, self.config.codec.sigma_cells)
            self.fabric.backward(loss)
            norm = self.fabric.clip_gradients(
                self.net, self.optimiser, max_norm=self.config.optimisation.clip, error_if_nonfinite=False
            )
            # The norm is that of all processes together, so all of them stop at the same step.
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise NotFinite(
                    f"loss {loss.item():g}, gradient norm {norm.item():g} in epoch {self.epoch + 1}, "
                    f"step {step + 1}; people {batch.people.tolist()}"
                )
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.average.update(self.net.module)
            total += loss.detach()
        seconds = time.perf_counter() - started
        loss = self.fabric.all_reduce(total, reduce_op="mean").item() / len(self.loader)
        phase = self.config.phase_of(self.epoch)
        return {
            "epoch": self.epoch + 1,
            "height": phase.height,
            "loss": loss,
            "learning_rate": rate,
            "seconds": seconds,
            "images_per_second": len(self.loader) * self.loader.batch / seconds,
        }

    def _measured(self) -> Row:
        """PCK of the averaged weights at the phase's resolution; measured by the first process alone."""
        row: Row = {}
        if self.fabric.is_global_zero:
            phase = self.config.phase_of(self.epoch - 1)
            net = Torch(self.average.net, self.config, self.fabric.device)
            for name, people in self.validation:
                row[name] = measure(net, people, self.config, phase)
        self.fabric.barrier()
        return row

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            row = self.history[-1]
            self.fabric.log_dict(
                {name: value for name, value in row.items() if name != "epoch"}, step=self.epoch
            )
            self.folder.write_metrics(self.history)
            state = {
                "epoch": self.epoch,
                "history": self.history,
                "net": self.net.module.state_dict(),
                "average": self.average.net.state_dict(),
                "average_steps": self.average.steps,
                "optimiser": self.optimiser.state_dict(),
            }
            partial = self.folder.checkpoint_file.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(self.folder.checkpoint_file)
            print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
        self.fabric.barrier()

    def _restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.history = state["epoch"], state["history"]
        self.net.module.load_state_dict(state["net"])
        self.average.net.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.optimiser.load_state_dict(state["optimiser"])


def measure(net: evaluate.Net, people: list[Person], config: RunConfig, phase: Phase) -> float:
    """PCK@0.2 of one set at one resolution."""
    images, matrices = evaluate.crops(people, phase.size, config.padding)
    points, _ = evaluate.predict(net, images, matrices, config.codec, config.codec.decoder, OUTPUT_STRIDE)
    return metrics.pck(people, points, skeletons.skeleton(config.skeleton)).value


def default_processes(accelerator: str) -> int:
    """One per GPU where there is one, else one per core that this process may use."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0))
