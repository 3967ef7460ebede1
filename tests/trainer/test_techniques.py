"""Every technique switched on alone by the configuration: it trains, and what is not labelled never counts."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from tests.trainer import people_made
from trainer import config as configuration
from trainer.config import RunConfig
from trainer.data.loader import Batch, Loader
from trainer.distill.teacher import Teacher
from trainer.errors import ConfigError
from trainer.learner import Learner, Moment
from trainer.nets import build
from trainer.nets.build import HeadedNet
from trainer.nets.pose import multiply_adds
from trainer.nets.repvgg import deployed

STEPS = 6
SPACE = {"dimensions": 3}
TECHNIQUES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "linear": {"net": {"head": "linear"}},
    "dsnt": {"net": {"head": "dsnt"}},
    "dsnt kl": {"net": {"head": "dsnt"}, "losses": {"dsnt": {"regulariser": "kl", "distance": "l1"}}},
    "dsnt variance": {
        "net": {"head": "dsnt"},
        "losses": {"dsnt": {"regulariser": "variance", "strength": 0.1}},
    },
    "dsnt in space": {"net": {"head": "dsnt", "depth_cells": 4} | SPACE},
    "integral": {"net": {"head": "dsnt", "debiased": "mean"}},
    "simcc": {"net": {"head": "simcc"}},
    "l1": {"net": {"head": "regression"}},
    "l2": {"net": {"head": "regression"}, "losses": {"coordinates": {"kind": "l2"}}},
    "smooth l1": {"net": {"head": "regression"}, "losses": {"coordinates": {"kind": "smooth_l1"}}},
    "laplace": {"net": {"head": "regression"}, "losses": {"coordinates": {"kind": "laplace"}}},
    "gaussian": {"net": {"head": "regression"}, "losses": {"coordinates": {"kind": "gaussian"}}},
    "l1 in space": {"net": {"head": "regression"} | SPACE},
    "rle": {"net": {"head": "rle"}},
    "rle official": {"net": {"head": "rle"}, "losses": {"rle": {"form": "official"}}},
    "rle paper": {"net": {"head": "rle"}, "losses": {"rle": {"form": "paper", "residual": "gaussian"}}},
    "rle in space": {"net": {"head": "rle"} | SPACE},
    "bones": {"losses": {"bone": 1.0}},
    "all pairs": {"losses": {"bone": {"pairs": "all", "weight": 0.5}}},
    "bones of maps": {"net": {"head": "linear"}, "losses": {"bone": {"between": "heatmaps"}}},
    "oks": {"losses": {"oks": 1.0}},
    "presence and class": {"net": {"presence": True, "classes": ["wave", "point"]}},
    "automatic": {"losses": {"bone": 1.0, "oks": 1.0}, "weighting": "automatic"},
    "ohkm": {"ohkm": 8},
    "ohkm of points": {"net": {"head": "regression"}, "ohkm": 8},
    "okdhp": {"distillation": {"okdhp": {}}},
    "okdhp fau": {"distillation": {"okdhp": {"ensemble": "fau", "branches": 2}}},
    "okdhp groups": {"distillation": {"okdhp": {"ensemble": "groups"}}},
    "netaug": {"distillation": {"netaug": {}}},
    "okdhp in netaug": {"distillation": {"okdhp": {"branches": 2}, "netaug": {"multipliers": [1, 2]}}},
    "okdhp fau in netaug": {"distillation": {"okdhp": {"ensemble": "fau"}, "netaug": {}}},
    "netaug of rle": {"net": {"head": "rle"}, "distillation": {"netaug": {"multipliers": [1, 2]}}},
    "teacher": {"distillation": {"teacher": {"bundle": "made"}}},
    "teacher of points": {"net": {"head": "rle"}, "distillation": {"teacher": {"bundle": "made"}}},
    "ellipse": {"augmentation": {"dropping": {"steps": [[0, 1]]}}},
    "hide and seek": {"augmentation": {"dropping": {"kind": "hide_and_seek", "steps": [[0, 1]]}}},
    "half body": {"augmentation": {"half_body": {"probability": 1}}},
    "sgd": {"optimisation": {"kind": "sgd", "batch": 8, "learning_rate": 0.2, "schedule": "flat_cosine"}},
    "branches": {"net": {"form": "branches", "activation": "mish"}},
    "qarepvgg": {"net": {"form": "qarepvgg", "activation": "hard_mish"}},
    "mobileone": {"net": {"form": "mobileone", "activation": "hard_swish"}},
    "separable": {"net": {"form": "separable"}},
    "plain": {"net": {"form": "plain"}},
    "stride 4": {"net": {"decoder": [16, 16, 16]}},
    "stride 16": {"net": {"decoder": [16]}},
    "dsnt at stride 16": {"net": {"decoder": [16], "head": "dsnt"}},
    "okdhp at stride 4": {
        "net": {"decoder": [16, 16, 16]},
        "distillation": {"okdhp": {"branches": 2, "ensemble": "mean"}},
    },
}


def resolved(changes: dict[str, Any]) -> RunConfig:
    """The configuration of the tests with one technique."""
    shape = people_made.run_document()["net"] | changes.get("net", {})
    return configuration.parse(people_made.run_document(**(changes | {"net": shape})))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People with every kind of label, each with gaps: depth, presence, class."""
    folder = tmp_path_factory.mktemp("techniques")
    made = people_made.make(folder, count=16)
    rng = np.random.default_rng(5)
    for index, entry in enumerate(made.document["annotations"]):
        labels = np.array(entry["keypoints"], float).reshape(-1, 3)
        if index % 2:
            entry["keypoints_3d"] = np.c_[labels[:, :2], rng.normal(0, 20, len(labels))].ravel().tolist()
        if index % 3:
            entry["presence"] = int(index != 4)
            entry["gesture"] = ["wave", "point"][index % 2]
    made.annotations.write_text(json.dumps(made.document), "utf-8")
    return folder


def teacher(config: RunConfig) -> Teacher | None:
    """One that is always sure of the same place."""
    if config.distillation.teacher is None:
        return None
    if config.net.head != "softmax":
        place, score = np.full((8, 19, 2), 31.5, np.float32), np.ones((8, 19), np.float32)
        return Teacher(lambda images: (place, score), "points", (64, 64), list(range(19)))
    maps = np.zeros((8, 19, 8, 8), np.float32)
    maps[:, :, 4, 4] = 1
    return Teacher(lambda images: maps, "heatmaps", (64, 64), list(range(19)))


def learner(config: RunConfig) -> Learner:
    """A new one, in training."""
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(1, verbose=False)
    made = Learner(config, fabric, teacher(config))
    made.net.train()
    return made


def batch(config: RunConfig, root: Path) -> Batch:
    """The first one."""
    return next(Loader(config, root, root / "cache", device=torch.device("cpu")).epoch(0))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_it_lowers_its_loss_within_a_few_steps(name: str, root: Path) -> None:
    config = resolved(TECHNIQUES[name])
    made, people = learner(config), batch(config, root)
    made.start_epoch(Moment(0, 0, 2))
    found = [made.learn(people, Moment(1, step % 2, 2)) for step in range(STEPS)]
    for part in found[0]:
        assert torch.isfinite(found[-1][part]), part
    assert found[-1]["loss"] < found[0]["loss"]
    assert found[0].keys() - {"loss"} <= set(made.objective.names())


@pytest.mark.parametrize("name", TECHNIQUES)
def test_an_unlabelled_joint_may_be_anything(name: str, root: Path) -> None:
    config = resolved(TECHNIQUES[name])
    people = batch(config, root)
    hidden = people.weights == 0
    assert hidden.any()
    poisoned = copy.deepcopy(people)
    poisoned.points[hidden] = torch.nan
    poisoned.depth[hidden] = torch.nan
    poisoned.areas[people.presence == 0] = torch.nan
    gradients = []
    for each in (people, poisoned):
        made = learner(config)
        loss = made.gradient(each, Moment(1, 0, 2))["loss"]
        assert torch.isfinite(loss)
        gradients.append([loss, *(p.grad for p in (*made.net.parameters(), *made.objective.parameters()))])
    for clean, other in zip(*gradients, strict=True):
        assert (clean is None and other is None) or torch.equal(clean, other)


def test_depth_is_learnt_from_crops_with_a_depth_label_alone(root: Path) -> None:
    config = resolved({"net": {"head": "regression", "dimensions": 3}})
    made, people = learner(config), batch(config, root)
    in_space = people.depth.isfinite().any(1)
    assert in_space.any()
    assert not in_space.all()
    flat = Batch(**(vars(people) | {"depth": torch.full_like(people.depth, torch.nan)}))
    made.gradient(flat, Moment(0, 0, 2))
    x, y, z = made.net.module.head.points.bias.grad.view(-1, 3).unbind(-1)
    assert not z.any()
    assert x.any()
    assert y.any()
    made.optimiser.zero_grad()
    made.gradient(people, Moment(0, 0, 2))
    assert made.net.module.head.points.bias.grad.view(-1, 3)[:, 2].any()


@pytest.mark.parametrize(
    "name",
    [
        "okdhp",
        "okdhp fau",
        "okdhp groups",
        "netaug",
        "netaug of rle",
        "okdhp in netaug",
        "okdhp fau in netaug",
    ],
)
def test_what_only_training_needs_drops_out(name: str, root: Path) -> None:
    config = resolved(TECHNIQUES[name])
    without = config.model_copy(update={"distillation": type(config.distillation)()})
    made, people = learner(config), batch(config, root)
    made.learn(people, Moment(0, 1, 2))
    net = made.net.module.eval()
    left = build.deployable(net, config)
    assert isinstance(left, HeadedNet)
    assert multiply_adds(deployed(left), (64, 64)) == multiply_adds(deployed(build.plain(without)), (64, 64))
    crops = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        whole, alone = net(crops), left(crops)
    expected = whole["branches"][0] if "branches" in whole else whole[next(iter(alone))]
    torch.testing.assert_close(next(iter(alone.values())), expected)


def test_what_the_objective_learns_is_in_the_optimiser_without_decay() -> None:
    for name in ("automatic", "rle"):
        made = learner(resolved(TECHNIQUES[name]))
        learnt = {id(each) for each in made.objective.parameters()}
        spared = {id(p) for g in made.optimiser.param_groups if g["weight_decay"] == 0 for p in g["params"]}
        assert learnt
        assert learnt <= spared


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"net": {"head": "rle"}, "losses": {"heatmap": 1}}, "losses.heatmap: not for net.head rle"),
        ({"losses": {"dsnt": 1}}, "losses.dsnt: not for net.head softmax"),
        ({"net": {"head": "linear"}, "losses": {"bone": 1}}, "losses.bone.between: a linear head has no coordinates"),
        ({"net": {"head": "dsnt"}, "losses": {"bone": {"between": "heatmaps"}}}, "losses.bone.between: net.head dsnt"),
        ({"losses": {"presence": 1}}, "losses.presence: net.presence asks for no such head"),
        ({"losses": {"class": 1}}, "losses.class: net.classes asks for no such head"),
        ({"losses": {"heatmap": 0}}, "losses: every weight is 0"),
        ({"net": {"head": "simcc", "dimensions": 3}}, "dimensions: the simcc head has no depth"),
        ({"net": {"debiased": "sum"}}, "debiased: only the dsnt head"),
        ({"net": {"classes": ["one"]}}, "classes: at least two"),
        ({"net": {"head": "rle"}, "distillation": {"okdhp": {}}}, "distillation.okdhp: only for a softmax"),
        ({"losses": {"bone": 1}, "distillation": {"okdhp": {}}}, "distillation.okdhp: only with losses.heatmap"),
        ({"distillation": {"netaug": {}, "teacher": {"bundle": "made"}}}, "distillation: choose teacher, or okdhp"),
        ({"distillation": {"okdhp": {"ensemble": "groups"}, "netaug": {}}}, "distillation: netaug does not go"),
        ({"net": {"head": "dsnt"}, "losses": {"coordinates": {"kind": "laplace"}}}, "learns the scale"),
        ({"root": "tail"}, "root: body19 has no keypoint 'tail'"),
        (
            {
                "net": {"head": "simcc"},
                "phases": [{"epochs": 1, "height": 64, "width": 64}, {"epochs": 1, "height": 96, "width": 64}],
            },
            "phases: a simcc head is bound to one size",
        ),
    ],
)  # fmt: skip
def test_parts_that_cannot_go_together_are_one_clear_line(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(changes)
    (line,) = str(caught.value).splitlines()
    assert text in line


def test_a_head_brings_its_own_term_unless_another_is_named() -> None:
    assert resolved({}).losses.terms() == {"heatmap": 1.0}
    assert resolved({"losses": {"bone": 0.5}}).losses.terms() == {"heatmap": 1.0, "bone": 0.5}
    assert resolved({"net": {"head": "rle", "presence": True}}).losses.terms() == {
        "rle": 1.0,
        "presence": 1.0,
    }
    assert resolved({"net": {"head": "rle"}, "losses": {"coordinates": 1}}).losses.terms() == {
        "coordinates": 1.0
    }
    assert resolved({"net": {"head": "dsnt", "debiased": "sum"}}).losses.terms() == {"integral": 1.0}
