"""Running average of a net's weights and buffers: what is measured and exported instead of the last step."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightEma:
    """A copy of the net that follows it slowly.

    Args:
        net: the net that is trained.
        decay: share of the old average that stays per step. The first steps use (1 + n) / (10 + n) where that
            is smaller, so that the random start is forgotten quickly.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.steps = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move towards the net's present weights; batch-norm statistics are averaged like weights."""
        self.steps += 1
        share = 1 - min(self._decay, (1 + self.steps) / (10 + self.steps))
        pairs = zip(self.net.state_dict().values(), net.state_dict().values(), strict=True)
        for average, now in pairs:
            if average.is_floating_point():
                average.lerp_(now, share)
            else:
                average.copy_(now)
