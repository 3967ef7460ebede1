"""RepVGG blocks: three branches in training, one convolution when deployed.

Two training forms behind one interface, and more of them in `reparam`:

- `branches`: y = act(BN(W3 * x) + BN(W1 * x) + BN(x)), as published. Source: Ding et al., CVPR 2021, arXiv:2101.03697.
- `merged`: the kernels are summed BEFORE one convolution and one BN: y = act(BN((W3 + pad(W1) + diag(g)) * x)).
  Several times faster to train on a CPU. Source of the idea: online re-parameterisation, Hu et al., CVPR 2022.

`fused()` gives the one kernel and bias that compute the same in inference; `deployed()` a copy of a whole net with
every block replaced by its plain convolution. The original is never touched.
"""

from __future__ import annotations

import copy
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.nets.activations import ACTIVATIONS, ActivationName


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    return norm.weight / torch.sqrt(norm.running_var + norm.eps)


def fold_norm(kernel: Tensor, norm: nn.BatchNorm2d, bias: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution, itself with a (cout,) bias or none, followed by a norm in inference mode."""
    scale = _scale(norm)
    return kernel * scale.view(-1, 1, 1, 1), norm.bias + (bias - norm.running_mean) * scale


def drawn_kernel(cout: int, inner: int, size: int) -> nn.Parameter:
    """A (cout, inner, size, size) kernel as a block starts with."""
    kernel = nn.Parameter(torch.empty(cout, inner, size, size))
    nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu")
    return kernel


def identity_kernel(channels: int, groups: int, size: int = 3) -> Tensor:
    """The (C, C / groups, size, size) kernel that leaves its input as it is."""
    inner = channels // groups
    kernel = torch.zeros(channels, inner, size, size)
    index = torch.arange(channels)
    kernel[index, index % inner, size // 2, size // 2] = 1.0
    return kernel


class PlainBlock(nn.Sequential):
    """The deployed form: one convolution with a bias, then the activation."""


class Shape(TypedDict, total=False):
    """What a block may be told beyond its channels."""

    stride: int
    """1 or 2; 1 where it is not given."""
    groups: int
    """Of the convolution; 1 where it is not given."""
    point: bool
    """Whether there is a 1x1 branch; there is where it is not given. A net's first block goes without: it gains little
    on three channels, and torch 2.13's CPU backward of a channels_last 1x1 stride-2 convolution on 3..8 channels
    crashes."""
    activation: ActivationName
    """After the sum of the branches; ReLU where it is not given."""
    size: int
    """Side of the kernel, odd; 3 where it is not given."""
    identity: bool
    """Whether the input itself is a branch where it has the shape of the output; it is where this is not given."""


class Block(nn.Module):
    """What all training forms share: the shape of the convolution and the way out of training.

    Args:
        cin, cout: channels in and out.
        stride, groups, point, activation, size, identity: see `Shape`.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        *,
        stride: int = 1,
        groups: int = 1,
        point: bool = True,
        activation: ActivationName = "relu",
        size: int = 3,
        identity: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.groups, self.size = stride, groups, size
        self.dense_weight = drawn_kernel(cout, cin // groups, size)
        self.point_weight = drawn_kernel(cout, cin // groups, 1) if point else None
        self.has_identity = identity and cin == cout and stride == 1
        self.activation = ACTIVATIONS[activation]()

    def summed(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H / stride, W / stride): the branches together, before the activation."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H / stride, W / stride)."""
        return self.activation(self.summed(x))

    def fused(self) -> tuple[Tensor, Tensor]:
        """(cout, cin / groups, size, size) kernel and (cout,) bias that compute `summed` in inference mode."""
        raise NotImplementedError

    def convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The block's convolution with a kernel of any odd side."""
        return functional.conv2d(x, kernel, None, self.stride, kernel.shape[-1] // 2, 1, self.groups)

    def centred(self, kernel: Tensor) -> Tensor:
        """A 1x1 kernel as the middle of one of the block's size."""
        return functional.pad(kernel, [self.size // 2] * 4)

    def same(self) -> Tensor:
        """The kernel of the block's size that leaves its input as it is."""
        channels = len(self.dense_weight)
        return identity_kernel(channels, self.groups, self.size).to(self.dense_weight)

    @torch.no_grad()
    def deployed(self) -> PlainBlock:
        """A plain block with equal output in inference mode; shares nothing with this one."""
        kernel, bias = self.fused()
        cout, inner = kernel.shape[:2]
        convolution = nn.Conv2d(
            inner * self.groups, cout, self.size, self.stride, self.size // 2, groups=self.groups
        )
        convolution.to(kernel.device, kernel.dtype)
        convolution.weight.copy_(kernel)
        convolution.bias.copy_(bias)
        return PlainBlock(convolution, copy.deepcopy(self.activation)).train(self.training)


class BranchBlock(Block):
    """The published block: every branch has its own batch norm."""

    def __init__(self, cin: int, cout: int, **shape: Unpack[Shape]) -> None:
        super().__init__(cin, cout, **shape)
        self.dense_norm = nn.BatchNorm2d(cout)
        self.point_norm = None if self.point_weight is None else nn.BatchNorm2d(cout)
        self.identity_norm = nn.BatchNorm2d(cout) if self.has_identity else None

    def summed(self, x: Tensor) -> Tensor:
        """See `Block.summed`."""
        y = self.dense_norm(self.convolved(x, self.dense_weight))
        if self.point_norm is not None:
            y = y + self.point_norm(self.convolved(x, self.point_weight))
        if self.identity_norm is not None:
            y = y + self.identity_norm(x)
        return y

    def fused(self) -> tuple[Tensor, Tensor]:
        """See `Block.fused`."""
        kernel, bias = fold_norm(self.dense_weight, self.dense_norm)
        if self.point_norm is not None:
            point, shift = fold_norm(self.point_weight, self.point_norm)
            kernel, bias = kernel + self.centred(point), bias + shift
        if self.identity_norm is not None:
            same, shift = fold_norm(self.same(), self.identity_norm)
            kernel, bias = kernel + same, bias + shift
        return kernel, bias

    def custom_l2(self) -> Tensor:
        """The published block's optional weight penalty: the squared kernel, its centre as the branches fuse there.

        A scalar, to be used in place of weight decay on the two kernels. Its author later called the gain
        insignificant. A block without 1x1 branch has only its one kernel there.
        """
        kernel = self.dense_weight
        middle = self.size // 2
        centre = kernel[:, :, middle : middle + 1, middle : middle + 1]
        around = kernel.square().sum() - centre.square().sum()
        if self.point_norm is None:
            return around + centre.square().sum()
        scales = [_scale(norm).detach().view(-1, 1, 1, 1) for norm in (self.dense_norm, self.point_norm)]
        fused = centre * scales[0] + self.point_weight * scales[1]
        return around + (fused.square() / (scales[0].square() + scales[1].square())).sum()


class MergedBlock(Block):
    """Branches summed into one kernel on the fly: one convolution and one batch norm per step."""

    def __init__(self, cin: int, cout: int, **shape: Unpack[Shape]) -> None:
        super().__init__(cin, cout, **shape)
        self.norm = nn.BatchNorm2d(cout)
        if self.has_identity:
            self.identity_scale = nn.Parameter(torch.ones(cout))
            self.register_buffer("identity", self.same().detach(), persistent=False)
        else:
            self.identity_scale = None

    def kernel(self) -> Tensor:
        """The sum of the branches: (cout, cin / groups, size, size)."""
        kernel = self.dense_weight
        if self.point_weight is not None:
            kernel = kernel + self.centred(self.point_weight)
        if self.identity_scale is not None:
            kernel = kernel + self.identity * self.identity_scale.view(-1, 1, 1, 1)
        return kernel

    def summed(self, x: Tensor) -> Tensor:
        """See `Block.summed`."""
        return self.norm(self.convolved(x, self.kernel()))

    def fused(self) -> tuple[Tensor, Tensor]:
        """See `Block.fused`."""
        return fold_norm(self.kernel(), self.norm)


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
