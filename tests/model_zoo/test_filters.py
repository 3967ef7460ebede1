"""Filters over time against the original numbers, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model_zoo import filters
from model_zoo.filters import Ema, OneEuro

EXACT = {"rtol": 1e-9, "atol": 1e-11}
FRAMES = 60
tracks = hnp.arrays(np.float64, (8, 3, 2), elements=st.floats(-1e3, 1e3))


def smoothed(make, track, steps=None):
    """A track through an `Ema`, or with steps through a `OneEuro`."""
    if steps is None:
        return np.stack([make(points) for points in track])
    return np.stack([make(points, dt) for points, dt in zip(track, steps, strict=True)])


def noisy(seed=0):
    return np.random.default_rng(seed).normal(size=(FRAMES, 3, 2))


def even(rate=30.0, frames=FRAMES):
    return [1 / rate] * frames


def test_moving_average(golden):
    numbers = golden("filters")
    for alpha, expected in zip(numbers["ema_alpha"], numbers["ema"], strict=True):
        np.testing.assert_allclose(smoothed(Ema(alpha), numbers["x"]), expected, **EXACT)


@pytest.mark.parametrize("key", ["one_euro_fixed_rate", "one_euro_timestamps"])
def test_one_euro(golden, key):
    numbers = golden("filters")
    rate = float(numbers["freq"])
    even_times = np.arange(len(numbers["x"])) / rate + 1
    times = numbers["timestamps"] if key == "one_euro_timestamps" else even_times
    for parameters, expected in zip(
        numbers["one_euro_params_mincutoff_beta_dcutoff"], numbers[key], strict=True
    ):
        found = smoothed(OneEuro(*parameters), numbers["x"], filters.steps(times, rate))
        np.testing.assert_allclose(found, expected, **EXACT)


def test_one_euro_on_the_published_sequence(golden):
    numbers = golden("one_euro_published")
    make = OneEuro(*(float(numbers[key]) for key in ("mincutoff", "beta", "dcutoff")))
    assert numbers["timestamp"][0] == 0.0
    steps = filters.steps(numbers["timestamp"], float(numbers["freq"]), zero_is_missing=True)
    np.testing.assert_allclose(smoothed(make, numbers["noisy"], steps), numbers["filtered"], atol=1e-4)


def test_zero_is_a_time_like_any_other():
    times = np.array([0.0, 0.1, 0.15])
    np.testing.assert_allclose(filters.steps(times, 30.0), [1 / 30, 0.1, 0.05])
    np.testing.assert_allclose(filters.steps(times + 7, 30.0), [1 / 30, 0.1, 0.05])
    np.testing.assert_allclose(filters.steps(times, 30.0, zero_is_missing=True), [1 / 30, 1 / 30, 0.05])


def test_time_that_does_not_move_on_keeps_the_last_step():
    np.testing.assert_allclose(
        filters.steps([1.0, 1.0, 1.5, 1.2, 1.3], 10.0), [0.1, 0.1, 0.5, 0.5, 0.1], atol=1e-12
    )


@pytest.mark.parametrize("make", [lambda: Ema(0.3), lambda: OneEuro(1.0, 0.5, 1.0)])
def test_a_constant_stays_and_reset_forgets(make):
    each = make()
    points = np.array([[1.5, -2.0], [300.0, 0.0]])
    arguments = (points,) if isinstance(each, Ema) else (points, 0.03)
    for _ in range(5):
        np.testing.assert_allclose(each(*arguments), points, **EXACT)
    each.reset()
    other = (points + 50, *arguments[1:])
    np.testing.assert_array_equal(each(*other), points + 50)


@given(track=tracks)
def test_alpha_one_is_the_identity(track):
    np.testing.assert_array_equal(smoothed(Ema(1.0), track), track)


@given(one=tracks, other=tracks, factor=st.floats(-3, 3))
def test_a_moving_average_is_linear(one, other, factor):
    joint = smoothed(Ema(0.4), one + factor * other)
    apart = smoothed(Ema(0.4), one) + factor * smoothed(Ema(0.4), other)
    np.testing.assert_allclose(joint, apart, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_impulse_response_noise_and_lag(alpha):
    impulse = np.zeros((20, 1, 2))
    impulse[1] = 1
    np.testing.assert_allclose(
        smoothed(Ema(alpha), impulse)[1:, 0, 0], alpha * (1 - alpha) ** np.arange(19), **EXACT
    )
    noise = np.random.default_rng(0).normal(size=(40_000, 1, 2))
    assert smoothed(Ema(alpha), noise).var() == pytest.approx(alpha / (2 - alpha), rel=0.05)
    ramp = np.arange(400.0)[:, None, None]
    assert 399 - smoothed(Ema(alpha), ramp)[-1, 0, 0] == pytest.approx((1 - alpha) / alpha, rel=1e-6)


def test_without_beta_one_euro_is_a_fixed_moving_average():
    alpha = float(filters.share(1.7, 1 / 30))
    np.testing.assert_allclose(
        smoothed(OneEuro(1.7, 0.0), noisy(), even()), smoothed(Ema(alpha), noisy()), **EXACT
    )


@pytest.mark.parametrize("beta", [0.0, 0.007, 1.0])
def test_jitter_falls_and_a_step_is_climbed_steadily(beta):
    jitter = np.abs(np.diff(smoothed(OneEuro(1.0, beta), noisy(), even()), axis=0)).mean()
    assert jitter < 0.7 * np.abs(np.diff(noisy(), axis=0)).mean()
    step = np.zeros((FRAMES, 1, 2))
    step[5:] = 10
    answer = smoothed(OneEuro(1.0, beta), step, even())[:, 0, 0]
    assert (np.diff(answer) >= 0).all()
    assert answer[4] == 0
    assert 9 < answer[-1] <= 10


def test_faster_motion_is_less_late_with_beta():
    ramp = np.arange(FRAMES)[:, None, None] * np.array([[5.0, 0.0]])
    late = [(ramp - smoothed(OneEuro(1.0, beta), ramp, even()))[-1, 0, 0] for beta in (0.0, 0.01, 0.1)]
    assert late[0] > late[1] > late[2] > 0


def test_coordinates_do_not_touch_each_other():
    track = noisy()
    for make, steps in ((lambda: Ema(0.3), None), (lambda: OneEuro(1.0, 0.5), even())):
        together = smoothed(make(), track, steps)
        np.testing.assert_allclose(
            smoothed(make(), track[:, 1:2, 1:], steps), together[:, 1:2, 1:], rtol=1e-12, atol=1e-12
        )
        poisoned = track.copy()
        poisoned[:, 0, 0] = np.nan
        np.testing.assert_array_equal(smoothed(make(), poisoned, steps)[:, 1:], together[:, 1:])


def test_inputs_are_left_alone_and_results_belong_to_the_caller():
    points = np.ones((3, 2))
    points.flags.writeable = False
    average = Ema(0.5)
    average(points)[:] = 99
    np.testing.assert_array_equal(average(points), points)


@pytest.mark.parametrize("wrong", [lambda: Ema(0.0), lambda: Ema(1.1), lambda: OneEuro(0.0)])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        wrong()


def test_a_step_without_length_is_refused():
    with pytest.raises(ValueError, match="positive"):
        OneEuro()(np.zeros((1, 2)), 0.0)
