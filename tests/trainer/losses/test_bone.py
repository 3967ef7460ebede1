"""Bone loss: golden numbers, invariances, visibility and coincident joints."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_zoo import skeletons
from trainer.losses import bone

EXACT = {"rtol": 1e-9, "atol": 1e-11}
seeds = st.integers(0, 2**31)


def poses(seed: int, dimensions: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of points (2, 6, D)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, 6, dimensions, generator=generator, dtype=torch.float64).unbind()


ONES = torch.ones(2, 6)
ALL = bone.JointBoneLoss(bone.all_pairs(6))


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize("which", ["pairs", "edges"])
def test_golden(golden, golden_case, case, which):
    numbers = golden_case("bone_loss", case)
    predicted = numbers["pred"].requires_grad_()
    loss = bone.JointBoneLoss(golden("bone_loss")[which].tolist())
    value = loss(predicted, numbers["target"], torch.ones(predicted.shape[:2]))
    torch.testing.assert_close(value, numbers[f"loss_{which}"], **EXACT)
    torch.testing.assert_close(torch.autograd.grad(value, predicted)[0], numbers[f"grad_{which}"], **EXACT)


@pytest.mark.parametrize("case", [0, 1])
def test_golden_batch_mean(golden, golden_case, case):
    numbers = golden_case("bone_loss", case)
    loss = bone.BatchMeanBoneLoss(bone.parent_pairs(golden("bone_loss")["parents"].tolist()))
    value = loss(numbers["pred"], numbers["target"], torch.ones(numbers["pred"].shape[:2]))
    torch.testing.assert_close(value, numbers["loss_batchmean_parents"], **EXACT)


def test_golden_coincident_joints(golden):
    numbers = {key: torch.from_numpy(value) for key, value in golden("bone_loss").items() if key[0] == "d"}
    predicted = numbers["degenerate_pred"].requires_grad_()
    value = bone.JointBoneLoss(bone.all_pairs(7))(predicted, numbers["degenerate_target"], torch.ones(1, 7))
    torch.testing.assert_close(value, numbers["degenerate_loss"], **EXACT)
    torch.testing.assert_close(torch.autograd.grad(value, predicted)[0], numbers["degenerate_grad"], **EXACT)


def test_all_pairs_are_the_golden_ones(golden):
    assert bone.all_pairs(7) == [tuple(pair) for pair in golden("bone_loss")["pairs"].tolist()]
    assert [len(bone.all_pairs(keypoints)) for keypoints in (1, 17, 21)] == [0, 136, 210]
    assert {tuple(sorted(edge)) for edge in skeletons.HAND21.bones} <= set(bone.all_pairs(21))


@given(seed=seeds, angle=st.floats(-math.pi, math.pi), shift=st.floats(-3, 3), mirrored=st.booleans())
def test_a_rigid_motion_costs_nothing(seed, angle, shift, mirrored):
    target, _ = poses(seed)
    cos, sin, side = math.cos(angle), math.sin(angle), -1.0 if mirrored else 1.0
    moved = target @ torch.tensor([[side * cos, -sin], [side * sin, cos]], dtype=torch.float64) + shift
    assert ALL(moved, target, ONES).item() == pytest.approx(0, abs=1e-9)


@given(seed=seeds, scale=st.floats(0, 4), dimensions=st.sampled_from([2, 3]))
def test_a_scaled_pose_costs_its_mean_length_times_the_change(seed, scale, dimensions):
    target, _ = poses(seed, dimensions)
    expected = abs(scale - 1) * bone.lengths(target, ALL.pairs).mean()
    torch.testing.assert_close(ALL(scale * target, target, ONES), expected)


@given(seed=seeds)
def test_it_is_positive_and_does_not_depend_on_the_order_of_joints(seed):
    predicted, target = poses(seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    loss = ALL(predicted, target, ONES)
    assert loss > 0
    torch.testing.assert_close(ALL(predicted[:, order], target[:, order], ONES), loss)


def test_a_pair_counts_where_both_ends_do():
    predicted, target = poses(0)
    weights = torch.zeros(2, 6)
    weights[0, [1, 4]] = weights[1, 2] = 1
    wanted = [(each[0, 1] - each[0, 4]).norm() for each in (predicted, target)]
    torch.testing.assert_close(ALL(predicted, target, weights), (wanted[0] - wanted[1]).abs())


def test_the_batch_mean_does_not_see_single_crops():
    target, _ = poses(0)
    target = target[:1].expand(2, 6, 2)
    opposite = target * torch.tensor([0.5, 1.5]).view(2, 1, 1)
    assert bone.BatchMeanBoneLoss(bone.all_pairs(6))(opposite, target, ONES).item() == pytest.approx(0)
    assert ALL(opposite, target, ONES) > 0.1


def test_a_loss_without_pairs_is_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        bone.JointBoneLoss([])
