"""Automatic weights: golden numbers, fixed points, and what must not move them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.losses import awl

EXACT = {"rtol": 1e-9, "atol": 1e-11}


def settled(loss: float) -> float:
    """The p^2 at which one constant loss comes to rest."""
    return (loss + math.sqrt(loss**2 + 8 * loss)) / 4


def descend(losses: torch.Tensor, start: torch.Tensor, rate: float, steps: int) -> torch.Tensor:
    """Parameters after plain gradient descent."""
    params = start.clone().requires_grad_()
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(awl.total(params, losses), params)
        params = (params - rate * gradient).detach().requires_grad_()
    return params.detach()


@pytest.mark.parametrize("case", [0, 1, 2])
def test_golden(golden_case, case):
    numbers = golden_case("automatic_weighted_loss", case)
    params, losses = numbers["params"].requires_grad_(), numbers["losses"].requires_grad_()
    total = awl.total(params, losses)
    by_params, by_losses = torch.autograd.grad(total, (params, losses))
    torch.testing.assert_close(total, numbers["total"], **EXACT)
    torch.testing.assert_close(by_params, numbers["grad_params"], **EXACT)
    torch.testing.assert_close(by_losses, numbers["grad_losses"], **EXACT)
    torch.testing.assert_close(by_losses, 1 / (2 * params.square()))
    torch.testing.assert_close(awl.total(torch.ones_like(params), losses), numbers["total_init"], **EXACT)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_golden_trajectory(golden_case, case):
    numbers = golden_case("automatic_weighted_loss", case)
    expected = numbers["traj_params"]
    params = torch.ones_like(expected[0])
    for point in expected[1:]:
        params = descend(numbers["traj_losses"], params, numbers["traj_lr"].item(), 40)
        torch.testing.assert_close(params, point, **EXACT)


@given(loss=st.floats(1e-4, 100))
def test_the_settled_parameter_is_the_best(loss):
    losses = torch.tensor([loss], dtype=torch.float64)
    best = torch.tensor([math.sqrt(settled(loss))], dtype=torch.float64)
    assert awl.total(best, losses) > 0
    assert all(awl.total(best, losses) <= awl.total(best * each, losses) for each in (0.9, 0.99, 1.01, 1.1))


@pytest.mark.parametrize("loss", [0.1, 1.0, 5.0])
def test_descent_settles(loss):
    params = descend(torch.tensor([loss]), torch.ones(1), 0.1 * min(loss, 1.0), 400)
    assert params.square().item() == pytest.approx(settled(loss), rel=1e-3)


def test_the_class_is_the_formula_by_names_in_any_order():
    loss = awl.AutomaticWeightedLoss(["points", "bones", "presence"])
    with torch.no_grad():
        loss.params["bones"].fill_(-0.5)
    values = {"points": torch.tensor(2.0), "bones": torch.tensor(0.5), "presence": torch.tensor(0.1)}
    total = loss(values)
    expected = awl.total(torch.tensor([1.0, -0.5, 1.0]), torch.tensor([2.0, 0.5, 0.1]))
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(loss(dict(reversed(values.items()))), expected)
    assert loss.weights() == pytest.approx({"points": 0.5, "bones": 2.0, "presence": 0.5})


def test_an_absent_task_is_not_even_moved_by_momentum():
    loss = awl.AutomaticWeightedLoss(["points", "bones"])
    optimiser = torch.optim.Adam(awl.parameter_groups(loss), lr=0.1)
    for present in (["points", "bones"], ["points"], ["points"]):
        before = {name: param.item() for name, param in loss.params.items()}
        optimiser.zero_grad()
        loss({name: torch.tensor(3.0) for name in present}).backward()
        optimiser.step()
        for name, param in loss.params.items():
            assert (param.item() != before[name]) == (name in present)


@pytest.mark.parametrize("start", [0.0, 1e-9, -1e-9, 0.02])
def test_a_parameter_near_zero_has_a_bounded_weight_and_finds_its_way_back(start):
    losses, params = torch.tensor([0.1], dtype=torch.float64), torch.tensor([start], dtype=torch.float64)
    params.requires_grad_()
    total = awl.total(params, losses)
    (gradient,) = torch.autograd.grad(total, params)
    assert total <= 0.1 * awl.LARGEST_WEIGHT + 1
    assert gradient.isfinite()
    away = params - 1e-6 * gradient
    assert away.abs() > params.abs()


def test_a_vanishing_loss_has_a_bounded_weight():
    loss = awl.AutomaticWeightedLoss(["points"], largest_weight=50.0)
    optimiser = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        loss({"points": torch.tensor(0.0)}).backward()
        optimiser.step()
    assert 0 < loss.weights()["points"] <= 50 * (1 + 1e-6)


def test_a_negative_loss_is_weighted_and_does_not_move_its_parameter():
    params = torch.tensor([1.0, 0.5], requires_grad=True)
    losses = torch.tensor([-4.0, 1.0], requires_grad=True)
    by_params, by_losses = torch.autograd.grad(awl.total(params, losses), (params, losses))
    assert by_params[0] == 0 != by_params[1]
    assert by_losses.tolist() == [0.5, 2.0]


def test_an_offset_lets_a_negative_loss_learn_its_weight():
    loss = awl.AutomaticWeightedLoss(["rle"], offsets={"rle": 10.0})
    value = torch.tensor(-4.0, requires_grad=True)
    loss({"rle": value}).backward()
    assert value.grad == 0.5
    assert loss.params["rle"].grad.item() == pytest.approx(-6 + 1)


def test_the_optimiser_gets_every_parameter_without_decay():
    loss, net = awl.AutomaticWeightedLoss(["points", "bones"]), torch.nn.Linear(1, 1)
    optimiser = torch.optim.AdamW(
        [{"params": net.parameters()}, *awl.parameter_groups(loss)], lr=0.1, weight_decay=0.5
    )
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.5, 0.0]
    assert optimiser.param_groups[1]["params"] == list(loss.params.values())
    assert awl.parameter_groups(torch.nn.ReLU()) == []


def test_what_it_does_not_know_is_refused():
    with pytest.raises(ValueError, match="rle"):
        awl.AutomaticWeightedLoss(["points"], offsets={"rle": 1.0})
    with pytest.raises(ValueError, match="bones"):
        awl.AutomaticWeightedLoss(["points"])({"bones": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="no loss"):
        awl.AutomaticWeightedLoss(["points"])({})
