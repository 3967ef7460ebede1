"""The running average of the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trainer.ema import WeightEma


def net(seed: int = 0) -> nn.Sequential:
    """A layer with weights, averaged statistics and a counter."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_it_starts_as_the_net_and_is_a_copy() -> None:
    learner = net()
    average = WeightEma(learner, 0.9)
    before = copy.deepcopy(average.net.state_dict())
    with torch.no_grad():
        learner[0].weight.add_(1)
    for name, value in average.net.state_dict().items():
        assert torch.equal(value, before[name])
    assert not average.net.training
    assert not any(each.requires_grad for each in average.net.parameters())
    assert learner.training
    assert all(each.requires_grad for each in learner.parameters())


def test_the_share_of_the_past_grows_up_to_the_decay() -> None:
    learner = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(learner.weight)
    average = WeightEma(learner, 0.6)
    expected = 0.0
    for step in range(1, 40):
        value = float(step % 5)
        nn.init.constant_(learner.weight, value)
        average.update(learner)
        kept = min(0.6, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * value
        assert average.net.weight.item() == pytest.approx(expected, rel=1e-5)
    assert average.steps == 39


def test_the_first_step_forgets_most_of_the_random_start() -> None:
    learner = nn.Linear(1, 1, bias=False)
    nn.init.constant_(learner.weight, 100.0)
    average = WeightEma(learner, 0.9999)
    nn.init.zeros_(learner.weight)
    average.update(learner)
    assert average.net.weight.item() == pytest.approx(100 * 2 / 11)


def test_it_comes_as_near_as_wanted_to_a_net_that_rests() -> None:
    learner, target = net(), net(1)
    average = WeightEma(learner, 0.9)
    for _ in range(200):
        average.update(target)
    for name, value in target.state_dict().items():
        torch.testing.assert_close(average.net.state_dict()[name], value, atol=1e-5, rtol=0)


def test_statistics_are_averaged_and_counters_taken_over() -> None:
    learner = net()
    average = WeightEma(learner, 0.5)
    learner(torch.randn(8, 3, 4, 4) + 3)
    before = average.net[1].running_mean.clone()
    average.update(learner)
    kept = 2 / 11
    torch.testing.assert_close(
        average.net[1].running_mean, kept * before + (1 - kept) * learner[1].running_mean
    )
    assert average.net[1].num_batches_tracked.item() == 1


def test_the_net_that_is_followed_is_left_alone() -> None:
    learner, before = net(), net().state_dict()
    WeightEma(learner, 0.5).update(learner)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name])
