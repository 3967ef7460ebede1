"""Begin a run with the weights of another: pre-train on made people, then fine-tune on photographs.

Weights are matched by name and shape. The trunk must fit as a whole; heads and decoders that do not (another skeleton,
another head) begin anew. What is carried over are the averaged weights, the ones that are measured and exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.checkpoint import RunFolder
from trainer.errors import ConfigError

TRUNK = ("stem.", "stages.")
"""Beginnings of the names of weights that must fit."""


def averaged(folder: RunFolder) -> dict[str, Tensor]:
    """The averaged weights of a run, of the plain net where it was trained inside another; CheckpointError."""
    state = folder.load_checkpoint()
    return state.get("plain", state["average"])


def carry_over(weights: dict[str, Tensor], *nets: nn.Module) -> list[str]:
    """Copy weights into nets of the same form.

    Args:
        weights: by name, as `averaged` gives them.
        nets: changed in place.

    Returns:
        Names of the nets' weights that stay as they are, because there are none of that name and shape.

    Raises:
        ConfigError: the trunk does not fit; the nets are left alone.
    """
    own = nets[0].state_dict()
    fresh = [name for name, value in own.items() if name not in weights or weights[name].shape != value.shape]
    wrong = next((name for name in fresh if name.startswith(TRUNK)), None)
    if wrong is not None or not any(name.startswith(TRUNK) for name in own):
        raise ConfigError(
            f"initial: that run's trunk has another shape or form than net.widths, net.blocks and net.form ({wrong})"
        )
    with torch.no_grad():
        for net in nets:
            for name, value in net.state_dict().items():
                if name not in fresh:
                    value.copy_(weights[name])
    return fresh
