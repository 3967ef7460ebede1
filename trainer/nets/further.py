"""What further heads say, as it is measured and served: presence, classes and depth.

Axes: B crops, K keypoints, C classes. Probabilities come of the heads' logits by a sigmoid or a softmax, which is the
last step in the graph: calibration goes before it, see `trainer.calibrated_graph`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model_zoo import skeletons
from model_zoo.outputs import HANDEDNESS, ClassesOutput, DepthOutput, PresenceOutput
from trainer.config import RunConfig
from trainer.losses.masks import precise
from trainer.nets import answers
from trainer.nets.heads import Outputs

PRESENCE, GESTURE, DEPTH = "presence", "gesture", "depth"
HANDS = ("left", "right")
"""Labels of handedness; the head's logit is for the first one."""

FurtherOutput = PresenceOutput | ClassesOutput | DepthOutput


def outputs(config: RunConfig) -> tuple[FurtherOutput, ...]:
    """What the graph of a run answers beside heatmaps and keypoints."""
    net, skeleton = config.net, skeletons.skeleton(config.skeleton)
    found: list[FurtherOutput] = []
    if net.presence:
        found.append(PresenceOutput(name=PRESENCE, of=skeleton.subject))
    if net.classes:
        found.append(ClassesOutput(name=GESTURE, of=GESTURE, labels=net.classes))
    if net.handedness:
        found.append(ClassesOutput(name=HANDEDNESS, of=HANDEDNESS, labels=HANDS, mirror=(1, 0)))
    if net.dimensions == 3 or net.depth:
        found.append(DepthOutput(name=DEPTH, root=skeleton.keypoints[config.root_index]))
    return tuple(found)


def names(config: RunConfig) -> tuple[str, ...]:
    """Of `outputs`."""
    return tuple(each.name for each in outputs(config))


def served(found: Outputs, config: RunConfig, size: tuple[int, int]) -> list[Tensor]:
    """One tensor per `outputs`, whose first axis is B: see the kinds of `model_zoo.outputs`.

    Args:
        found: of a `HeadedNet`.
        config: the run.
        size: (height, width) of the crops in pixels.
    """
    return [_answer(name, found, config, size) for name in names(config)]


def _answer(name: str, found: Outputs, config: RunConfig, size: tuple[int, int]) -> Tensor:
    if name == DEPTH:
        z = (
            precise(found["depth"]) * size[1]
            if config.net.depth
            else answers.points(found, config.net, size)[..., 2]
        )
        return z - z[:, config.root_index, None]
    if name == GESTURE:
        return precise(found["class"]).softmax(-1)
    odds = precise(found[name])
    return odds.sigmoid() if name == PRESENCE else torch.stack([odds, -odds], dim=-1).sigmoid()
