"""Activations: Mish and its piecewise approximations, by name.

| name         | formula                          | minimum              |
| ------------ | -------------------------------- | -------------------- |
| relu         | max(0, x)                        | 0                    |
| mish         | x tanh(softplus x)               | -0.30884 at -1.19243 |
| hard_mish    | x clip(x / 2 + 1, 0, 1)          | -0.5 at -1           |
| hard_swish   | x clip(x / 6 + 1/2, 0, 1)        | -0.375 at -1.5       |
| hard_sigmoid | clip(x / 6 + 1/2, 0, 1)          | 0                    |

They are not interchangeable: HardMish differs from Mish by up to 0.253, from HardSwish by up to 0.375.

Mish, HardMish and HardSigmoid keep nothing but their input for the backward pass and compute the derivative from it, so
they have no in-place form: it would have to copy the input first. HardMish is exported as x * HardSigmoid(alpha=0.5,
beta=1), the form that ONNX Runtime fuses; HardSwish is one node of its own.

Sources: Misra, BMVC 2020, arXiv:1908.08681 (Mish); Howard et al., ICCV 2019, arXiv:1905.02244 (HardSwish).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

ActivationName = Literal["relu", "mish", "hard_mish", "hard_swish", "hard_sigmoid"]

_Context = Any
"""Torch leaves the type of a function's context and of the exporter's graph open."""


def _wide(x: Tensor) -> Tensor:
    """In at least 32 bits: the derivative of Mish subtracts numbers close to each other."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.tanh(
            functional.softplus(x)
        )  # softplus(x) is x above 20: no overflow in half precision

    @staticmethod
    def backward(ctx: _Context, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        wide = _wide(x)
        gate = torch.tanh(functional.softplus(wide))
        return gradient * (gate + wide * (1 - gate * gate) * torch.sigmoid(wide)).to(x.dtype)

    @staticmethod
    def symbolic(graph: _Context, x: _Context) -> _Context:
        return graph.op("Mul", x, graph.op("Tanh", graph.op("Softplus", x))).setType(x.type())


class _HardMish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.clamp(0.5 * x + 1, 0, 1)

    @staticmethod
    def backward(ctx: _Context, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * torch.where(x < -2, 0.0, torch.clamp(x + 1, max=1))

    @staticmethod
    def symbolic(graph: _Context, x: _Context) -> _Context:
        gate = graph.op("HardSigmoid", x, alpha_f=0.5, beta_f=1.0)
        return graph.op("Mul", x, gate).setType(x.type())


class _HardSigmoid(torch.autograd.Function):
    """Torch's own derivative holds 1/6 in single precision, whatever the type of x."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return functional.hardsigmoid(x)

    @staticmethod
    def backward(ctx: _Context, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() < 3, gradient / 6, 0.0)

    @staticmethod
    def symbolic(graph: _Context, x: _Context) -> _Context:
        return graph.op("HardSigmoid", x, alpha_f=1 / 6, beta_f=0.5).setType(x.type())


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus x), of any shape; finite for every finite x in every floating type."""
    return _Mish.apply(x)


def hard_mish(x: Tensor) -> Tensor:
    """(x / 2) min(2, max(0, x + 2)), of any shape: 0 up to -2, x from 0 on; its derivative at -2 is -1."""
    return _HardMish.apply(x)


def hard_swish(x: Tensor) -> Tensor:
    """x ReLU6(x + 3) / 6, of any shape: 0 up to -3, x from 3 on."""
    return functional.hardswish(x)


def hard_sigmoid(x: Tensor) -> Tensor:
    """ReLU6(x + 3) / 6, of any shape."""
    return _HardSigmoid.apply(x)


class Mish(nn.Module):
    """See `mish`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return mish(x)


class HardMish(nn.Module):
    """See `hard_mish`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return hard_mish(x)


class HardSigmoid(nn.Module):
    """See `hard_sigmoid`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return hard_sigmoid(x)


ACTIVATIONS: dict[ActivationName, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "mish": Mish,
    "hard_mish": HardMish,
    "hard_swish": partial(nn.Hardswish, inplace=True),
    "hard_sigmoid": HardSigmoid,
}
"""Makes each activation anew. Those that have an in-place form write into their input."""
