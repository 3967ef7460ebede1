"""What the tests of the losses share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.losses.rle import RealNVP


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors of these tests are too small to be worth a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden_case(golden: Callable[[str], dict[str, np.ndarray]]) -> Callable[[str, int], dict[str, Tensor]]:
    """The numbers of one case of one technique as tensors, without their `case{i}_`."""

    def load(name: str, case: int) -> dict[str, Tensor]:
        prefix = f"case{case}_"
        return {
            key.removeprefix(prefix): torch.from_numpy(np.asarray(value))
            for key, value in golden(name).items()
            if key.startswith(prefix)
        }

    return load


@pytest.fixture(scope="session")
def golden_flow(golden: Callable[[str], dict[str, np.ndarray]]) -> Callable[..., RealNVP]:
    """A float64 flow with the golden weights, or with all of them 0."""

    def make(*, zero: bool = False) -> RealNVP:
        numbers = {key: torch.from_numpy(np.asarray(value)) for key, value in golden("rle").items()}
        flow = RealNVP(numbers["flow_masks"].int().tolist()).double()
        with torch.no_grad():
            for kind, nets in (("s", flow.scales), ("t", flow.shifts)):
                for coupling, net in enumerate(nets):
                    layers = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
                    for depth, layer in enumerate(layers):
                        layer.weight.copy_(numbers[f"flow_{kind}_w{depth}"][coupling])
                        layer.bias.copy_(numbers[f"flow_{kind}_b{depth}"][coupling])
            for parameter in flow.parameters():
                parameter.mul_(0.0 if zero else 1.0)
        return flow

    return make
