"""Direct regression: medians, means, densities and bounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.losses import regression

SAMPLES = torch.tensor([0.0, 0.1, 0.2, 0.3, 2.0], dtype=torch.float64)
GUESSES = torch.linspace(0, 1, 1001, dtype=torch.float64)


def of(loss, guess: Tensor) -> float:
    """The loss of one guess for all samples."""
    target = SAMPLES.view(1, -1, 1)
    return loss(guess.expand_as(target), target, torch.ones(1, len(SAMPLES))).item()


@pytest.mark.parametrize(
    ("loss", "best"), [(regression.l1, SAMPLES.median()), (regression.l2, SAMPLES.mean())], ids=["l1", "l2"]
)
def test_the_best_guess_is_the_median_or_the_mean(loss, best):
    losses = [of(loss, guess) for guess in GUESSES]
    assert GUESSES[losses.index(min(losses))].item() == pytest.approx(best.item(), abs=1e-3)


@pytest.mark.parametrize("loss", [regression.laplace, regression.gaussian])
@pytest.mark.parametrize("log_scale", [-2.0, 0.0, 1.0])
def test_likelihoods_integrate_to_1(loss, log_scale):
    x = torch.linspace(-60, 60, 120_001, dtype=torch.float64)
    zero = torch.zeros(1, 1, 1, dtype=torch.float64)
    densities = torch.vmap(lambda at: loss(at.view(1, 1, 1), zero + log_scale, zero, torch.ones(1, 1)))(x)
    assert (torch.exp(-densities).sum() * (x[1] - x[0])).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("loss", "best"), [(regression.laplace, 0.1), (regression.gaussian, 0.1)], ids=["laplace", "gaussian"]
)
def test_the_best_scale_is_the_size_of_the_error(loss, best):
    scales = torch.linspace(0.02, 0.3, 281, dtype=torch.float64)
    error = torch.full((1, 1, 2), 0.1, dtype=torch.float64)
    losses = [
        loss(error, scale.log().expand(1, 1, 2), torch.zeros(1, 1, 2), torch.ones(1, 1)).item()
        for scale in scales
    ]
    assert scales[losses.index(min(losses))].item() == pytest.approx(best, abs=2e-3)


def test_the_gradient_of_l1_is_constant():
    predicted = torch.tensor([[[-3.0, 0.001], [5.0, -0.5]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(
        regression.l1(predicted, torch.zeros(1, 2, 2), torch.ones(1, 2)), predicted
    )
    assert gradient.abs().unique().tolist() == [0.25]


def test_smooth_l1_with_a_wide_beta_is_l2():
    predicted, target = torch.rand(2, 2, 5, 2) - 0.5
    weights = torch.ones(2, 5)
    wide = regression.smooth_l1(predicted, target, weights, beta=1.0)
    torch.testing.assert_close(wide, regression.l2(predicted, target, weights) / 2)
    narrow = regression.smooth_l1(predicted, target, weights, beta=1e-6)
    torch.testing.assert_close(narrow, regression.l1(predicted, target, weights))


@pytest.mark.parametrize("loss", [regression.laplace, regression.gaussian])
@pytest.mark.parametrize("log_scale", [-1e4, 1e4])
def test_a_scale_out_of_bounds_is_finite_and_comes_back(loss, log_scale):
    log_scales = torch.full((1, 2, 2), log_scale, requires_grad=True)
    value = loss(torch.full((1, 2, 2), 0.1), log_scales, torch.zeros(1, 2, 2), torch.ones(1, 2))
    (gradient,) = torch.autograd.grad(value, log_scales)
    assert value.isfinite()
    assert (gradient.sign() == (1 if log_scale > 0 else -1)).all()
