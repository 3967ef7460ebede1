"""Decoding SimCC: MMPose's numbers, exact peaks, ends and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.codecs import simcc
from model_zoo.errors import HeatmapError


def bump(centre: float, bins: int, sigma: float = 4.0, height: float = 1.0) -> np.ndarray:
    """A Gaussian (1, 1, bins)."""
    return height * np.exp(-np.square((np.arange(bins) - centre) / sigma) / 2)[None, None]


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("rule", ["guarded", "mmpose"])
def test_golden_predictions(golden, case, rule):
    numbers = golden("simcc")
    x, y = (numbers[f"case{case}_pred_{axis}"][None] for axis in "xy")
    (points,), (scores,) = simcc.decode(x, y, rule=rule)
    np.testing.assert_array_equal(points, numbers[f"case{case}_decoded_pred_px"])
    np.testing.assert_array_equal(scores, numbers[f"case{case}_decoded_pred_score"])


@pytest.mark.parametrize("case", [0, 1])
def test_golden_targets_with_the_published_rule(golden, case):
    numbers = golden("simcc")
    x, y = (numbers[f"case{case}_target_{axis}"][None] for axis in "xy")
    (points,), (scores,) = simcc.decode(x, y, rule="mmpose")
    np.testing.assert_array_equal(points, numbers[f"case{case}_decoded_targets_px"])
    np.testing.assert_array_equal(scores, numbers[f"case{case}_decoded_targets_score"])


def test_golden_dark_step(golden):
    numbers = golden("simcc")
    x, y = (numbers[f"case1_target_{axis}"][None] for axis in "xy")
    kernels = tuple(simcc.blur_kernel(sigma) for sigma in numbers["case1_sigma_xy"])
    counted = numbers["case1_weights"] > 0
    expected = numbers["case1_decoded_targets_dark_px"]
    (published,), _ = simcc.decode(x, y, blur_kernels=kernels, rule="mmpose")
    np.testing.assert_allclose(published[counted], expected[counted], rtol=0, atol=1e-3)
    assert np.isfinite(published).all()
    (guarded,), _ = simcc.decode(x, y, blur_kernels=kernels)
    near = counted[:, None] & (np.abs(expected - numbers["case1_decoded_targets_px"]) < 0.3)
    assert near.sum() >= 8
    np.testing.assert_allclose(guarded[near], expected[near], rtol=0, atol=1e-3)
    assert np.isfinite(guarded).all()


@given(x=st.floats(12, 50), y=st.floats(12, 50), height=st.floats(0.5, 20))
def test_a_step_finds_the_peak_between_the_bins(x, y, height):
    vectors = bump(x, 64, height=height), bump(y, 64, height=height)
    points, _ = simcc.decode(*vectors, blur_kernels=(1, 1))
    np.testing.assert_allclose(points[0, 0] * 2, [x, y], atol=1e-6)


@given(centre=st.floats(-5, 70))
def test_a_step_never_leaves_the_bound(centre):
    vectors = bump(centre, 64), np.maximum(bump(centre, 64), 1 - bump(20, 64))
    points, _ = simcc.decode(*vectors, blur_kernels=(11, 11))
    first, _ = simcc.decode(*vectors)
    assert np.abs(points - first).max() <= 1.5 / 2


def test_the_score_is_the_smaller_maximum():
    points, scores = simcc.decode(bump(6, 20), bump(7, 30, height=0.25), split_ratio=1.0)
    assert points.tolist() == [[[6, 7]]]
    assert scores.tolist() == [[0.25]]


def test_a_joint_without_a_positive_score_keeps_its_maximum_or_the_published_one():
    x, y = bump(6, 20) - 2, bump(7, 30) - 2
    assert simcc.decode(x, y)[0].tolist() == [[[3, 3.5]]]
    assert simcc.decode(x, y, rule="mmpose")[0].tolist() == [[[-0.5, -0.5]]]


@pytest.mark.parametrize("rule", ["guarded", "mmpose"])
@pytest.mark.parametrize("value", [0.0, -1.0, 1.0, 1e30, 1e-30])
def test_even_vectors_are_finite_and_left_alone(rule, value):
    x = np.full((1, 2, 9), value, np.float32)
    x.flags.writeable = False
    points, scores = simcc.decode(x, x, blur_kernels=(5, 5), rule=rule)
    assert np.isfinite(points).all()
    assert np.isfinite(scores).all()


def test_kernels_are_odd():
    assert [simcc.blur_kernel(sigma) for sigma in (2.45, 4.9, 5.66, 6.0)] == [13, 29, 35, 37]


@pytest.mark.parametrize("bad", [np.zeros((2, 8)), np.zeros((1, 2, 0)), np.full((1, 2, 8), np.nan)])
def test_vectors_that_nobody_can_read_are_refused(bad):
    with pytest.raises(HeatmapError):
        simcc.decode(bad, np.zeros((1, 2, 8)))
