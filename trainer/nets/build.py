"""From a configuration to the net that is trained, and from that to the net that is left of it.

Every net that is trained takes normalised crops and answers tensors by name, see `nets.heads`. Two wrappers drop out
again: `Branched` (OKDHP) and `netaug.NetAug`, which may hold a branched net. Names of weights are those of `PoseNet`,
whatever heads there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from model_zoo import skeletons
from trainer.config import RunConfig
from trainer.distill.netaug import NetAug
from trainer.distill.okdhp import BranchedNet
from trainer.nets.heads import (
    ClassHead,
    DepthHead,
    DSNTHead,
    Head,
    Outputs,
    PresenceHead,
    RegressionHead,
    SimCCHead,
)
from trainer.nets.pose import MAP_HEADS, STRIDES, NetConfig, PoseNet

Scale = Literal["sigma", "log"]
"""What a regression learns beside its points."""
POOLED_HEADS = ("regression", "rle")
"""Keypoint heads that read the last stage and need no decoder."""


class HeadedNet(PoseNet):
    """A pose net with any keypoint head, and with further heads on its last stage.

    Args:
        config: the shape.
        keypoints: K.
        size: (height, width) of the crops; only simcc is bound to it.
        scale: what a pooled keypoint head learns beside the points.
    """

    def __init__(
        self, config: NetConfig, *, keypoints: int, size: tuple[int, int], scale: Scale | None = None
    ) -> None:
        super().__init__(config, keypoints)
        deep = config.widths[-1]
        if config.head not in MAP_HEADS:
            self.head = _keypoint_head(config, keypoints, size, scale)
        if config.head in POOLED_HEADS:
            for stride, _ in zip(STRIDES, config.decoder, strict=False):
                for part in (f"from{2 * stride}", f"lateral{stride}", f"smooth{stride}"):
                    delattr(self, part)
        more = {"presence": PresenceHead(deep)} if config.presence else {}
        if config.handedness:
            more["handedness"] = PresenceHead(deep, name="handedness")
        if config.classes:
            more["class"] = ClassHead(deep, len(config.classes))
        if config.depth:
            more["depth"] = DepthHead(deep, keypoints)
        self.more = nn.ModuleDict(more)

    def forward(self, x: Tensor) -> Outputs:
        """(B, 3, h, w) normalised crops -> the outputs of all heads; maps of logits are called `heatmaps`."""
        levels = self.trunk(x)
        at32 = self.stages[-1](levels[-1])
        found = self.head(at32 if self.config.head in POOLED_HEADS else self.decoded(levels, at32))
        outputs = {"heatmaps": found} if isinstance(found, Tensor) else dict(found)
        for head in self.more.values():
            outputs |= head(at32)
        return outputs


class Branched(BranchedNet):
    """A net with branches that answers tensors by name."""

    def forward(self, x: Tensor) -> Outputs:
        """`branches`, `ensemble` and `groups` of `okdhp.Outputs`."""
        found = super().forward(x)
        return {"branches": found.branches, "ensemble": found.ensemble, "groups": found.groups}


def _keypoint_head(config: NetConfig, keypoints: int, size: tuple[int, int], scale: Scale | None) -> Head:
    deep, narrow = config.widths[-1], config.decoder[-1]
    if config.head in POOLED_HEADS:
        return RegressionHead(
            deep, keypoints, dimensions=config.dimensions, scale=scale, normalise=config.head == "rle"
        )
    if config.head == "simcc":
        cells = tuple(side // config.stride for side in size)
        return SimCCHead(narrow, keypoints, cells, size, split_ratio=config.split_ratio)
    return DSNTHead(narrow, keypoints, depth=config.depth_cells if config.dimensions == 3 else None)


def plain(config: RunConfig) -> HeadedNet:
    """The net without any wrapper: what is measured and exported."""
    return _builder(config)(config.net)


def net(config: RunConfig) -> nn.Module:
    """The net that is trained."""
    how, build = config.distillation, _builder(config)
    if how.okdhp is not None:
        keypoints = len(skeletons.skeleton(config.skeleton))
        build = partial(
            Branched, keypoints=keypoints, branches=how.okdhp.branches, ensemble=how.okdhp.ensemble
        )
    return build(config.net) if how.netaug is None else NetAug(build, config.net, how.netaug.multipliers)


def deployable(trained: nn.Module, config: RunConfig, crops: Iterable[Tensor] = ()) -> nn.Module:
    """What is left of a net when training is over: plain, in evaluation mode. A plain net comes back as it is.

    Args:
        trained: of `net`.
        config: the run.
        crops: normalised training crops in batches, for the running statistics of a net trained with NetAug.
    """
    if isinstance(trained, NetAug):
        trained = trained.exported(crops)
    if isinstance(trained, Branched):
        left = plain(config)
        left.load_state_dict(trained.exported().state_dict())
        return left.to(next(trained.parameters()).device).eval()
    return trained.eval()


def _builder(config: RunConfig) -> partial[HeadedNet]:
    learnt = config.losses.coordinates
    likelihood = learnt is not None and learnt.kind in ("laplace", "gaussian")
    scale: Scale | None = "sigma" if config.net.head == "rle" else "log" if likelihood else None
    return partial(
        HeadedNet,
        keypoints=len(skeletons.skeleton(config.skeleton)),
        size=config.phases[-1].size,
        scale=scale,
    )
