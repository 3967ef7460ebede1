"""What is not labelled, or not there, moves nothing: neither z of the others, nor a balance, nor a net."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor

from model_zoo.skeletons import BODY19
from tests.trainer import people_made
from trainer import config as configuration
from trainer.data import people
from trainer.data.labels import CropLabels
from trainer.distill.teacher import Targets
from trainer.errors import ConfigError
from trainer.learner import Learner
from trainer.losses import dsnt
from trainer.losses.multitask import IGNORED
from trainer.nets import build, further
from trainer.objective import Labels, Objective, Part

CROPS, KEYPOINTS, SIDE = 3, len(BODY19), 64
ROOT = BODY19.index("left_hip")


def objective(**changes: Any) -> Objective:
    """Of the configuration of the tests with some of it changed."""
    net = people_made.run_document()["net"] | changes.pop("net", {})
    return Objective(configuration.parse(people_made.run_document(**changes, net=net)))


def labels(*, presence: float = 1.0) -> Labels:
    """All keypoints, anywhere, without depth."""
    generator = torch.Generator().manual_seed(1)
    return Labels(
        pixels=torch.rand(CROPS, KEYPOINTS, 2, generator=generator) * SIDE,
        depth=torch.full((CROPS, KEYPOINTS), torch.nan),
        weights=torch.full((CROPS, KEYPOINTS), float(presence != 0)),
        in_space=torch.zeros(CROPS, dtype=torch.bool),
        areas=torch.full((CROPS,), 900.0),
        presence=torch.full((CROPS,), presence),
        classes=torch.full((CROPS,), IGNORED),
        handedness=torch.full((CROPS,), -1.0),
        size=(SIDE, SIDE),
        stride=8,
    )


def numbers(*shape: int) -> Tensor:
    """Outputs of a net."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2)).requires_grad_()


def test_z_is_relative_to_the_root_of_a_mirrored_crop_too() -> None:
    z = np.random.default_rng(1).normal(0, 20, (2, KEYPOINTS))
    z[:, BODY19.index("nose")] = np.nan
    known = CropLabels(
        areas=np.ones(2, np.float32),
        depth=(z - z[:, [ROOT]]).astype(np.float32),
        presence=np.ones(2, np.float32),
        classes=np.zeros(2, np.int64),
        handedness=np.ones(2, np.float32),
        root=ROOT,
    )
    # The choice of crops keeps the root.
    found = known[np.array([0, 1])].drawn(np.full(2, 3.0), np.array([False, True]), BODY19).depth
    assert found[:, ROOT].tolist() == [0, 0]
    mirrored = z[1, list(BODY19.flip_order)]
    np.testing.assert_array_equal(found[0], known.depth[0] * np.float32(3))
    np.testing.assert_allclose(found[1], 3 * (mirrored - mirrored[ROOT]), atol=1e-4)


def test_a_keypoint_that_is_not_labelled_has_no_depth(tmp_path: Path) -> None:
    made = people_made.make(tmp_path, count=1, unlabelled=0.0)
    entry = made.document["annotations"][0]
    entry["keypoints"][3 * ROOT : 3 * ROOT + 3] = [0, 0, 0]
    entry["keypoints_3d"] = [float(number) for number in range(3 * KEYPOINTS)]
    made.annotations.write_text(json.dumps(made.document), "utf-8")
    depth = people.read(made.annotations, BODY19)[0].depth
    expected = np.arange(2.0, 3 * KEYPOINTS, 3)
    expected[ROOT] = np.nan
    np.testing.assert_array_equal(depth, expected)


def test_a_kind_that_a_batch_lacks_leaves_its_balance_alone() -> None:
    learnt = objective(net={"head": "rle", "dimensions": 3}, weighting="automatic")
    outputs = {"points": numbers(CROPS, KEYPOINTS, 3), "sigma_logits": numbers(CROPS, KEYPOINTS, 3)}
    parts = learnt(outputs, labels(), epoch=0.0)
    assert parts["rle_3d"].weight == CROPS
    learnt.total(parts).backward()
    assert learnt.balance.params["rle_3d"].grad is None
    assert learnt.balance.params["rle"].grad is not None


@pytest.mark.parametrize("weighting", ["fixed", "automatic"])
def test_a_head_without_labels_has_a_gradient_that_moves_nothing(weighting: str) -> None:
    """Processes that share a batch wait for the gradient of every parameter."""
    learnt = objective(net={"presence": True}, losses={"heatmap": 1.0, "presence": 1.0}, weighting=weighting)
    outputs = {"heatmaps": numbers(CROPS, KEYPOINTS, SIDE // 8, SIDE // 8), "presence": numbers(CROPS)}
    learnt.total(learnt(outputs, labels(presence=-1.0), epoch=0.0)).backward()
    assert outputs["heatmaps"].grad.any()
    assert not outputs["presence"].grad.any()


def test_processes_agree_on_what_is_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        """This process, and another that has the same weights and one label more of each kind."""

        world_size = 2

        def all_reduce(self, own: Tensor, reduce_op: str) -> Tensor:
            assert reduce_op == "sum"
            return 2 * own + torch.tensor([0.0, 1.0]).repeat(len(own) // 2)

    net = people_made.run_document()["net"]
    learner = Learner(configuration.parse(people_made.run_document(net=net)), Fabric(accelerator="cpu"))
    monkeypatch.setattr(learner, "fabric", Two())
    one, none = torch.tensor(4.0), torch.tensor(0.0)
    found = learner._shared({"a": Part(one, one), "b": Part(one, one, counted=none)})
    assert [(part.weight.item(), part.labelled.item()) for part in found.values()] == [(8, 9), (8, 1)]


@pytest.mark.parametrize("head", ["regression", "softmax"])
def test_a_teacher_teaches_nothing_about_nobody(head: str) -> None:
    learnt = objective(net={"head": head}, distillation={"teacher": {"bundle": "made"}})
    here = labels(presence=0.0)
    sure = torch.ones(CROPS, KEYPOINTS)
    if head == "regression":
        key, found = "points", numbers(CROPS, KEYPOINTS, 2)
        told = Targets(sure, points=here.pixels)
    else:
        key, found = "heatmaps", numbers(CROPS, KEYPOINTS, SIDE // 8, SIDE // 8)
        told = Targets(sure, maps=torch.rand(CROPS, KEYPOINTS, SIDE // 8, SIDE // 8))

    def slope(known: Labels) -> Tensor:
        loss = learnt.total(learnt({key: found}, known, epoch=0.0, told=told))
        return torch.autograd.grad(loss, found)[0]

    assert not slope(here).any()
    assert slope(replace(here, presence=torch.full((CROPS,), -1.0))).any()


def with_depth(known: Labels, *crops: int) -> Labels:
    """The same with a depth of every keypoint of these crops."""
    in_space = torch.zeros(CROPS, dtype=torch.bool)
    in_space[list(crops)] = True
    z = torch.randn(CROPS, KEYPOINTS, generator=torch.Generator().manual_seed(3)) * 9
    depth = torch.where(in_space[:, None], z, torch.nan)
    return replace(known, depth=depth, in_space=in_space)


@pytest.mark.parametrize("head", ["softmax", "dsnt", "simcc", "rle"])
def test_a_depth_head_learns_z_from_crops_in_space_alone(head: str) -> None:
    learnt = objective(net={"head": head, "depth": True}, losses={"depth": 2.0})
    outputs = build.plain(learnt.config).train()(torch.randn(CROPS, 3, SIDE, SIDE))
    assert outputs["depth"].shape == (CROPS, KEYPOINTS)

    def slope(known: Labels) -> Tensor:
        part = learnt(outputs, known, epoch=0.0)["depth"]
        return torch.autograd.grad(2.0 * part.loss, outputs["depth"], retain_graph=True)[0]

    assert not slope(labels()).any()
    mixed = slope(with_depth(labels(), 1))
    assert mixed[1].all()
    assert not mixed[[0, 2]].any()


@pytest.mark.parametrize("head", ["regression", "rle"])
def test_coordinates_in_space_learn_z_from_crops_in_space_alone(head: str) -> None:
    learnt = objective(net={"head": head, "dimensions": 3})
    outputs = {"points": numbers(CROPS, KEYPOINTS, 3)}
    if head == "rle":
        outputs["sigma_logits"] = torch.zeros(CROPS, KEYPOINTS, 3)
    loss = learnt.total(learnt(outputs, with_depth(labels(), 1), epoch=0.0))
    slope = torch.autograd.grad(loss, outputs["points"])[0]
    assert slope[..., :2].all()  # x and y of everybody
    assert slope[1, :, 2].any()
    assert not slope[[0, 2], :, 2].any()


def test_volumes_learn_z_from_crops_in_space_alone() -> None:
    """Where z says nothing about x and y, moving all that is likely along z is no gain to a flat crop."""
    learnt = objective(net={"head": "dsnt", "dimensions": 3, "depth_cells": 5})
    cells = SIDE // learnt.config.net.stride
    of_depth = torch.randn(CROPS, KEYPOINTS, 5, 1, 1, generator=torch.Generator().manual_seed(4))
    of_place = torch.randn(CROPS, KEYPOINTS, 1, cells, cells, generator=torch.Generator().manual_seed(5))
    logits = (of_depth + of_place).double().requires_grad_()
    probabilities = dsnt.softmax(logits)
    outputs = {
        "logits": logits,
        "points": dsnt.expectation(probabilities),
        "scores": probabilities.amax((2, 3, 4)),
    }
    loss = learnt.total(learnt(outputs, with_depth(labels(), 1), epoch=0.0))
    slope = torch.autograd.grad(loss, logits)[0]
    along_z = (slope.sum((3, 4)) * torch.linspace(-1, 1, 5)).sum(-1)
    assert slope.flatten(2).any(-1).all()
    assert along_z[1].abs().max() > 1e-6
    assert along_z[[0, 2]].abs().max() < 1e-4 * along_z[1].abs().max()  # rounding


def test_z_of_a_depth_head_is_in_crop_widths() -> None:
    learnt = objective(net={"depth": True})
    known = with_depth(labels(), 0, 1, 2)
    outputs = {"heatmaps": numbers(CROPS, KEYPOINTS, SIDE // 8, SIDE // 8), "depth": known.depth / SIDE}
    assert learnt(outputs, known, epoch=0.0)["depth"].loss == 0
    outputs["depth"] = outputs["depth"] + 0.25
    assert learnt(outputs, known, epoch=0.0)["depth"].loss.item() == pytest.approx(0.25)


def test_a_depth_head_is_served_in_pixels_relative_to_the_root() -> None:
    config = configuration.parse(
        people_made.run_document(net=people_made.run_document()["net"] | {"depth": True}, root="left_hip")
    )
    z = torch.randn(CROPS, KEYPOINTS)
    (found,) = further.served({"depth": z}, config, (SIDE, 2 * SIDE))
    torch.testing.assert_close(found, (z - z[:, [ROOT]]) * 2 * SIDE)


def test_z_is_said_by_one_head_only() -> None:
    net = people_made.run_document()["net"] | {"head": "dsnt", "dimensions": 3, "depth": True}
    with pytest.raises(ConfigError, match="says z already"):
        configuration.parse(people_made.run_document(net=net))
