"""The pose net: a RepVGG stack down to stride 32, and a light decoder up to a heatmap at stride 16, 8 or 4.

Dense 3x3 convolutions with ReLU and widths in multiples of 16 run at a CPU's peak; the decoder is nearest-neighbour
doubling plus 1x1 lateral convolutions, because transposed convolutions cost far more than they bring.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from trainer.losses.integral import Mass
from trainer.nets.activations import ACTIVATIONS, ActivationName
from trainer.nets.reparam import FORMS, Form
from trainer.nets.repvgg import ConvNorm

INPUT_MULTIPLE = 32
"""Crop sides must be multiples of this: the deepest stage's stride."""
STRIDES = (16, 8, 4)
"""Of the decoder's steps."""


HeadName = Literal["softmax", "linear", "dsnt", "simcc", "regression", "rle"]
MAP_HEADS = ("softmax", "linear")
"""Heads that answer heatmaps; the others answer keypoints."""


class NetConfig(BaseModel):
    """Shape of the net."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    form: Form = "merged"
    """Training form of the blocks: `merged` is fast on a CPU, `branches` is RepVGG as published; `qarepvgg` keeps its
    accuracy in 8 bits, `mobileone` has more branches yet, `separable` is depthwise and pointwise, `plain` has none."""
    activation: ActivationName = "relu"
    """After every block and every sum of the decoder."""
    stem: PositiveInt = 16
    """Width of the first convolution, stride 2."""
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=4, max_length=4)] = (32, 48, 96, 128)
    """Widths of the stages at strides 4, 8, 16, 32."""
    blocks: Annotated[tuple[PositiveInt, ...], Field(min_length=4, max_length=4)] = (1, 2, 3, 2)
    """Blocks per stage; the first of each halves the resolution."""
    decoder: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=3)] = (64, 48)
    """Widths of the decoder at strides 16, 8 and 4; the last one is the stride of the heatmaps."""
    head: HeadName = "softmax"
    """`softmax`: maps are probabilities over the cells, trained by cross-entropy; `linear`: as they come, by MSE. The
    others answer keypoints: `dsnt` as expectations of maps, `simcc` as a class along each axis, `regression` and `rle`
    from pooled features without a decoder, `rle` with a density of its error."""
    dimensions: Literal[2, 3] = 2
    """3 adds depth; of heads dsnt, regression and rle."""
    depth_cells: PositiveInt = 16
    """dsnt in 3 dimensions: cells along z."""
    debiased: Mass | None = None
    """dsnt: the expectation is freed of its pull to the middle, by the sum of the map as published or by its mean, see
    `losses.integral`."""
    split_ratio: PositiveFloat = 2.0
    """simcc: bins per pixel."""
    depth: bool = False
    """Whether a further head says z of every keypoint, beside any keypoint head in 2 dimensions."""
    presence: bool = False
    """Whether a further head says if somebody is there."""
    handedness: bool = False
    """Whether a further head tells left hands from right ones."""
    classes: tuple[str, ...] = ()
    """Classes that a further head tells apart, gestures say; none without it."""

    @property
    def stride(self) -> int:
        """Pixels of the crop per cell of the heatmaps."""
        return INPUT_MULTIPLE >> len(self.decoder)

    @model_validator(mode="after")
    def _head_can_do_that(self) -> Self:
        if self.dimensions == 3 and self.head not in ("dsnt", "regression", "rle"):
            raise ValueError(f"dimensions: the {self.head} head has no depth; dsnt, regression and rle have")
        if self.dimensions == 3 and self.depth:
            raise ValueError("depth: with 3 dimensions the keypoint head says z already")
        if self.debiased is not None and (self.head != "dsnt" or self.dimensions == 3):
            raise ValueError("debiased: only the dsnt head in 2 dimensions is")
        if len(self.classes) == 1 or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: at least two different names, or none")
        return self


class PoseNet(nn.Module):
    """Normalised crops to one map of logits per keypoint.

    Args:
        config: the shape.
        keypoints: K.
    """

    def __init__(self, config: NetConfig, keypoints: int) -> None:
        super().__init__()
        self.config = config
        block = partial(FORMS[config.form], activation=config.activation)
        self.stem = block(3, config.stem, stride=2, point=False)
        stages, cin = [], config.stem
        for width, count in zip(config.widths, config.blocks, strict=True):
            first = block(cin, width, stride=2)
            stages.append(nn.Sequential(first, *(block(width, width) for _ in range(count - 1))))
            cin = width
        self.stages = nn.ModuleList(stages)
        above = config.widths[-1]
        for stride, beside, width in zip(STRIDES, config.widths[-2::-1], config.decoder, strict=False):
            self.add_module(f"from{2 * stride}", ConvNorm(above, width))
            self.add_module(f"lateral{stride}", ConvNorm(beside, width))
            self.add_module(f"smooth{stride}", block(width, width))
            above = width
        self.head = nn.Conv2d(above, keypoints, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) normalised crops -> (B, K, h / stride, w / stride) logits; h and w multiples of 32."""
        return self.head(self.features(self.trunk(x)))

    def trunk(self, x: Tensor) -> list[Tensor]:
        """(B, 3, h, w) normalised crops -> the outputs of all stages but the last, at strides 4, 8 and 16."""
        y, levels = self.stem(x), []
        for stage in self.stages[:-1]:
            y = stage(y)
            levels.append(y)
        return levels

    def features(self, levels: list[Tensor]) -> Tensor:
        """What `trunk` gives -> (B, narrow, h / stride, w / stride), by the last stage and the decoder."""
        return self.decoded(levels, self.stages[-1](levels[-1]))

    def decoded(self, levels: list[Tensor], at32: Tensor) -> Tensor:
        """What `trunk` gives, and the last stage's output -> (B, narrow, h / stride, w / stride)."""
        y = at32
        for stride, beside, _ in zip(STRIDES, reversed(levels), self.config.decoder, strict=False):
            above, lateral = getattr(self, f"from{2 * stride}"), getattr(self, f"lateral{stride}")
            y = getattr(self, f"smooth{stride}")(self.activation(_doubled(above(y)) + lateral(beside)))
        return y


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def heatmaps(logits: Tensor, head: str, sigma_cells: float) -> Tensor:
    """(B, K, H, W) logits -> maps whose best possible peak is 1, the form that decoders read.

    A softmax head was trained towards a Gaussian that sums to 1; its peak is 1 / (2 pi sigma^2).
    """
    if head == "linear":
        return logits
    return logits.flatten(2).softmax(-1).view_as(logits) * (2 * math.pi * sigma_cells**2)


def multiply_adds(net: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of all convolutions and linear layers for one (3, height, width) crop."""
    total = 0

    def count(module: nn.Conv2d | nn.Linear, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    counted = [each for each in net.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [each.register_forward_hook(count) for each in counted]
    parameter = next(net.parameters())
    with torch.inference_mode():
        net(torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype))
    for hook in hooks:
        hook.remove()
    return total
