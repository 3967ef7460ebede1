"""Online distillation between branches: the published numbers, its properties, and that one branch is left."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from trainer.distill import okdhp
from trainer.distill.okdhp import BranchedNet, FeatureAggregation, Outputs, Weighting
from trainer.nets.pose import NetConfig, PoseNet, multiply_adds
from trainer.nets.repvgg import deployed

EXACT = {"rtol": 1e-9, "atol": 1e-11}
CONFIG = NetConfig(stem=8, widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1), decoder=(16, 8))
ENSEMBLES = ("mean", "fau", "groups")


@pytest.fixture
def numbers(golden):
    return {name: torch.from_numpy(np.asarray(value)) for name, value in golden("okdhp").items()}


def maps(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_parts_of_the_loss(numbers):
    branches, target, weight = numbers["branches"], numbers["target"], numbers["weight"]
    ensemble = okdhp.mean(branches)
    torch.testing.assert_close(ensemble, numbers["ensemble_mean"], **EXACT)
    found = [okdhp.mean_square(each, target, weight) for each in branches]
    torch.testing.assert_close(torch.stack(found), numbers["mse_branch"], **EXACT)
    torch.testing.assert_close(okdhp.mean_square(ensemble, target, weight), numbers["mse_ensemble"], **EXACT)
    found = [okdhp.divergence(each, ensemble, weight) for each in branches]
    torch.testing.assert_close(torch.stack(found), numbers["kl_branch"], **EXACT)


@pytest.mark.parametrize("detached", [True, False])
def test_gradients_with_and_without_the_teacher(numbers, detached):
    branches = numbers["branches"].requires_grad_()
    teacher = okdhp.mean(branches)
    teacher = teacher.detach() if detached else teacher
    sum(okdhp.divergence(each, teacher, numbers["weight"]) for each in branches).backward()
    expected = numbers[f"grad_kl_teacher_{'detached' if detached else 'attached'}"]
    torch.testing.assert_close(branches.grad, expected, **EXACT)


@pytest.mark.parametrize("detached", [True, False])
def test_total(numbers, detached):
    branches = numbers["branches"].requires_grad_()
    supervised = partial(okdhp.mean_square, target=numbers["target"], weights=numbers["weight"])
    outputs = Outputs(branches, okdhp.mean(branches), branches[:0])
    losses = okdhp.loss(outputs, supervised, numbers["weight"], 30, Weighting(detach_teacher=detached))
    torch.testing.assert_close(losses.total.detach(), numbers["total_epoch30_kd5_ens6"], **EXACT)
    losses.distillation.backward()
    expected = numbers[f"grad_kl_teacher_{'detached' if detached else 'attached'}"]
    torch.testing.assert_close(branches.grad, expected, **EXACT)


def test_ramp_up(numbers):
    length = int(numbers["rampup_length"])
    found = [okdhp.ramp_up(int(epoch), length) for epoch in numbers["rampup_epochs"]]
    np.testing.assert_allclose(found, numbers["rampup_weight"], **EXACT)
    assert okdhp.ramp_up(0, length) == pytest.approx(math.exp(-5))
    assert okdhp.ramp_up(0, 0) == okdhp.ramp_up(1e9, length) == 1.0


@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50), temperature=st.sampled_from([0.1, 1.0, 4.0]))
def test_divergence_is_a_distance_of_shapes(seed, shift, temperature):
    one, other, weights = maps(2, 3, 4, 5, seed=seed), maps(2, 3, 4, 5, seed=seed + 1), torch.ones(2, 3)
    found = okdhp.divergence(one, other, weights, temperature).item()
    assert found > 0
    assert okdhp.divergence(one, one, weights, temperature).item() == pytest.approx(0, abs=1e-12)
    assert okdhp.divergence(one + shift, one, weights, temperature).item() == pytest.approx(0, abs=1e-9)
    assert okdhp.divergence(one + shift, other, weights, temperature).item() == pytest.approx(found, rel=1e-9)


def test_a_low_temperature_sharpens():
    one, other, weights = maps(1, 1, 8, 8).sigmoid(), maps(1, 1, 8, 8, seed=1).sigmoid(), torch.ones(1, 1)
    found = [okdhp.divergence(one, other, weights, temperature).item() for temperature in (1.0, 0.3, 0.1)]
    assert found == sorted(found)


@pytest.mark.parametrize("part", ["mean_square", "divergence"])
def test_a_hidden_keypoint_never_counts(part):
    function = getattr(okdhp, part)
    weights = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    results = []
    for poison in (3.0, math.nan, math.inf):
        one, other = maps(2, 2, 4, 5), maps(2, 2, 4, 5, seed=1)
        one[0, 1], other[0, 1] = poison, poison
        one.requires_grad_()
        loss = function(one, other, weights)
        loss.backward()
        results.append((loss.detach(), one.grad))
        assert (one.grad[0, 1] == 0).all()
    for each in results[1:]:
        torch.testing.assert_close(each, results[0], rtol=0, atol=0)


def test_nothing_visible_gives_zero_and_no_gradient():
    one = maps(2, 2, 4, 5).requires_grad_()
    for function in (okdhp.mean_square, okdhp.divergence):
        loss = function(one, maps(2, 2, 4, 5, seed=1), torch.zeros(2, 2))
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert one.grad.abs().max() == 0


def test_gradcheck():
    weights = torch.tensor([[1.0, 0.0, 0.3]], dtype=torch.float64)
    one, other = maps(1, 3, 3, 4).requires_grad_(), maps(1, 3, 3, 4, seed=1).requires_grad_()
    assert gradcheck(lambda a, b: okdhp.mean_square(a, b, weights), (one, other))
    assert gradcheck(lambda a, b: okdhp.divergence(a, b, weights, 0.5), (one, other))


def test_an_ensemble_of_equal_branches_is_the_branch():
    branch = maps(2, 3, 4, 5)
    branches = torch.stack([branch] * 3)
    torch.testing.assert_close(okdhp.mean(branches), branch)
    torch.testing.assert_close(okdhp.gated_mean(branches, maps(3, 2, 3).softmax(dim=0)), branch)


def test_the_gate_sums_to_one_and_depends_on_the_picture():
    torch.manual_seed(0)
    aggregation = FeatureAggregation(8, 5, 3).eval()
    gate = aggregation(maps(2, 8, 6, 7, dtype=torch.float32) * 5)
    assert gate.shape == (3, 2, 5)
    torch.testing.assert_close(gate.sum(dim=0), torch.ones(2, 5))
    assert (gate > 0).all()
    assert not torch.allclose(gate[:, 0], gate[:, 1], atol=1e-4)
    branches = maps(3, 2, 5, 4, 4, dtype=torch.float32)
    by_hand = torch.stack([sum(gate[m, 1, k] * branches[m, 1, k] for m in range(3)) for k in range(5)])
    torch.testing.assert_close(okdhp.gated_mean(branches, gate)[1], by_hand)


def test_groupings():
    assert okdhp.groupings(3) == [(0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert okdhp.groupings(2) == [(0, 1)]


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@torch.no_grad()
def test_one_branch_is_exported(ensemble):
    torch.manual_seed(0)
    net = BranchedNet(CONFIG, 5, branches=3, ensemble=ensemble)
    x = maps(2, 3, 64, 32, dtype=torch.float32)
    for _ in range(3):
        net(x)
    net.eval()
    outputs = net(x)
    assert outputs.branches.shape == (3, 2, 5, 8, 4)
    assert len(outputs.groups) == (4 if ensemble == "groups" else 0)
    for branch in range(3):
        exported = net.exported(branch)
        torch.testing.assert_close(exported(x), outputs.branches[branch], rtol=1e-5, atol=1e-6)
        assert type(exported) is PoseNet
        assert multiply_adds(deployed(exported), (64, 32)) == multiply_adds(
            deployed(PoseNet(CONFIG, 5)), (64, 32)
        )
        for parameter in exported.parameters():
            parameter.zero_()
    torch.testing.assert_close(net(x).branches, outputs.branches, rtol=0, atol=0)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_every_parameter_learns_and_the_loss_falls(ensemble):
    torch.manual_seed(0)
    net = BranchedNet(CONFIG, 5, branches=3, ensemble=ensemble)
    x, weights = maps(2, 3, 64, 32, dtype=torch.float32), torch.ones(2, 5)
    target = maps(2, 5, 8, 4, seed=2, dtype=torch.float32).sigmoid()
    supervised = partial(okdhp.mean_square, target=target, weights=weights)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    totals = []
    for _ in range(15):
        losses = okdhp.loss(net(x), supervised, weights, epoch=60)
        optimiser.zero_grad()
        losses.total.backward()
        assert all(each.grad is not None for each in net.parameters())
        optimiser.step()
        totals.append(losses.total.item())
    assert totals[-1] < 0.7 * totals[0]


def test_branches_start_apart():
    torch.manual_seed(0)
    with torch.no_grad():
        branches = BranchedNet(CONFIG, 5)(maps(2, 3, 64, 32, dtype=torch.float32)).branches
    assert all((branches[a] - branches[b]).abs().max() > 1e-3 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_no_weight_is_kept_twice():
    names = list(BranchedNet(CONFIG, 5).state_dict())
    assert not any(name.startswith(("others.0.stem", "others.0.stages.0")) for name in names)
    shared = [name for name in names if name.startswith("others.0.")]
    assert {name.removeprefix("others.0.") for name in shared} < set(PoseNet(CONFIG, 5).state_dict())
