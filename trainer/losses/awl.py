"""Automatic weighted loss: one learnt parameter per task balances the tasks of a net.

    total = sum_i [L_i / (2 p_i^2) + log(1 + p_i^2)],    p_i = 1 at first

The regulariser is positive, so the total of positive losses is too. For a constant L the parameter settles where
p^2 = (L + sqrt(L^2 + 8 L)) / 4. It is not always a gain over fixed weights: try it on a small set first.

The parameters belong into the optimiser, without weight decay: `parameter_groups`.

Source: Liebel and Koerner 2018, arXiv:1805.06334, after Kendall et al. 2018, arXiv:1705.07115. Differs from it:
p never counts as nearer to 0 than a bound allows, so no step can make a weight explode, and its gradient still pulls
it back; a negative loss (RLE's) is weighted but does not pull on its parameter, which would run to 0 and the total
to minus infinity; a task that a batch lacks leaves its parameter without a gradient, so that not even an optimiser's
momentum moves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.losses.masks import precise

LARGEST_WEIGHT = 1000.0
"""Highest weight of a task; it bounds |p| at sqrt(1 / 2000) = 0.022, which a loss of 5e-7 would settle at."""


def total(params: Tensor, losses: Tensor, *, largest_weight: float = LARGEST_WEIGHT) -> Tensor:
    """Weigh (n,) losses by (n,) parameters and add them up."""
    squares = _bounded(params, largest_weight).square()
    squares_of_positive = torch.where(losses < 0, squares.detach(), squares)
    return (losses / (2 * squares_of_positive) + torch.log1p(squares_of_positive)).sum()


class AutomaticWeightedLoss(nn.Module):
    """Weighted sum of named losses with learnt weights.

    Args:
        tasks: names of the losses.
        offsets: added to the loss of a task while it is weighted, for one that may be negative: its lowest value
            with the sign turned round. It changes how the weight is learnt, and nothing else of the gradient.
        largest_weight: bound of the weights.
    """

    def __init__(
        self,
        tasks: Iterable[str],
        *,
        offsets: Mapping[str, float] | None = None,
        largest_weight: float = LARGEST_WEIGHT,
    ) -> None:
        super().__init__()
        self.params = nn.ParameterDict({task: nn.Parameter(torch.ones(())) for task in tasks})
        self.offsets = dict(offsets or {})
        self.largest_weight = largest_weight
        if unknown := self.offsets.keys() - self.params.keys():
            raise ValueError(f"offsets of unknown tasks: {', '.join(sorted(unknown))}")

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Add up scalar losses by name. A task that is absent from this batch must be absent here.

        Raises:
            ValueError: a loss without a parameter, or no loss at all.
        """
        if not losses:
            raise ValueError("no loss to weigh")
        if unknown := losses.keys() - self.params.keys():
            raise ValueError(f"losses of unknown tasks: {', '.join(sorted(unknown))}")
        params = torch.stack([self.params[task] for task in losses])
        shifted = torch.stack([precise(loss) + self.offsets.get(task, 0.0) for task, loss in losses.items()])
        return total(params, shifted, largest_weight=self.largest_weight)

    def weights(self) -> dict[str, float]:
        """The factor 1 / (2 p^2) of each task, to log."""
        return {
            task: 1 / (2 * _bounded(param.detach(), self.largest_weight).square().item())
            for task, param in self.params.items()
        }


def parameter_groups(*losses: nn.Module) -> list[dict[str, Any]]:
    """Optimiser groups, without weight decay, of the parameters that losses learn; empty where there are none.

    Decay would draw p to 0 and a weight to its bound. For the flow of RLE it would be harmless.
    """
    params = [each for loss in losses for each in loss.parameters()]
    return [{"params": params, "weight_decay": 0.0}] if params else []


def _bounded(params: Tensor, largest_weight: float) -> Tensor:
    """Parameters at least as far from 0 as the largest weight asks, with the gradient of unbounded ones."""
    magnitude = params.abs().clamp(min=(2 * largest_weight) ** -0.5)
    return params + (torch.where(params < 0, -magnitude, magnitude) - params).detach()
