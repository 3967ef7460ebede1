"""OKS as a loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.skeletons import COCO17
from trainer.losses import oks

LOSS = oks.OKSLoss(COCO17.sigmas)


def people(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predicted and true points (3, 17, 2) in pixels, weights with gaps, areas."""
    generator = torch.Generator().manual_seed(seed)
    target = 200 * torch.rand(3, 17, 2, generator=generator)
    predicted = target + 5 * torch.randn(3, 17, 2, generator=generator)
    weights = (torch.rand(3, 17, generator=generator) < 0.7).float()
    return predicted, target, weights, 1000 + 9000 * torch.rand(3, generator=generator)


def test_it_is_cocos_formula():
    predicted, target, weights, areas = people(0)
    expected = []
    for person in range(3):
        similarities = [
            math.exp(
                -((predicted[person, joint] - target[person, joint]) ** 2).sum().item()
                / (2 * areas[person].item() * (2 * sigma) ** 2)
            )
            for joint, sigma in enumerate(COCO17.sigmas)
            if weights[person, joint] > 0
        ]
        expected.append(sum(similarities) / len(similarities))
    found = oks.similarity(predicted, target, weights, areas, LOSS.sigmas)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert LOSS(predicted, target, weights, areas).item() == pytest.approx(1 - sum(expected) / 3, rel=1e-4)


@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10))
def test_it_is_between_0_and_1_and_does_not_depend_on_the_unit(seed, scale):
    predicted, target, weights, areas = people(seed)
    loss = LOSS(predicted, target, weights, areas)
    assert 0 < loss < 1
    torch.testing.assert_close(LOSS(scale * predicted, scale * target, weights, scale**2 * areas), loss)
    assert LOSS(target, target, weights, areas).item() == pytest.approx(0, abs=1e-6)


def test_people_without_labels_do_not_count():
    predicted, target, weights, areas = people(1)
    weights[1], areas[1] = 0, 0
    others = [0, 2]
    torch.testing.assert_close(
        LOSS(predicted, target, weights, areas),
        LOSS(predicted[others], target[others], weights[others], areas[others]),
    )
