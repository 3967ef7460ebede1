"""What one process learns with: the net in training, its average, the objective, and the optimiser of both."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from trainer import schedule
from trainer.config import RunConfig
from trainer.data.loader import Batch, Loader
from trainer.distill import netaug
from trainer.distill.netaug import NetAug
from trainer.distill.teacher import Teacher
from trainer.ema import WeightEma
from trainer.errors import NotFinite
from trainer.losses.awl import parameter_groups
from trainer.nets import build
from trainer.nets.pose import NetConfig
from trainer.nets.served import normalised
from trainer.objective import Labels, Objective, Parts

_WIDTHS = 3
"""Stream of random numbers for NetAug's widths, beside those of the loader."""


def learning_rate(config: RunConfig, progress: float) -> float:
    """Linear rise over the warm-up, then the schedule down to the final rate.

    Args:
        config: the run.
        progress: epochs done so far, with fractions.
    """
    how = config.optimisation
    share = schedule.SCHEDULES[how.schedule](
        progress,
        total=max(config.epochs, how.warmup_epochs + 1e-9),
        warmup=how.warmup_epochs,
        start=0.0,
        final=how.final_rate,
    )
    return how.learning_rate * share


def optimiser(
    net: nn.Module, config: RunConfig, objective: nn.Module | None = None
) -> torch.optim.AdamW | torch.optim.SGD:
    """AdamW or SGD; biases, norms and other vectors are not decayed, nor is what the objective learns."""
    how = config.optimisation
    vectors = [each for each in net.parameters() if each.ndim <= 1]
    others = [each for each in net.parameters() if each.ndim > 1]
    groups = [
        {"params": others, "weight_decay": how.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
        *(() if objective is None else parameter_groups(objective)),
    ]
    if how.kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=how.momentum, nesterov=how.momentum > 0)
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)


@dataclass(frozen=True)
class Moment:
    """Where a run stands."""

    epoch: int
    """Finished ones."""
    step: int
    """Finished ones of the present epoch."""
    steps: int
    """Of an epoch."""

    @property
    def progress(self) -> float:
        """Epochs done so far, with fractions."""
        return self.epoch + self.step / self.steps


class Learner:
    """One process's share of the learning.

    Args:
        config: the run.
        fabric: launched.
        teacher: what is learnt from beside the labels, where the configuration has a teacher.
    """

    def __init__(self, config: RunConfig, fabric: Fabric, teacher: Teacher | None = None) -> None:
        self.config, self.fabric, self.teacher = config, fabric, teacher
        net = build.net(config).to(memory_format=torch.channels_last)
        self.objective = Objective(config).to(fabric.device)
        self.average = WeightEma(net, config.optimisation.ema)
        self.average.net.to(fabric.device)
        self.net, self.optimiser = fabric.setup(net, optimiser(net, config, self.objective))

    def learn(self, batch: Batch, now: Moment) -> dict[str, Tensor]:
        """One step. Returns its loss under `loss`, and every part's mean by name.

        Raises:
            NotFinite: the loss or its gradient was NaN or infinite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, now.progress)
        found = self.gradient(batch, now)
        norm = self.fabric.clip_gradients(
            self.net, self.optimiser, max_norm=self.config.optimisation.clip, error_if_nonfinite=False
        )
        # The norm is that of all processes together, so all of them stop at the same step.
        if not torch.isfinite(found["loss"] + norm):
            raise NotFinite(
                f"loss {found['loss'].item():g}, gradient norm {norm.item():g} in epoch {now.epoch + 1}, "
                f"step {now.step + 1}; people {batch.people.tolist()}"
            )
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update(self.net.module)
        return found

    def gradient(self, batch: Batch, now: Moment) -> dict[str, Tensor]:
        """Add the gradient of a batch, that of all processes' shares together; returns as `learn`."""
        stride = self.config.net.stride
        labels = Labels.of(batch, stride)
        cells = tuple(side // stride for side in labels.size)
        told = None if self.teacher is None else self.teacher(batch.images, cells)
        seen: list[Parts] = []

        def criterion(outputs: dict[str, Tensor]) -> Tensor:
            parts = self._shared(self.objective(outputs, labels, epoch=now.progress, told=told))
            seen.append(parts)
            return self.objective.total(parts)

        images, how = normalised(batch.images, self.config), self.config.distillation.netaug
        loss = netaug.backward(
            self.net,
            images,
            criterion,
            self._widths(now),
            alpha=0.0 if how is None else how.alpha,
            run_backward=self.fabric.backward,
        )
        self._share_gradients()
        return {"loss": loss, **{name: part.loss.detach() for name, part in seen[0].items()}}

    def start_epoch(self, now: Moment) -> None:
        """With NetAug, let the net own the channels that are important by now."""
        how, net = self.config.distillation.netaug, self.net.module
        if how is not None and how.sort and netaug.is_on(now.epoch / self.config.epochs, how.until):
            orders = net.channel_orders()
            net.reorder(orders, self.optimiser)
            self.average.net.reorder(orders)

    def plain(self, loader: Loader, epoch: int) -> nn.Module:
        """The average as it is measured and exported; its running statistics fit it.

        Args:
            loader: of training crops.
            epoch: whose crops are looked at.
        """
        how = self.config.distillation.netaug
        batches = (
            () if how is None else islice(loader.epoch(min(epoch, self.config.epochs - 1)), how.norm_batches)
        )
        crops = (normalised(batch.images, self.config) for batch in batches)
        return build.deployable(self.average.net, self.config, crops)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on to the last bit."""
        return {
            "net": self.net.module.state_dict(),
            "average": self.average.net.state_dict(),
            "average_steps": self.average.steps,
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state; one of an older run has no objective that learns."""
        self.net.module.load_state_dict(state["net"])
        self.average.net.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.objective.load_state_dict(state.get("objective", {}))
        self.optimiser.load_state_dict(state["optimiser"])

    def _widths(self, now: Moment) -> NetConfig | None:
        """The same for all processes, and after an interruption."""
        how, net = self.config.distillation.netaug, self.net.module
        if not isinstance(net, NetAug) or not netaug.is_on(now.progress / self.config.epochs, how.until):
            return None
        return net.draw(np.random.default_rng([self.config.seed, now.epoch, now.step, _WIDTHS]))

    def _shared(self, parts: Parts) -> Parts:
        """With means over the whole batch of which this process has a share."""
        world = self.fabric.world_size
        if world == 1:
            return parts
        own = torch.stack(
            [each.detach().float() for part in parts.values() for each in (part.weight, part.labelled)]
        )
        together = self.fabric.all_reduce(own, reduce_op="sum").reshape(-1, 2)
        return {
            name: part.shared(weight, labelled, world)
            for (name, part), (weight, labelled) in zip(parts.items(), together, strict=True)
        }

    def _share_gradients(self) -> None:
        """Of the objective; those of the net are shared on the way back."""
        learnt = list(self.objective.parameters())
        if self.fabric.world_size == 1 or not learnt:
            return
        here = torch.tensor([float(each.grad is not None) for each in learnt], device=self.fabric.device)
        there = self.fabric.all_reduce(here, reduce_op="sum").tolist()
        for parameter, count in zip(learnt, there, strict=True):
            if count:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.fabric.all_reduce(own, reduce_op="mean")
