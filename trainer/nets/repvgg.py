"""RepVGG blocks: three branches in training, one convolution when deployed.

Two training forms behind one interface:

- `branches`: y = act(BN(W3 * x) + BN(W1 * x) + BN(x)), as published. Source: Ding et al., CVPR 2021, arXiv:2101.03697.
- `merged`: the kernels are summed BEFORE one convolution and one BN: y = act(BN((W3 + pad(W1) + diag(g)) * x)).
  Several times faster to train on a CPU. Source of the idea: online re-parameterisation, Hu et al., CVPR 2022.

`fused()` gives the one kernel and bias that compute the same in inference; `deployed()` a copy of a whole net with
every block replaced by its plain convolution. The original is never touched.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Form = Literal["branches", "merged"]


def fold_norm(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a bias-free convolution followed by a batch norm in inference mode."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return kernel * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale


def identity_kernel(channels: int, groups: int, size: int = 3) -> Tensor:
    """The (C, C / groups, size, size) kernel that leaves its input as it is."""
    inner = channels // groups
    kernel = torch.zeros(channels, inner, size, size)
    index = torch.arange(channels)
    kernel[index, index % inner, size // 2, size // 2] = 1.0
    return kernel


class PlainBlock(nn.Sequential):
    """The deployed form: one convolution with a bias, then the activation."""


class Block(nn.Module):
    """What both training forms share: the shape of the convolution and the way out of training.

    Args:
        cin, cout: channels in and out.
        stride: 1 or 2.
        groups: of the convolution.
        point: whether there is a 1x1 branch. A net's first block goes without: it gains little on three channels,
            and torch 2.13's CPU backward of a channels_last 1x1 stride-2 convolution on 3..8 channels crashes.
    """

    def __init__(self, cin: int, cout: int, *, stride: int = 1, groups: int = 1, point: bool = True) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        self.dense_weight = nn.Parameter(torch.empty(cout, cin // groups, 3, 3))
        nn.init.kaiming_normal_(self.dense_weight, mode="fan_out", nonlinearity="relu")
        if point:
            self.point_weight = nn.Parameter(torch.empty(cout, cin // groups, 1, 1))
            nn.init.kaiming_normal_(self.point_weight, mode="fan_out", nonlinearity="relu")
        else:
            self.point_weight = None
        self.has_identity = cin == cout and stride == 1
        self.activation = nn.ReLU(inplace=True)

    def fused(self) -> tuple[Tensor, Tensor]:
        """(cout, cin / groups, 3, 3) kernel and (cout,) bias that compute the same in inference mode."""
        raise NotImplementedError

    @torch.no_grad()
    def deployed(self) -> PlainBlock:
        """A plain block with equal output in inference mode; shares nothing with this one."""
        kernel, bias = self.fused()
        cout, inner = kernel.shape[:2]
        convolution = nn.Conv2d(inner * self.groups, cout, 3, self.stride, 1, groups=self.groups)
        convolution.to(kernel.device, kernel.dtype)
        convolution.weight.copy_(kernel)
        convolution.bias.copy_(bias)
        return PlainBlock(convolution, copy.deepcopy(self.activation)).train(self.training)


class BranchBlock(Block):
    """The published block: every branch has its own batch norm."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1, groups: int = 1, point: bool = True) -> None:
        super().__init__(cin, cout, stride=stride, groups=groups, point=point)
        self.dense_norm = nn.BatchNorm2d(cout)
        self.point_norm = nn.BatchNorm2d(cout) if point else None
        self.identity_norm = nn.BatchNorm2d(cout) if self.has_identity else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H / stride, W / stride)."""
        y = self.dense_norm(functional.conv2d(x, self.dense_weight, None, self.stride, 1, 1, self.groups))
        if self.point_norm is not None:
            y = y + self.point_norm(
                functional.conv2d(x, self.point_weight, None, self.stride, 0, 1, self.groups)
            )
        if self.identity_norm is not None:
            y = y + self.identity_norm(x)
        return self.activation(y)

    def fused(self) -> tuple[Tensor, Tensor]:
        """See `Block.fused`."""
        kernel, bias = fold_norm(self.dense_weight, self.dense_norm)
        if self.point_norm is not None:
            point, shift = fold_norm(self.point_weight, self.point_norm)
            kernel, bias = kernel + functional.pad(point, [1, 1, 1, 1]), bias + shift
        if self.identity_norm is not None:
            same = identity_kernel(len(bias), self.groups).to(kernel)
            same, shift = fold_norm(same, self.identity_norm)
            kernel, bias = kernel + same, bias + shift
        return kernel, bias


class MergedBlock(Block):
    """Branches summed into one kernel on the fly: one convolution and one batch norm per step."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1, groups: int = 1, point: bool = True) -> None:
        super().__init__(cin, cout, stride=stride, groups=groups, point=point)
        self.norm = nn.BatchNorm2d(cout)
        if self.has_identity:
            self.identity_scale = nn.Parameter(torch.ones(cout))
            self.register_buffer("identity", identity_kernel(cout, groups), persistent=False)
        else:
            self.identity_scale = None

    def kernel(self) -> Tensor:
        """The sum of the branches: (cout, cin / groups, 3, 3)."""
        kernel = self.dense_weight
        if self.point_weight is not None:
            kernel = kernel + functional.pad(self.point_weight, [1, 1, 1, 1])
        if self.identity_scale is not None:
            kernel = kernel + self.identity * self.identity_scale.view(-1, 1, 1, 1)
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H / stride, W / stride)."""
        y = functional.conv2d(x, self.kernel(), None, self.stride, 1, 1, self.groups)
        return self.activation(self.norm(y))

    def fused(self) -> tuple[Tensor, Tensor]:
        """See `Block.fused`."""
        return fold_norm(self.kernel(), self.norm)


FORMS: dict[Form, type[Block]] = {"branches": BranchBlock, "merged": MergedBlock}


class ConvNorm(nn.Module):
    """A bias-free convolution and its batch norm, folded into one when deployed."""

    def __init__(self, cin: int, cout: int, size: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(cin, cout, size, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H, W)."""
        return self.norm(self.convolution(x))

    @torch.no_grad()
    def deployed(self) -> nn.Conv2d:
        """One convolution with equal output in inference mode."""
        kernel, bias = fold_norm(self.convolution.weight, self.norm)
        plain = nn.Conv2d(kernel.shape[1], len(bias), kernel.shape[2], padding=self.convolution.padding)
        plain.to(kernel.device, kernel.dtype)
        plain.weight.copy_(kernel)
        plain.bias.copy_(bias)
        return plain.train(self.training)


def deployed(net: nn.Module) -> nn.Module:
    """A copy of a net with every block in its deployed form. Applied twice it changes nothing more."""
    return _replace(copy.deepcopy(net))


def _replace(module: nn.Module) -> nn.Module:
    if isinstance(module, Block | ConvNorm):
        return module.deployed()
    for name, child in module.named_children():
        setattr(module, name, _replace(child))
    return module
