"""Losses between maps and the Gaussian about the true keypoint."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model_zoo.codecs import gaussian
from trainer.losses.heatmap import cross_entropy, gaussians, mean_square, weighted_mean

Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
SIZE = (7, 6)
both = pytest.mark.parametrize("loss", [cross_entropy, mean_square])


def example(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (2, 3, 7, 6), points (2, 3, 2) inside them and weights (2, 3), one of them 0."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 3, *SIZE, generator=generator, dtype=dtype)
    points = torch.rand(2, 3, 2, generator=generator, dtype=dtype) * torch.tensor([5.0, 6.0], dtype=dtype)
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.25, 1.0, 1.0]], dtype=dtype)
    return maps, points, weights


def exact_maps(loss: Loss, points: Tensor, sigma: float) -> Tensor:
    """What a net would have to answer."""
    target = gaussians(points, SIZE, sigma)
    return target.log() if loss is cross_entropy else target


@given(
    x=st.floats(-2, 8, width=32), y=st.floats(-2, 9, width=32), sigma=st.sampled_from([0.7, 1.0, 1.5, 2.0])
)
def test_targets_are_those_of_the_codec(x: float, y: float, sigma: float) -> None:
    ours = gaussians(torch.tensor([[[x, y]]], dtype=torch.float64), SIZE, sigma)
    theirs = gaussian.draw(np.array([[[x, y]]]), SIZE, sigma)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)


@both
def test_gradients_are_those_of_the_loss(loss: Loss) -> None:
    maps, points, weights = example()
    assert torch.autograd.gradcheck(
        lambda each: loss(each, points, weights, 1.0), maps.requires_grad_(), eps=1e-6, atol=1e-8
    )


@both
@given(seed=st.integers(0, 10_000), sigma=st.sampled_from([0.7, 1.0, 2.0]), scale=st.floats(0, 30))
def test_never_below_zero(loss: Loss, seed: int, sigma: float, scale: float) -> None:
    maps, points, weights = example(seed)
    assert loss(maps * scale, points, weights, sigma) >= -1e-12


@both
@given(seed=st.integers(0, 10_000), sigma=st.sampled_from([0.7, 1.0, 2.0]))
def test_zero_with_no_gradient_exactly_at_the_target(loss: Loss, seed: int, sigma: float) -> None:
    _, points, weights = example(seed)
    maps = exact_maps(loss, points, sigma).requires_grad_()
    value = loss(maps, points, weights, sigma)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert maps.grad.abs().max() < 1e-12


@both
def test_worse_the_farther_the_answer_is(loss: Loss) -> None:
    _, points, weights = example()
    steps = (0.0, 0.25, 0.5, 1.0, 1.5)
    values = [loss(exact_maps(loss, points + step, 1.0), points, weights, 1.0).item() for step in steps]
    assert values == sorted(values)
    assert values[1] > 0


@both
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1e30, 1e30])
def test_an_unlabelled_point_may_be_anything(loss: Loss, poison: float) -> None:
    maps, points, weights = example()
    poisoned = torch.where((weights == 0)[..., None], poison, points)
    results = []
    for each in (points, poisoned):
        leaf = maps.clone().requires_grad_()
        value = loss(leaf, each, weights, 1.0)
        value.backward()
        results.append((value, leaf.grad))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=0)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=0, atol=0)
    assert results[0][1].isfinite().all()
    assert (results[0][1][weights == 0] == 0).all()


@both
def test_without_any_label_the_loss_is_zero_and_can_be_stepped_on(loss: Loss) -> None:
    maps, points, weights = example()
    leaf = maps.requires_grad_()
    value = loss(leaf, points * float("nan"), weights * 0, 1.0)
    value.backward()
    assert value.item() == 0
    assert (leaf.grad == 0).all()


@both
def test_weights_are_shares_of_the_mean(loss: Loss) -> None:
    maps, points, weights = example()
    only_one = torch.eye(6, dtype=torch.float64).view(6, 2, 3)
    alone = torch.stack([loss(maps, points, one, 1.0) for one in only_one]).view(2, 3)
    expected = (alone * weights).sum() / weights.sum()
    torch.testing.assert_close(loss(maps, points, weights, 1.0), expected)
    torch.testing.assert_close(loss(maps, points, weights * 3, 1.0), expected)


@both
def test_half_precision_maps_are_judged_in_single(loss: Loss) -> None:
    maps, points, weights = example(dtype=torch.float32)
    rounded = maps.bfloat16()
    value = loss(rounded, points, weights, 1.0)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(rounded.float(), points, weights, 1.0))


def test_cross_entropy_is_a_divergence_of_distributions() -> None:
    # Two cells, worked out by hand: the target is softmax(0, -1/2), the answer is one half each.
    points, one = torch.zeros(1, 1, 2, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    near = 1 / (1 + np.exp(-0.5))
    entropy = -(near * np.log(near) + (1 - near) * np.log(1 - near))
    value = cross_entropy(torch.zeros(1, 1, 1, 2, dtype=torch.float64), points, one, 1.0)
    assert value.item() == pytest.approx(np.log(2) - entropy)
    shifted = cross_entropy(torch.full((1, 1, 1, 2), 9.0, dtype=torch.float64), points, one, 1.0)
    assert shifted.item() == pytest.approx(value.item())


def test_mean_square_by_hand() -> None:
    points, one = torch.zeros(1, 1, 2, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    value = mean_square(torch.zeros(1, 1, 1, 2, dtype=torch.float64), points, one, 1.0)
    assert value.item() == pytest.approx((1 + np.exp(-0.5) ** 2) / 2)


def test_a_loss_of_no_weight_does_not_count_even_as_nan() -> None:
    losses = torch.tensor([[1.0, float("nan")], [3.0, float("inf")]])
    assert weighted_mean(losses, torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item() == 2
