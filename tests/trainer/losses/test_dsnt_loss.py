"""DSNT: dsntnn's numbers, and what must hold for any map."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.codecs import dsnt as codec
from trainer.losses import dsnt
from trainer.losses.masks import masked_mean

EXACT = {"rtol": 1e-9, "atol": 1e-11}
seeds = st.integers(0, 2**31)


def maps(seed: int, *size: int, spread: float = 2.0) -> torch.Tensor:
    """Logits (2, 3, *size)."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("case", range(5))
def test_golden_transform(golden_case, case):
    numbers = golden_case("dsnt", case)
    size, sigma = tuple(numbers["logits"].shape[2:]), float(numbers["sigma_px"])
    probabilities = dsnt.softmax(numbers["logits"])
    coordinates = dsnt.expectation(probabilities)
    found = {
        "probs": probabilities,
        "coords": coordinates,
        "coords_px": dsnt.to_cells(coordinates, size),
        "target_px": dsnt.to_cells(numbers["target"], size),
        "target_roundtrip": dsnt.to_normalised(numbers["target_px"], size),
        "gauss": dsnt.gaussian(numbers["target"], size, sigma),
        "gauss_unnormalized": dsnt.gaussian(numbers["target"], size, sigma, normalise=False),
    }
    for key, value in found.items():
        torch.testing.assert_close(value, numbers[key], **EXACT)


@pytest.mark.parametrize("case", range(5))
def test_golden_losses(golden_case, case):
    numbers, wanted = golden_case("dsnt", case), golden_case("dsnt_losses", case)
    sigma, target, mask = float(numbers["sigma_px"]), numbers["target"], wanted["mask"]
    logits = numbers["logits"].requires_grad_()
    probabilities = dsnt.softmax(logits)
    coordinates = dsnt.expectation(probabilities)
    drawn = dsnt.gaussian(target, tuple(logits.shape[2:]), sigma)
    distances = dsnt.euclidean(coordinates, target)
    total = dsnt.total(logits, target, mask, sigma=sigma)
    found = {
        "euclidean": distances,
        "l1": dsnt.l1(coordinates, target),
        "mse": dsnt.mse(coordinates, target),
        "js": dsnt.js(probabilities, drawn),
        "kl": dsnt.kl(probabilities, drawn),
        "variance_reg": dsnt.variance(probabilities, sigma),
        "mean_euclidean": masked_mean(distances, torch.ones_like(mask)),
        "masked_mean_euclidean": masked_mean(distances, mask),
        "total": total,
        "grad_logits": torch.autograd.grad(total, logits)[0],
    }
    assert found.keys() == wanted.keys() - {"mask"}
    for key, value in found.items():
        torch.testing.assert_close(value, wanted[key], **EXACT)


@pytest.mark.parametrize("size", [(5, 8), (3, 5, 8)])
def test_an_even_map_is_the_centre_and_a_sure_one_its_cell(size):
    even = dsnt.expectation(dsnt.softmax(torch.zeros(1, 1, *size, dtype=torch.float64)))
    torch.testing.assert_close(even, torch.zeros_like(even))
    sure = torch.zeros(1, 1, *size, dtype=torch.float64)
    sure[0, 0][tuple(n - 2 for n in size)] = 1.0
    expected = [dsnt.axis(n, sure)[n - 2].item() for n in reversed(size)]
    assert dsnt.expectation(sure)[0, 0].tolist() == pytest.approx(expected)


@given(seed=seeds)
def test_a_mirrored_map_has_mirrored_coordinates(seed):
    logits = maps(seed, 4, 6)
    x, y = dsnt.expectation(dsnt.softmax(logits)).unbind(-1)
    mirrored_x, same_y = dsnt.expectation(dsnt.softmax(logits.flip(-1))).unbind(-1)
    torch.testing.assert_close(mirrored_x, -x)
    torch.testing.assert_close(same_y, y)


@given(seed=seeds)
def test_moving_a_map_by_a_cell_moves_the_point_by_a_cell(seed):
    inner = dsnt.softmax(maps(seed, 4, 6))
    at = torch.nn.functional.pad(inner, (0, 2, 0, 3))
    moved = torch.nn.functional.pad(inner, (1, 1, 2, 1))
    step = dsnt.expectation(moved) - dsnt.expectation(at)
    torch.testing.assert_close(step, torch.tensor([2 / 8, 2 * 2 / 7], dtype=torch.float64).expand(2, 3, 2))


@given(seed=seeds)
def test_the_order_of_joints_goes_through(seed):
    logits, order = maps(seed, 4, 6), [2, 0, 1]
    torch.testing.assert_close(
        dsnt.expectation(dsnt.softmax(logits[:, order])), dsnt.expectation(dsnt.softmax(logits))[:, order]
    )


@given(seed=seeds, sigma=st.sampled_from([0.5, 1.0, 2.0]))
def test_divergences_have_their_bounds(seed, sigma):
    probabilities = dsnt.softmax(maps(seed, 5, 6, spread=10.0))
    target = dsnt.gaussian(torch.zeros(2, 3, 2, dtype=torch.float64), (5, 6), sigma)
    js, kl = dsnt.js(probabilities, target), dsnt.kl(probabilities, target)
    assert ((js >= 0) & (js <= math.log(2) + 1e-12)).all()
    assert (kl >= -1e-12).all()
    torch.testing.assert_close(dsnt.js(target, target), torch.zeros_like(js))
    torch.testing.assert_close(dsnt.js(probabilities, target), dsnt.js(target, probabilities))


@given(seed=seeds)
def test_a_volume_seen_from_the_front_is_its_depth_marginal(seed):
    volume = dsnt.softmax(maps(seed, 3, 4, 5))
    seen = dsnt.expectation(dsnt.depth_marginal(volume))
    torch.testing.assert_close(dsnt.expectation(volume)[..., :2], seen)


def test_2d_labels_move_a_volume_across_and_not_along_its_depth():
    logits = maps(0, 3, 4, 5).requires_grad_()
    target, weights = torch.full((2, 3, 2), 0.3, dtype=torch.float64), torch.ones(2, 3)
    flat = logits.logsumexp(2)  # the logits of the depth-marginal
    loss = dsnt.total(logits, target, weights)
    torch.testing.assert_close(loss, dsnt.total(flat, target, weights))
    (gradient,) = torch.autograd.grad(loss, logits)
    shares = logits.softmax(2)  # each column moves as one
    torch.testing.assert_close(gradient, gradient.sum(2, keepdim=True) * shares)


def test_the_gradient_is_zero_only_at_the_mean():
    logits = torch.zeros(1, 1, 1, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(dsnt.expectation(dsnt.softmax(logits))[0, 0, 0], logits)
    assert gradient.flatten().sign().tolist() == [-1, -1, 0, 1, 1]


def test_an_exact_prediction_has_a_finite_gradient():
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = dsnt.total(logits, torch.zeros(1, 1, 2), torch.ones(1, 1), regulariser=None)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert (gradient == 0).all()


def test_the_variance_is_counted_in_cells():
    drawn = dsnt.gaussian(torch.zeros(1, 1, 2, dtype=torch.float64), (31, 41), 2.0)
    assert dsnt.variance(drawn, 2.0).item() == pytest.approx(0, abs=1e-9)
    assert dsnt.variance(drawn, 1.0).item() == pytest.approx(2 * 3.0**2)


def test_the_codec_decodes_what_is_trained():
    logits = maps(0, 6, 5)
    points, _ = codec.decode(dsnt.softmax(logits).numpy())
    trained = dsnt.to_cells(dsnt.expectation(dsnt.softmax(logits)), (6, 5))
    torch.testing.assert_close(torch.from_numpy(points), trained)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([1e4, -1e4, 0.0, 5.0]).view(1, 1, 2, 2).requires_grad_()
    for regulariser in ("js", "kl", "variance"):
        loss = dsnt.total(logits, torch.full((1, 1, 2), 0.9), torch.ones(1, 1), regulariser=regulariser)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()
