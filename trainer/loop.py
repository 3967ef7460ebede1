"""The training loop, on Lightning Fabric: one process per core or GPU, started here or by torchrun.

Whatever their number, every step learns from the same pictures; batch norm sees each process's share of them.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from lightning.fabric.utilities.exceptions import MisconfigurationException

from model_zoo import skeletons
from trainer import evaluate, initial, metrics, plots
from trainer.checkpoint import Row, RunFolder
from trainer.config import Phase, RunConfig
from trainer.data.loader import Loader, read
from trainer.data.people import Person
from trainer.data.prefetch import ahead
from trainer.distill.teacher import Teacher
from trainer.errors import CheckpointError, ConfigError, DataError, Interrupted
from trainer.hardware import processor
from trainer.learner import Learner, Moment
from trainer.nets import further
from trainer.nets.pose import MAP_HEADS
from trainer.nets.served import Torch
from trainer.progress import track

ACCELERATORS = ("auto", "cpu", "cuda")
LEAST_SHARE = 16
"""People of a batch that a process should have by default: batch norm sees them alone."""
_LETTING_GO_S = 0.2
SHEET_PEOPLE = 12
"""People of the first validation set on the picture sheet."""


def train(
    config: RunConfig,
    root: Path,
    folder: RunFolder,
    *,
    cache: Path,
    accelerator: str = "auto",
    processes: int = 1,
    teacher: Teacher | None = None,
) -> None:
    """Run, or go on with, one configuration until its last epoch.

    Args:
        config: the run.
        root: data root.
        folder: where everything is written; an interrupted run is continued from its last checkpoint.
        cache: folder of decoded crops.
        accelerator: `cpu`, `cuda` or `auto`.
        processes: how many share each batch; under torchrun it is torchrun that says.
        teacher: of a configuration that has one.

    Raises:
        Interrupted: a SIGTERM came; the checkpoint stands where it stopped.
        NotFinite: the loss or its gradient was NaN or infinite.
        ConfigError: this machine lacks the accelerator, or a batch cannot be shared by so many processes.
        DataError, CheckpointError: as their modules say.
    """
    logger = TensorBoardLogger(folder.path, name="tensorboard", version="")
    fabric = fabric_of(config, accelerator, processes, logger)
    fabric.launch()
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if fabric.device.type == "cpu" and fabric.world_size > 1:
        torch.set_num_threads(1)
    cv2.setNumThreads(1)
    fabric.seed_everything(config.seed, verbose=False)
    if fabric.is_global_zero:
        loader = _loader(config, root, cache, fabric)
        folder.start(config, loader.counts, _hardware(fabric))
    fabric.barrier()
    if not fabric.is_global_zero:
        loader = _loader(config, root, cache, fabric)
    learner = Learner(config, fabric, teacher)
    if config.initial is not None and not folder.checkpoint_file.is_file():
        _begin_with(RunFolder(config.initial), learner)
    _Run(config, root, folder, loader, learner).finish()
    if torch.distributed.is_initialized():
        # Together: a process whose partner is gone while it still listens to it is aborted.
        fabric.barrier()
        # What reduced the gradients goes first, and gloo's threads may let go of its last tensors: whoever ends the
        # group waits for them without giving them the interpreter, which they need for that.
        del learner, loader, fabric
        gc.collect()
        time.sleep(_LETTING_GO_S)
        torch.distributed.destroy_process_group()


def _begin_with(before: RunFolder, learner: Learner) -> None:
    fresh = initial.carry_over(initial.averaged(before), learner.net.module, learner.average.net)
    if learner.fabric.is_global_zero and fresh:
        print(f"not in {before.path}, so they begin anew: {', '.join(fresh)}", flush=True)


def fabric_of(
    config: RunConfig, accelerator: str, processes: int, logger: TensorBoardLogger | None = None
) -> Fabric:
    """As many processes as asked for, or those that torchrun has started already, on one machine or several.

    Raises:
        ConfigError: this machine lacks the accelerator.
    """
    if accelerator not in ACCELERATORS:
        raise ConfigError(f"unknown accelerator {accelerator!r}; known: {', '.join(ACCELERATORS)}")
    started = "TORCHELASTIC_RUN_ID" in os.environ
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if started else processes
    machines = int(os.environ["WORLD_SIZE"]) // here if started else 1
    try:
        return Fabric(
            accelerator=accelerator,
            devices=here,
            num_nodes=machines,
            strategy="ddp" if here * machines > 1 else "auto",
            precision=config.precision,
            loggers=logger,
        )
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(f"cannot train on {here} x {accelerator}: {error}") from error


def _hardware(fabric: Fabric) -> str:
    """For people: how many processes on what."""
    if fabric.device.type == "cuda":
        return f"{fabric.world_size} x {torch.cuda.get_device_name(fabric.device)}"
    return f"{fabric.world_size} cores of {processor()}"


def _loader(config: RunConfig, root: Path, cache: Path, fabric: Fabric) -> Loader:
    return Loader(config, root, cache, rank=fabric.global_rank, world=fabric.world_size, device=fabric.device)


class _Run:
    """One process's share of a run."""

    def __init__(
        self, config: RunConfig, root: Path, folder: RunFolder, loader: Loader, learner: Learner
    ) -> None:
        self.config, self.folder, self.loader, self.learner = config, folder, loader, learner
        self.fabric = learner.fabric
        self.skeleton = skeletons.skeleton(config.skeleton)
        self.validation = [
            (source.name, read(source, root, self.skeleton)) for source in config.data.validate_on
        ]
        for _, people in self.validation:
            # Labels that allow no figure shall stop the run now, not when it is measured for the first time.
            if any(person.visible.any() for person in people):
                metrics.headline(people, np.stack([person.points for person in people]), self.skeleton)
            elif not evaluate.allows(people, further.outputs(config)):
                raise DataError(
                    "a set to measure on has no keypoints, nor labels of what this net answers else"
                )
        self.epoch, self.step = 0, 0
        self.sums: dict[str, torch.Tensor] = {}
        self.seconds = 0.0
        self.history: list[Row] = []
        if folder.checkpoint_file.is_file():
            self._restore(folder.load_checkpoint())

    def finish(self) -> None:
        """All epochs that are left."""
        with _sigterm() as asked:
            while self.epoch < self.config.epochs:
                row = self._one_epoch(asked)
                self.epoch, self.step, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0
                if self.epoch % self.config.validate_every == 0 or self.epoch == self.config.epochs:
                    row |= self._measured()
                self.history.append(row)
                self._save()
                self._report(row)

    def _one_epoch(self, asked: threading.Event) -> Row:
        """Learn from everybody once, or from those who are left of an epoch that was interrupted."""
        started = time.perf_counter() - self.seconds
        if self.step == 0:
            self.learner.start_epoch(self._now)
        self.learner.net.train()
        batches = ahead(self.loader.epoch(self.epoch, self.step))
        if self.fabric.is_global_zero:
            title = f"Epoch {self.epoch + 1} of {self.config.epochs}"
            batches = track(batches, title, total=len(self.loader) - self.step)
        for batch in batches:
            found = self.learner.learn(batch, self._now)
            self.sums = {name: self.sums.get(name, 0) + value for name, value in found.items()}
            self.step += 1
            if self._all_asked(asked):
                self._stop(time.perf_counter() - started)
        seconds = time.perf_counter() - started
        phase, steps = self.config.phase_of(self.epoch), len(self.loader)
        means = {
            name: self.fabric.all_reduce(total, reduce_op="mean").item() / steps
            for name, total in self.sums.items()
        }
        balance = self.learner.objective.balance
        weights = {} if balance is None else balance.weights()
        return {
            "epoch": self.epoch + 1,
            "height": phase.height,
            "loss": means.pop("loss"),
            **{f"loss_{name}": mean for name, mean in means.items()},
            **{f"weight_{name}": weight for name, weight in weights.items()},
            "learning_rate": self.learner.optimiser.param_groups[0]["lr"],
            "seconds": seconds,
            "images_per_second": steps * self.loader.batch / seconds,
        }

    @property
    def _now(self) -> Moment:
        return Moment(self.epoch, self.step, len(self.loader))

    def _all_asked(self, asked: threading.Event) -> bool:
        """Whether any process was asked to stop; all of them learn it at the same step."""
        if self.fabric.world_size == 1:
            return asked.is_set()
        flag = torch.tensor(float(asked.is_set()), device=self.fabric.device)
        return self.fabric.all_reduce(flag, reduce_op="sum").item() > 0

    def _stop(self, seconds: float) -> None:
        self.seconds = seconds
        self._save()
        if not self.fabric.is_global_zero:
            raise SystemExit(Interrupted.STATUS)
        raise Interrupted(
            f"stopped by SIGTERM in epoch {self.epoch + 1} after step {self.step} of {len(self.loader)}; "
            f"{self.folder.checkpoint_file} is saved, and the same command goes on from there"
        )

    def _measured(self) -> Row:
        """PCK of the averaged weights at the phase's resolution; measured by the first process alone."""
        row: Row = {}
        if self.fabric.is_global_zero:
            phase = self.config.phase_of(self.epoch - 1)
            plain = self.learner.plain(self.loader, self.epoch)
            net = Torch(plain, self.config, self.fabric.device)
            for name, people in self.validation:
                row |= measure(net, people, name, self.config, phase)
            if self.validation:
                self._draw_sheet(net, self.validation[0][1][:SHEET_PEOPLE], phase)
        self.fabric.barrier()
        return row

    def _draw_sheet(self, net: Torch, people: list[Person], phase: Phase) -> None:
        images, matrices = evaluate.crops(people, phase.size, self.config.padding)
        points, scores = _predicted(net, images, matrices, self.config)
        plots.sheet(images, plots.in_crops(points, matrices), scores, self.skeleton, self.folder.sheet_file)

    def _save(self) -> None:
        """Write the checkpoint and the table."""
        if self.fabric.is_global_zero:
            self.folder.write_metrics(self.history)
            state = {
                "epoch": self.epoch,
                "step": self.step,
                "sums": self.sums,
                "steps": len(self.loader),
                "seconds": self.seconds,
                "history": self.history,
                **self.learner.state(),
            }
            if self.config.distillation.reshapes:
                state["plain"] = self.learner.plain(self.loader, self.epoch).state_dict()
            partial = self.folder.checkpoint_file.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(self.folder.checkpoint_file)
        self.fabric.barrier()

    def _report(self, row: Row) -> None:
        """Say how the epoch was, in a line, in TensorBoard and, where it was measured, as a picture of the curves."""
        if self.fabric.is_global_zero:
            curves = {name: value for name, value in row.items() if name != "epoch"}
            self.fabric.log_dict(curves, step=self.epoch)
            if self.epoch == self.config.epochs or self.epoch % self.config.validate_every == 0:
                plots.curves({self.config.name: self.history}, self.folder.curves_file)
            print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)

    def _restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.history = state["epoch"], state["history"]
        if state.get("step") and state["steps"] != len(self.loader):
            raise CheckpointError(
                f"the run was stopped within an epoch of {state['steps']} steps, which has {len(self.loader)} now; "
                "go on with as many processes and people as before"
            )
        self.step, self.seconds = state.get("step", 0), state.get("seconds", 0.0)
        self.sums = {name: total.to(self.fabric.device) for name, total in state.get("sums", {}).items()}
        self.learner.restore(state)


@contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process; only the main thread can be asked that way."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _predicted(
    net: Torch, images: np.ndarray, matrices: np.ndarray, config: RunConfig
) -> tuple[evaluate.Points, evaluate.Points]:
    decoder = config.codec.decoder if config.net.head in MAP_HEADS else None
    return evaluate.predict(net, images, matrices, config.codec, decoder, config.net.stride)


def measure(net: Torch, people: list[Person], name: str, config: RunConfig, phase: Phase) -> Row:
    """What one set says at one resolution, by column of metrics.csv.

    Under the set's name stands its PCK, or of a set without keypoints the first other figure that it allows; under
    `<name> <metric>` every figure about what further heads say.
    """
    images, matrices = evaluate.crops(people, phase.size, config.padding)
    skeleton = skeletons.skeleton(config.skeleton)
    found = evaluate.further_scores(net, people, images, matrices, further.outputs(config), skeleton)
    row = {f"{name} {each.metric}": each.value for each in found}
    if not any(person.visible.any() for person in people):
        return {name: found[0].value} | row
    points, _ = _predicted(net, images, matrices, config)
    headline = metrics.headline(people, points, skeleton)
    if (
        headline.metric != "PCK@0.2"
    ):  # of a body that is what progress is told by, of a hand its error as well
        error = metrics.mean_error(people, points, skeleton)
        row = {f"{name} {error.metric}": error.value} | row
    return {name: headline.value} | row


def default_processes(accelerator: str, batch: int) -> int:
    """One per GPU where there is one, else one per core that this process may use and that gets enough of a batch."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return max(1, min(len(os.sched_getaffinity(0)), batch // LEAST_SHARE))
