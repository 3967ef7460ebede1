"""Temperatures and Platt's map: what made the probabilities wrong is found again, and errors are what they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_zoo.scores import sigmoid
from trainer import reliability
from trainer.errors import DataError
from trainer.reliability import SCALES, Affine


def drawn(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """True log-odds, and outcomes drawn by them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.5, 2, count)
    return x, rng.random(count) < sigmoid(x)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (4.0, 0.0), (0.25, 0.0), (3.0, 2.0), (0.5, -3.0)])
def test_a_distortion_of_log_odds_is_undone(scale, shift):
    x, true = drawn(20_000)
    found = reliability.affine((x - shift) / scale, true)
    assert found.scale == pytest.approx(scale, rel=0.06)
    assert found.shift == pytest.approx(shift, abs=0.1 + 0.04 * abs(shift))
    fit = reliability.events((x - shift) / scale, true)
    assert fit.error < 0.01
    assert fit.error_before >= fit.error or scale == 1.0


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_a_temperature_of_classes_is_found_again(scale):
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (8000, 6))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)  # drawn by the softmax of the logits
    found = reliability.temperature(logits / scale, labels)
    assert found.scale == pytest.approx(scale, rel=0.05)
    fit = reliability.classes(logits / scale, labels)
    assert fit.error < 0.02
    assert fit.count == 8000


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), spread=st.floats(1e-3, 1e3), centre=st.floats(-1e3, 1e3))
def test_the_map_only_rises_whatever_it_is_fitted_to(seed, spread, centre):
    rng = np.random.default_rng(seed)
    x, true = rng.normal(centre, spread, 60), rng.random(60) < 0.5
    if 0 < true.sum() < 60:
        found = reliability.affine(x, true)
        assert SCALES[0] <= found.scale <= SCALES[1]
        assert np.isfinite(found.shift)


def test_log_odds_that_are_the_wrong_way_round_are_not_turned_over():
    x, true = drawn(2000)
    found = reliability.affine(-x, true)
    assert found.scale == SCALES[0]
    assert sigmoid(found(-x)).mean() == pytest.approx(true.mean(), abs=0.02)


def test_few_cases_that_are_all_right_make_nothing_certain():
    x = np.r_[np.full(20, 9.0), np.full(20, -9.0)]
    found = sigmoid(reliability.affine(x, x > 0)(x))
    assert 0.9 < found[0] < 0.99
    assert 0.01 < found[-1] < 0.1
    logits = np.eye(4)[np.arange(40) % 4] * 30
    sure = reliability.softmax(reliability.temperature(logits, np.arange(40) % 4)(logits)).max(axis=-1)
    assert 0.9 < sure[0] < 0.999


@pytest.mark.parametrize("true", [np.ones(50, bool), np.zeros(50, bool), np.arange(10) % 2 == 0])
def test_too_few_cases_are_refused(true):
    with pytest.raises(DataError, match="too few to calibrate on"):
        reliability.affine(np.linspace(-1, 1, len(true)), true)
    with pytest.raises(DataError, match="too few to calibrate on"):
        reliability.temperature(np.zeros((19, 3)), np.zeros(19, int))


def test_the_expected_error_is_the_mean_distance_of_what_is_said_and_what_comes_true():
    p = np.array([0.05, 0.05, 0.55, 0.55, 0.55, 0.55, 1.0, 1.0])
    true = np.array([False, True, True, True, False, True, True, True])
    bins = reliability.reliability(p, true, bins=10)
    assert [each.count for each in bins] == [2, 4, 2]
    assert [each.frequency for each in bins] == [0.5, 0.75, 1.0]
    assert reliability.expected_error(bins) == pytest.approx((2 * 0.45 + 4 * 0.2) / 8)


@given(x=st.lists(st.floats(0, 1), min_size=1, max_size=40), bins=st.integers(1, 20))
def test_every_case_is_in_one_bin(x, bins):
    true = np.array(x) > 0.5
    found = reliability.reliability(np.array(x), true, bins)
    assert sum(each.count for each in found) == len(x)
    assert 0 <= reliability.expected_error(found) <= 1


def test_the_error_with_the_map_is_no_self_praise():
    """Of noise nothing can be learnt, and what is fitted on the same cases would look better than it is."""
    rng = np.random.default_rng(4)
    errors = []
    for _ in range(60):
        x, true = rng.normal(0, 3, 40), rng.random(40) < 0.5
        fit = reliability.events(x, true, bins=5)
        own = reliability.expected_error(reliability.reliability(sigmoid(fit.affine(x)), true, 5))
        errors.append((fit.error, own))
    held_out, own = np.mean(errors, axis=0)
    assert held_out > own


def test_one_person_s_keypoints_are_not_on_both_sides():
    """Cases that are right or wrong together would be recognised in the other half."""
    rng = np.random.default_rng(5)
    apart, together = [], []
    for _ in range(40):
        whose = np.repeat(np.arange(40), 10)
        x, true = rng.normal(0, 3, 40)[whose], (rng.random(40) < 0.5)[whose]
        together.append(reliability.events(x, true, whose=whose, bins=5).error)
        apart.append(reliability.events(x, true, bins=5).error)
    assert np.mean(together) > 1.2 * np.mean(apart)


def test_an_affine_map_is_what_it_says():
    np.testing.assert_array_equal(Affine(2.0, 1.0)(np.array([0.0, 3.0])), [1.0, 7.0])
