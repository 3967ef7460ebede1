"""Debiased soft-argmax."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.losses import dsnt, integral


def peak(x: float, y: float, height: float, size: tuple[int, int] = (20, 14)) -> torch.Tensor:
    """Logits (1, 1, H, W): a symmetric bump of radius 3 cells about (x, y), exactly 0 elsewhere."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in size)
    squares = (rows[:, None] - y) ** 2 + (columns - x) ** 2
    return (height * (1 - squares / 9).clamp(min=0))[None, None]


@given(
    seed=st.integers(0, 2**31), scale=st.sampled_from([0.5, 1.0, 3.0]), mass=st.sampled_from(["sum", "mean"])
)
def test_it_is_the_published_formula_on_an_axis_from_0_to_1(seed, scale, mass):
    logits = 1 + torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    raised = torch.exp(scale * logits).flatten(2)
    c = (raised.sum(-1) if mass == "sum" else raised.mean(-1))[..., None]
    biased = (dsnt.expectation(dsnt.softmax(scale * logits)) + 1) / 2
    found = integral.debiased(logits, scale=scale, mass=mass)
    torch.testing.assert_close((found + 1) / 2, c / (c - 1) * (biased - 1 / (2 * c)))


@given(x=st.integers(3, 10), y=st.integers(3, 16), height=st.floats(2, 12))
def test_the_mean_form_recovers_the_centre_of_a_peak(x, y, height):
    logits, truth = peak(x, y, height), torch.tensor([[[x, y]]], dtype=torch.float64)
    found = dsnt.to_cells(integral.debiased(logits, mass="mean", largest=1e6), (20, 14))
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)


def test_the_plain_expectation_and_the_sum_form_are_drawn_to_the_centre():
    logits = peak(3, 3, 4.0)
    plain = dsnt.to_cells(dsnt.expectation(dsnt.softmax(logits)), (20, 14))
    published = dsnt.to_cells(integral.debiased(logits), (20, 14))
    assert (plain > 4).all()
    assert ((plain - published).abs() < 0.1).all()


def test_a_larger_scale_means_a_smaller_correction():
    factors = [
        integral.correction(peak(5, 5, 4.0), scale=scale, mass="mean").item() for scale in (0.5, 1.0, 2.0)
    ]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 1


@pytest.mark.parametrize("mass", ["sum", "mean"])
def test_an_even_map_is_the_centre(mass):
    found = integral.debiased(torch.zeros(1, 2, 5, 4, requires_grad=True), mass=mass)
    assert found.abs().max() < 1e-6


@pytest.mark.parametrize("mass", ["sum", "mean"])
@pytest.mark.parametrize("level", [-1e4, -50.0, -math.log(20), 0.0, 50.0, 1e4])
def test_the_pole_at_a_mass_of_1_is_passed_with_a_bound(mass, level):
    logits = torch.full((1, 1, 4, 5), level)
    logits[..., 1, 1] += 1e-4
    logits.requires_grad_()
    factor = integral.correction(logits, mass=mass, largest=10.0)
    assert 1 <= factor.item() <= 10 * (1 + 1e-5)
    loss = integral.loss(logits, torch.full((1, 1, 2), 0.5), torch.ones(1, 1), mass=mass)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_the_factor_is_continuous_where_its_bound_begins():
    masses = torch.linspace(0.9, 1.3, 401, dtype=torch.float64)
    factors = integral.correction(masses.log().view(401, 1, 1, 1)).flatten()
    assert (factors.diff() <= 1e-12).all()
    assert factors.diff().abs().max() < 0.1
