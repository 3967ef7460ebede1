"""Further training forms of a block that become plain convolutions when deployed; see `repvgg` for the first two.

- `qarepvgg`: y = act(BN(BN(W3 * x) + W1 * x + x)). Only the dense branch is normalised before the sum: no norm of a
  nearly constant channel can blow up the fused weights beyond what 8 bits can hold. Source: Chu et al., AAAI 2024,
  arXiv:2212.01593.
- `mobileone`: k dense branches, one of 1x1 and the input itself, each with its batch norm. Source: Vasu et al., CVPR
  2023, arXiv:2206.04040.
- `separable`: the block as MobileOne stacks it, depthwise and then pointwise, either over-parameterised so.
- `plain`: one convolution and its batch norm in training too; what the other forms are measured against.
"""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor, nn

from trainer.nets.activations import ActivationName
from trainer.nets.repvgg import Block, BranchBlock, MergedBlock, Shape, drawn_kernel, fold_norm

Form = Literal["branches", "merged", "qarepvgg", "mobileone", "separable", "plain"]


class QuantisableBlock(Block):
    """QARepVGG: plain 1x1 and identity branches, and one more batch norm after the sum."""

    def __init__(self, cin: int, cout: int, **shape: Unpack[Shape]) -> None:
        super().__init__(cin, cout, **shape)
        self.dense_norm = nn.BatchNorm2d(cout)
        self.norm = nn.BatchNorm2d(cout)

    def summed(self, x: Tensor) -> Tensor:
        """See `Block.summed`."""
        y = self.dense_norm(self.convolved(x, self.dense_weight))
        if self.point_weight is not None:
            y = y + self.convolved(x, self.point_weight)
        if self.has_identity:
            y = y + x
        return self.norm(y)

    def fused(self) -> tuple[Tensor, Tensor]:
        """See `Block.fused`."""
        kernel, inner_bias = fold_norm(self.dense_weight, self.dense_norm)
        if self.point_weight is not None:
            kernel = kernel + self.centred(self.point_weight)
        if self.has_identity:
            kernel = kernel + self.same()
        return fold_norm(kernel, self.norm, inner_bias)


class OverparameterisedBlock(BranchBlock):
    """MobileOne: `BranchBlock` with more dense branches; pointwise with `size=1`, which has no 1x1 branch beside them.

    Args:
        cin, cout: channels in and out.
        branches: k, dense branches in all.
        shape: see `Shape`.
    """

    def __init__(self, cin: int, cout: int, *, branches: int = 4, **shape: Unpack[Shape]) -> None:
        if shape.get("size", 3) == 1:
            shape["point"] = False
        super().__init__(cin, cout, **shape)
        inner, size = self.dense_weight.shape[1:3]
        self.more_weights = nn.ParameterList(drawn_kernel(cout, inner, size) for _ in range(branches - 1))
        self.more_norms = nn.ModuleList(nn.BatchNorm2d(cout) for _ in range(branches - 1))

    def summed(self, x: Tensor) -> Tensor:
        """See `Block.summed`."""
        y = super().summed(x)
        for weight, norm in zip(self.more_weights, self.more_norms, strict=True):
            y = y + norm(self.convolved(x, weight))
        return y

    def fused(self) -> tuple[Tensor, Tensor]:
        """See `Block.fused`."""
        kernel, bias = super().fused()
        for weight, norm in zip(self.more_weights, self.more_norms, strict=True):
            more, shift = fold_norm(weight, norm)
            kernel, bias = kernel + more, bias + shift
        return kernel, bias


class SeparableBlock(nn.Sequential):
    """A depthwise and a pointwise block; deployed it is two plain convolutions, each with its activation.

    With stride 2 neither has its input as a branch, even where widths are equal by chance: the branches of a net do not
    depend on its widths.

    Args:
        cin, cout: channels in and out.
        stride: of the depthwise block.
        point: whether the depthwise block has a 1x1 branch.
        activation: of both.
        branches: dense branches of each.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        *,
        stride: int = 1,
        point: bool = True,
        activation: ActivationName = "relu",
        branches: int = 4,
    ) -> None:
        super().__init__(
            OverparameterisedBlock(
                cin, cin, stride=stride, groups=cin, point=point, activation=activation, branches=branches
            ),
            OverparameterisedBlock(
                cin, cout, size=1, activation=activation, branches=branches, identity=stride == 1
            ),
        )


class DenseBlock(MergedBlock):
    """No branches: takes the same `Shape`, and has neither the 1x1 branch nor the input itself as one."""

    def __init__(self, cin: int, cout: int, **shape: Unpack[Shape]) -> None:
        super().__init__(cin, cout, **(shape | {"point": False, "identity": False}))


FORMS: dict[Form, type[nn.Module]] = {
    "branches": BranchBlock,
    "merged": MergedBlock,
    "qarepvgg": QuantisableBlock,
    "mobileone": OverparameterisedBlock,
    "separable": SeparableBlock,
    "plain": DenseBlock,
}
"""Every training form. Made from channels in, channels out, `stride`, `point` and `activation`; `repvgg.deployed` turns
each into plain convolutions."""
