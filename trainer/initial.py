"""Begin a run with the weights of another: pre-train on made people, then fine-tune on photographs; or grow a net.

Weights are matched by name and shape. The trunk must fit as a whole; heads and decoders that do not (another skeleton,
another head) begin anew. A wider net of the same blocks grows from a narrower one: the channels that there were go on
as they are, and at first take nothing from the new ones, which begin as drawn, so that the net answers what the narrow
one did (Net2Net, Chen et al., ICLR 2016, with zeros in place of copies). What is carried over are the averaged weights,
the ones that are measured and exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.checkpoint import RunFolder
from trainer.errors import ConfigError

TRUNK = ("stem.", "stages.")
"""Beginnings of the names of weights that must fit."""
WIDENED = (*TRUNK, "from", "lateral", "smooth")
"""Beginnings of the names of weights whose outputs may become more; those of others mean something, as a keypoint."""


def averaged(folder: RunFolder) -> dict[str, Tensor]:
    """The averaged weights of a run, of the plain net where it was trained inside another; CheckpointError."""
    state = folder.load_checkpoint()
    return state.get("plain", state["average"])


def carry_over(weights: dict[str, Tensor], *nets: nn.Module) -> list[str]:
    """Copy weights into nets of the same form, and of the same widths or wider.

    Args:
        weights: by name, as `averaged` gives them.
        nets: changed in place.

    Returns:
        Names of the nets' weights that stay as they are, because there are none of that name that fit.

    Raises:
        ConfigError: the trunk does not fit; the nets are left alone.
    """
    own = nets[0].state_dict()
    carried = {name: _grown(weights[name], value, name) for name, value in own.items() if name in weights}
    fresh = [name for name in own if carried.get(name) is None]
    wrong = next((name for name in fresh if name.startswith(TRUNK)), None)
    if wrong is not None or not any(name.startswith(TRUNK) for name in own):
        raise ConfigError(
            "initial: that run's trunk has another form than net.widths, net.blocks and net.form say, or is wider "
            f"({wrong})"
        )
    with torch.no_grad():
        for net in nets:
            for name, value in net.state_dict().items():
                if name not in fresh:
                    value.copy_(carried[name])
    return fresh


def _grown(weight: Tensor, drawn: Tensor, name: str) -> Tensor | None:
    """A weight of the shape that was drawn: (out, ...) or (out, in, ...); None where it does not fit into that."""
    if weight.shape == drawn.shape:
        return weight
    channels = weight.shape[:2]
    fits = weight.dim() == drawn.dim() and weight.shape[2:] == drawn.shape[2:]
    if not fits or any(old > new for old, new in zip(channels, drawn.shape[:2], strict=True)):
        return None
    if channels[0] < drawn.shape[0] and not name.startswith(WIDENED):
        return None
    grown = drawn.clone()
    if len(channels) == 2:
        grown[: channels[0], channels[1] :] = 0
    grown[tuple(slice(count) for count in channels)] = weight
    return grown
