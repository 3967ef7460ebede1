"""Heads: what turns a feature map into named outputs.

Axes: B crops, C channels, H x W cells of the feature map, K keypoints. Every head takes (B, C, H, W) features and
returns a dict; `outputs` lists its keys. Keypoint heads give `points` where they can, in the unit that their loss
takes, and `scores` (B, K) from 0 to 1. Presence and class heads give logits. Several heads on one map are a
`MultiHead`.

Heads of pooled features (regression, presence, class, depth) see the whole crop; the others stay local and need no
pooling, so they can sit on any stride.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from trainer.losses import dsnt, rle

Outputs = dict[str, Tensor]
"""Tensors by name."""
_SMALLEST_NORM = 1e-6
"""A feature shorter than this is divided by this, so that a dead one has no huge gradient."""


class Head(nn.Module):
    """A part of a net that reads (B, C, H, W) features."""

    outputs: tuple[str, ...]
    """Names of what `forward` returns."""

    def forward(self, features: Tensor) -> Outputs:
        """(B, C, H, W) features -> named outputs."""
        raise NotImplementedError


class HeatmapHead(Head):
    """One map of logits per keypoint; losses in `losses.heatmap`.

    Args:
        channels: C.
        keypoints: K.
    """

    outputs = ("heatmaps",)

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.maps = _small(nn.Conv2d(channels, keypoints, 1))

    def forward(self, features: Tensor) -> Outputs:
        """`heatmaps` (B, K, H, W), logits."""
        return {"heatmaps": self.maps(features)}


class DSNTHead(Head):
    """Coordinates as the expectation of a map or volume; losses in `losses.dsnt` and `losses.integral`.

    Args:
        channels: C.
        keypoints: K.
        depth: cells along z of a volume; None for maps.
    """

    outputs = ("logits", "points", "scores")

    def __init__(self, channels: int, keypoints: int, *, depth: int | None = None) -> None:
        super().__init__()
        self.keypoints, self.depth = keypoints, depth
        self.maps = _small(nn.Conv2d(channels, keypoints * (depth or 1), 1))

    def forward(self, features: Tensor) -> Outputs:
        """Logits before the softmax, the points they say, and how sure they are.

        Returns:
            `logits` (B, K, H, W) or (B, K, depth, H, W); `points` (B, K, 2 or 3), normalised as in `losses.dsnt`;
            `scores` (B, K): the probability of the likeliest cell.
        """
        logits = self.maps(features)
        if self.depth is not None:
            batch, _, height, width = logits.shape
            logits = logits.view(batch, self.keypoints, self.depth, height, width)
        probabilities = dsnt.softmax(logits)
        return {
            "logits": logits,
            "points": dsnt.expectation(probabilities),
            "scores": probabilities.flatten(2).amax(-1),
        }


class SimCCHead(Head):
    """Each coordinate as a classification of its axis, without upsampling; loss in `losses.simcc`.

    A wide convolution to K channels, each flattened to a vector, normalised and mixed by one hidden layer, as in
    RTMPose (arXiv:2303.07399) without its attention between keypoints.

    Args:
        channels: C.
        keypoints: K.
        cells: (H, W) of the feature map; fixed.
        size: (height, width) of the crop in pixels.
        split_ratio: bins per pixel.
        kernel: side of the convolution, odd.
        hidden: width of the hidden layer.
    """

    outputs = ("simcc_x", "simcc_y")

    def __init__(
        self,
        channels: int,
        keypoints: int,
        cells: tuple[int, int],
        size: tuple[int, int],
        *,
        split_ratio: float = 2.0,
        kernel: int = 7,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        height, width = (round(pixels * split_ratio) for pixels in size)
        self.maps = nn.Conv2d(channels, keypoints, kernel, padding=kernel // 2)
        self.mix = nn.Sequential(
            nn.LayerNorm(math.prod(cells)), nn.Linear(math.prod(cells), hidden, bias=False), nn.ReLU()
        )
        self.x, self.y = nn.Linear(hidden, width, bias=False), nn.Linear(hidden, height, bias=False)

    def forward(self, features: Tensor) -> Outputs:
        """`simcc_x` (B, K, split_ratio width) and `simcc_y` (B, K, split_ratio height), logits."""
        mixed = self.mix(self.maps(features).flatten(2))
        return {"simcc_x": self.x(mixed), "simcc_y": self.y(mixed)}


class RegressionHead(Head):
    """Coordinates from pooled features; losses in `losses.regression` and `losses.rle`.

    With a normalised feature, points are W f / |f| + b, as RLE has it (ICCV 2021), so their range does not depend on
    the size of the feature; scales are W' f + b', of the feature as it is.

    Args:
        channels: C.
        keypoints: K.
        dimensions: D, 2 or 3.
        scale: what is learnt beside the point. `sigma`: a logit whose sigmoid is sigma, for RLE; `log`: a log-scale,
            for the likelihoods of `losses.regression`; None: nothing.
        normalise: divide the feature by its norm for the points.
    """

    def __init__(
        self,
        channels: int,
        keypoints: int,
        *,
        dimensions: int = 2,
        scale: Literal["sigma", "log"] | None = "sigma",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.shape, self.normalise = (keypoints, dimensions), normalise
        self.points = _nearly_zero(nn.Linear(channels, keypoints * dimensions))
        self.scales = _nearly_zero(nn.Linear(channels, keypoints * dimensions)) if scale else None
        extra = {"sigma": ("sigma_logits", "scores"), "log": ("log_scales",), None: ()}
        self.outputs = ("points", *extra[scale])

    def forward(self, features: Tensor) -> Outputs:
        """Points about 0, the centre of the crop, and what belongs to their scale.

        Returns:
            `points` (B, K, D), meant as x / width - 0.5, y / height - 0.5; and for `scale="sigma"` `sigma_logits`
            (B, K, D) and `scores` (B, K) = 1 - mean sigma, for `scale="log"` `log_scales` (B, K, D).
        """
        pooled, shape = _pooled(features), (features.shape[0], *self.shape)
        direction = functional.normalize(pooled, dim=-1, eps=_SMALLEST_NORM) if self.normalise else pooled
        found = {"points": self.points(direction).view(shape)}
        if self.scales is not None:
            found[self.outputs[1]] = scales = self.scales(pooled).view(shape)
            if "scores" in self.outputs:
                found["scores"] = rle.scores(scales)
        return found


class PresenceHead(Head):
    """One yes or no per crop: whether a hand is there, whether it is the left one; loss `losses.multitask.presence`.

    Args:
        channels: C.
        name: of the output.
    """

    def __init__(self, channels: int, *, name: str = "presence") -> None:
        super().__init__()
        self.outputs = (name,)
        self.logit = nn.Linear(channels, 1)

    def forward(self, features: Tensor) -> Outputs:
        """One output (B,), logits."""
        return {self.outputs[0]: self.logit(_pooled(features))[:, 0]}


class ClassHead(Head):
    """One of several classes per crop, a gesture say; loss `losses.multitask.classification`.

    Args:
        channels: C.
        classes: number of classes.
        name: of the output.
    """

    def __init__(self, channels: int, classes: int, *, name: str = "class") -> None:
        super().__init__()
        self.outputs = (name,)
        self.logits = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Outputs:
        """One output (B, classes), logits."""
        return {self.outputs[0]: self.logits(_pooled(features))}


class DepthHead(Head):
    """z of every keypoint from pooled features, relative to the root keypoint; loss `losses.regression.l1`.

    Args:
        channels: C.
        keypoints: K.
    """

    outputs = ("depth",)

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.depth = _nearly_zero(nn.Linear(channels, keypoints))

    def forward(self, features: Tensor) -> Outputs:
        """`depth` (B, K), in crop widths."""
        return {"depth": self.depth(_pooled(features))}


class MultiHead(Head):
    """Several heads on one feature map, their outputs in one dict.

    Args:
        heads: at least one; no two may have an output of the same name.
    """

    def __init__(self, heads: Iterable[Head]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.outputs = tuple(name for head in self.heads for name in head.outputs)
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError(f"two heads have an output of the same name: {', '.join(self.outputs)}")

    def forward(self, features: Tensor) -> Outputs:
        """The outputs of all heads."""
        return {name: found for head in self.heads for name, found in head(features).items()}


def _pooled(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C)."""
    return features.mean((2, 3))


def _small(layer: nn.Conv2d) -> nn.Conv2d:
    """Start with nearly even maps."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _nearly_zero(layer: nn.Linear) -> nn.Linear:
    """Start at the centre of the crop, and with sigma a half."""
    nn.init.xavier_uniform_(layer.weight, gain=0.01)
    nn.init.zeros_(layer.bias)
    return layer
