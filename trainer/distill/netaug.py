"""Network augmentation: a small net is trained as the leading channels of a wider one. NetAug.

The wider net holds all weights; the target net is the leading slice of every kernel and norm. A step adds the gradients
of two passes, L(target) + alpha * L(a wider slice), the second at widths that are drawn anew. A small net under-fits,
and the wider slices give it the gradients of a net that does not. For the last part of a run the second pass is left
out. The exported net is the target alone.

Slices are read by shape: every parameter and buffer of a net of given widths is the leading corner of the tensor of the
same name in the wider one. So any net that `NetConfig` describes can be augmented, in any training form.

Channels are sorted by the L1 norm of the kernels that read them, so that the target owns the important ones. That
changes nothing of what the wider net computes, but what the target computes: sort early, and not after the second pass
has been left out.

Running statistics are shared between slices too, so those that were collected fit no slice exactly: `exported`
estimates them anew on training crops.

Source: Cai et al., ICLR 2022, arXiv:2110.08890. Differs from its code: kernels are drawn as in the rest of this
project, and every channel is sorted, not only those inside blocks; widths are multiples of 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainer.nets.pose import NetConfig

Build = Callable[[NetConfig], nn.Module]
"""Makes a net of the given widths, for example `partial(PoseNet, keypoints=19)`."""
Orders = list[Tensor]
"""For each width of a net, `widths_of`, a permutation of its channels."""

DIVISOR = 8
"""Augmented widths are multiples of it."""


def widths_of(config: NetConfig) -> list[int]:
    """Every width of a net: stem, stages, decoder."""
    return [config.stem, *config.widths, *config.decoder]


def with_widths(config: NetConfig, widths: list[int]) -> NetConfig:
    """The same net with other widths, in the order of `widths_of`."""
    split = 1 + len(config.widths)
    return config.model_copy(
        update={"stem": widths[0], "widths": tuple(widths[1:split]), "decoder": tuple(widths[split:])}
    )


def widened(width: int, multiplier: float) -> int:
    """A width times a multiplier from 1 on, as a multiple of `DIVISOR`; 1 leaves it as it is."""
    return width if multiplier == 1 else max(width, round(width * multiplier / DIVISOR) * DIVISOR)


def is_on(progress: float, until: float = 0.5) -> bool:
    """Whether there is a second pass at a share of the run from 0 to 1."""
    return progress < until


class NetAug(nn.Module):
    """The wider net, and every narrower one inside it.

    Args:
        build: makes a net of given widths.
        config: the target's shape.
        multipliers: that each width is drawn from, each >= 1; the largest ones together are the wider net.
    """

    def __init__(
        self, build: Build, config: NetConfig, multipliers: tuple[float, ...] = (1.0, 1.8, 2.6)
    ) -> None:
        super().__init__()
        self.config, self.multipliers = config, multipliers
        widest = [widened(width, max(multipliers)) for width in widths_of(config)]
        self.net = build(with_widths(config, widest))
        self._build = build

    def draw(self, rng: np.random.Generator) -> NetConfig | None:
        """Widths of a step's second pass, each drawn on its own; None where they turn out to be the target's."""
        widths = widths_of(self.config)
        chosen = rng.choice(np.array(self.multipliers), len(widths))
        wider = [widened(*each) for each in zip(widths, chosen, strict=True)]
        return None if wider == widths else with_widths(self.config, wider)

    def forward(self, x: Tensor, config: NetConfig | None = None) -> Tensor:
        """What the slice of a shape answers; by default the target.

        In training, running statistics of the slice's channels move along.
        """
        shape = _hollow(self._build, config or self.config).train(self.training)
        return functional_call(shape, self._slice(shape), (x,))

    @torch.no_grad()
    def exported(self, crops: Iterable[Tensor] = ()) -> nn.Module:
        """The target as a net of its own, in the mode of this one.

        Args:
            crops: normalised training crops, a batch at a time; the running statistics are estimated on them. Without
                any they stay as they were collected.
        """
        net = self._build(self.config)
        like = next(self.parameters())
        net.to(like.device, like.dtype)
        persistent = net.state_dict()
        net.load_state_dict({name: value for name, value in self._slice(net).items() if name in persistent})
        net.train(self.training)
        estimate_norms(net, crops)
        return net

    @torch.no_grad()
    def channel_orders(self) -> Orders:
        """Channels of each width, those first whose readers have the largest L1 norm."""
        norms = [torch.zeros(width, dtype=torch.float64) for width in widths_of(self.net.config)]
        axes = _axes(self._build, self.config)
        for name, parameter in self.net.named_parameters():
            if parameter.ndim > 1 and (width := axes[name][1]) is not None:
                others = [axis for axis in range(parameter.ndim) if axis != 1]
                norms[width] += parameter.abs().sum(dim=others).cpu()
        return [norm.argsort(descending=True, stable=True) for norm in norms]

    @torch.no_grad()
    def reorder(self, orders: Orders, optimiser: torch.optim.Optimizer | None = None) -> None:
        """Put the channels of each width in another order; the wider net computes the same as before.

        Args:
            orders: of each width.
            optimiser: whose memory of the parameters, momentum and the like, is reordered with them. A running
                average of the weights is another `NetAug` to be given the same orders.
        """
        axes = _axes(self._build, self.config)
        memory = {} if optimiser is None else optimiser.state
        for name, value in (*self.net.named_parameters(), *self.net.named_buffers()):
            same = [each for each in memory.get(value, {}).values() if isinstance(each, Tensor)]
            for tensor in [value, *(each for each in same if each.shape == value.shape)]:
                for axis, width in enumerate(axes[name]):
                    if width is not None:
                        tensor.copy_(tensor.index_select(axis, orders[width].to(tensor.device)))

    def _slice(self, shape: nn.Module) -> dict[str, Tensor]:
        """The leading corner of every parameter and buffer that a net of that shape has."""
        whole = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        wanted = {**dict(shape.named_parameters()), **dict(shape.named_buffers())}
        return {name: whole[name][tuple(map(slice, like.shape))] for name, like in wanted.items()}


def backward(
    net: NetAug,
    images: Tensor,
    criterion: Callable[[Tensor], Tensor],
    augmented: NetConfig | None,
    *,
    alpha: float = 1.0,
    run_backward: Callable[[Tensor], None] = Tensor.backward,
) -> Tensor:
    """Add the gradients of a step: those of the target, then alpha times those of a wider slice.

    The first pass is done with before the second starts, so both never lie in memory together.

    Args:
        net: augmented or not, and wrapped for several processes or not.
        images: normalised crops.
        criterion: the net's answer -> scalar loss.
        augmented: of `NetAug.draw`; None leaves out the second pass.
        alpha: weight of the second pass.
        run_backward: how a loss is walked back.

    Returns:
        The target's loss, detached.
    """
    loss = criterion(net(images))
    run_backward(loss)
    if augmented is not None:
        run_backward(alpha * criterion(net(images, augmented)))
    return loss.detach()


@torch.no_grad()
def estimate_norms(net: nn.Module, crops: Iterable[Tensor]) -> None:
    """Replace the running statistics of all batch norms by the mean over the given batches; none changes nothing."""
    norms = [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    modes = {each: each.training for each in net.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    net.eval()
    for index, batch in enumerate(crops):
        for norm in norms if index == 0 else ():
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        net(batch)
    for norm in norms:
        norm.momentum = momenta[norm]
    for module, mode in modes.items():
        module.training = mode


@lru_cache(maxsize=128)
def _hollow(build: Build, config: NetConfig) -> nn.Module:
    """A net of a shape that holds no numbers."""
    with torch.device("meta"):
        return build(config)


@lru_cache(maxsize=8)
def _axes(build: Build, config: NetConfig) -> dict[str, list[int | None]]:
    """For each axis of each tensor of a net, which of `widths_of` it runs along, if any.

    Read off a hollow net whose widths are numbers that nothing else in a net is as large as.
    """
    first = 1_000_003
    count = len(widths_of(config))
    marked = _hollow(build, with_widths(config, [first + index for index in range(count)]))
    return {
        name: [length - first if length >= first else None for length in tensor.shape]
        for name, tensor in (*marked.named_parameters(), *marked.named_buffers())
    }
