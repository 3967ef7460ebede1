"""Smoothing of a live stream: what it promises at any rate, size and turn of the picture, and when it forgets."""

from __future__ import annotations

import math
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo import filters
from service.errors import InvalidRequest
from service.streams import smoothers
from service.streams.smoothing import FORGOTTEN, Reset, Rules, length_of, smooth

K = 6
BODY = np.array([[0, 0], [20, 40], [-20, 40], [15, 100], [-15, 100], [0, 160]], float) + 200
SURE = np.full(K, 0.9)
RULES = Rules()
MADE = [smoothers.Nothing(), smoothers.Ema(), smoothers.OneEuro()]


def run(smoother, times, track, scores=None):
    """Every frame's answer, and the last state."""
    state, answers = None, []
    for index, (time_s, points) in enumerate(zip(times, track, strict=True)):
        answer, state = smooth(smoother, state, time_s, points, SURE if scores is None else scores[index])
        answers.append(answer)
    return answers, state


def noisy(frames, seed=0, amount=2.0):
    return BODY + np.random.default_rng(seed).normal(0, amount, (frames, K, 2))


def bends(answers):
    return np.linalg.norm(np.diff([each.points for each in answers], n=2, axis=0), axis=-1).mean()


@pytest.mark.parametrize("smoother", MADE)
def test_a_still_person_stays_where_they_are(smoother):
    answers, _ = run(smoother, np.arange(20) / 30, np.repeat(BODY[None], 20, axis=0))
    for answer in answers:
        np.testing.assert_allclose(answer.points, BODY, atol=1e-4)
        np.testing.assert_array_equal(answer.scores, SURE)
        assert answer.reset is None


@pytest.mark.parametrize("smoother", MADE[1:])
@pytest.mark.parametrize("rate", [10, 30, 60])
def test_noise_at_rest_is_calmed(smoother, rate):
    answers, _ = run(smoother, np.arange(6 * rate) / rate, noisy(6 * rate))
    raw, _ = run(smoothers.Nothing(), np.arange(6 * rate) / rate, noisy(6 * rate))
    assert bends(answers) < (0.4 if isinstance(smoother, smoothers.OneEuro) else 0.95) * bends(raw)


def test_a_joint_that_cannot_decide_between_two_places_is_calmed():
    """At rest, and in one frame of eight elsewhere: noise of rare large errors, not motion."""
    cuts = []
    for seed in range(6):
        track, chance = noisy(180, seed, 0.6), np.random.default_rng(seed)
        track[:, 2] += np.where(chance.random((180, 1)) < 0.125, 1.0, 0.0) * np.array([25.0, 10.0])
        answers, _ = run(smoothers.OneEuro(), np.arange(180) / 30, track)
        smoothed = np.array([each.points for each in answers])
        after, before = (np.diff(each[30:, 2], n=2, axis=0) for each in (smoothed, track))
        cuts.append(1 - np.linalg.norm(after, axis=-1).mean() / np.linalg.norm(before, axis=-1).mean())
    assert np.mean(cuts) > 0.92, cuts


def test_how_much_a_joint_trembles_is_learnt():
    last = [
        run(smoothers.OneEuro(), np.arange(120) / 30, noisy(120, seed))[1].memory[4] for seed in range(20)
    ]
    np.testing.assert_allclose(np.mean(last, axis=0)[:, 0], 2.0, rtol=0.1)


def test_no_smoothing_is_the_raw_points():
    track = noisy(30)
    answers, _ = run(smoothers.Nothing(), np.arange(30) / 30, track)
    np.testing.assert_array_equal([each.points for each in answers], track)
    assert {each.lag_s for each in answers} == {0.0}


def test_an_average_is_the_published_one_at_its_own_rate():
    track, published = noisy(40), filters.Ema(0.3)
    answers, _ = run(smoothers.Ema(0.3, 25.0), np.arange(40) / 25, track)
    np.testing.assert_allclose(
        [each.points for each in answers], [published(each) for each in track], atol=1e-3
    )


@pytest.mark.parametrize("smoother", MADE[1:])
def test_dropped_frames_do_not_change_what_a_steady_signal_settles_at(smoother):
    """One step to another place: an average gets there the same way, the 1€ filter to the same place."""
    times = np.arange(241) / 60
    track = np.repeat(BODY[None], 241, axis=0)
    track[1:] += [3.0, -2.0]
    whole, _ = run(smoother, times, track)
    halved, _ = run(smoother, times[::2], track[::2])
    if isinstance(smoother, smoothers.Ema):
        for full, half in zip(whole[::2], halved, strict=True):
            np.testing.assert_allclose(full.points, half.points, atol=1e-4)
    np.testing.assert_allclose(whole[-1].points, halved[-1].points, atol=0.2)


@given(cuts=st.lists(st.floats(0.001, 0.2), min_size=1, max_size=12), alpha=st.floats(0.05, 0.95))
def test_gains_over_parts_of_an_interval_are_the_gain_over_the_whole(cuts, alpha):
    kept = np.prod([1 - filters.gain_over(alpha, 30.0, dt) for dt in cuts])
    assert kept == pytest.approx(1 - filters.gain_over(alpha, 30.0, sum(cuts)), abs=1e-12)
    kept = np.prod([1 - filters.gain(2.0, dt) for dt in cuts])
    assert kept == pytest.approx(1 - filters.gain(2.0, sum(cuts)), abs=1e-12)


@given(scale=st.floats(0.2, 5), angle=st.floats(0, 2 * math.pi), seed=st.integers(0, 99))
@pytest.mark.parametrize("smoother", MADE)
def test_size_and_turn_of_the_picture_make_no_difference(smoother, scale, angle, seed):
    track = noisy(12, seed) + np.linspace(0, 40, 12)[:, None, None]
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    plain, _ = run(smoother, np.arange(12) / 30, track)
    turned, _ = run(smoother, np.arange(12) / 30, track @ turn.T)
    for one, other in zip(plain, turned, strict=True):
        np.testing.assert_allclose(one.points @ turn.T, other.points, atol=0.02 * scale)


@pytest.mark.parametrize("smoother", MADE[1:])
def test_the_estimated_lag_is_that_of_a_steady_motion(smoother):
    rate, speed = 30, np.array([90.0, 40.0])
    times = np.arange(90) / rate
    track = BODY + times[:, None, None] * speed
    answers, _ = run(smoother, times, track)
    late_s = np.linalg.norm(track[-1] - answers[-1].points, axis=-1).mean() / np.linalg.norm(speed)
    assert answers[-1].lag_s == pytest.approx(late_s, rel=0.05)
    assert answers[-1].lag_frames == pytest.approx(late_s * rate, rel=0.05)
    assert late_s * rate <= 1.0 + 1e-6


@pytest.mark.parametrize("smoother", MADE[1:])
def test_the_estimated_lag_is_not_that_of_joints_that_are_half_sure_or_tremble(smoother):
    """The lag of a clear motion, where one joint is hardly trusted and the others tremble."""
    times = np.arange(90) / 30
    track = BODY + times[:, None, None] * np.array([90.0, 40.0])
    scores = np.repeat(SURE[None], 90, axis=0)
    clear, _ = run(smoother, times, track)
    scores[:, 0] = RULES.hold_below + 0.01
    trembling, _ = run(smoother, times, track + noisy(90, amount=1.0) - BODY, scores)
    said, expected = (np.mean([each.lag_frames for each in some[30:]]) for some in (trembling, clear))
    assert said < 1.3 * expected + 0.1


def test_an_unsure_joint_holds_then_fades_then_is_let_go():
    times = np.arange(40) / 30
    track = np.repeat(BODY[None], 40, axis=0)
    scores = np.repeat(SURE[None], 40, axis=0)
    track[10:, 0] += 60  # the model guesses elsewhere
    scores[10:, 0] = 0.05
    answers, state = run(smoothers.OneEuro(), times, track, scores)
    shown = np.array([each.scores[0] for each in answers])
    gone = times - times[9]
    held = (gone > 0) & (gone <= RULES.hold_s)
    fading = (gone > RULES.hold_s) & (gone < RULES.hold_s + RULES.fade_s - 0.01)
    np.testing.assert_allclose(shown[held], 0.9, atol=1e-6)
    assert (np.diff(shown[fading]) < 0).all()
    assert (shown >= 0.05).all()
    for index in np.flatnonzero(held | fading):
        np.testing.assert_allclose(answers[index].points[0], BODY[0], atol=1e-3)
    np.testing.assert_array_equal(answers[-1].points[0], track[-1, 0])
    assert shown[-1] == 0.05
    assert state.ages_s[0] == FORGOTTEN
    np.testing.assert_allclose(answers[-1].points[1:], BODY[1:], atol=1e-3)


def test_a_forgotten_joint_begins_where_it_is_found_again():
    track = np.repeat(BODY[None], 30, axis=0)
    scores = np.repeat(SURE[None], 30, axis=0)
    scores[2:25, 0] = 0.0
    track[25:, 0] += 30
    answers, _ = run(smoothers.OneEuro(), np.arange(30) / 30, track, scores)
    np.testing.assert_allclose(answers[25].points[0], track[25, 0], atol=1e-4)


def test_a_half_sure_joint_moves_less_than_a_sure_one():
    track = np.repeat(BODY[None], 3, axis=0)
    track[2] += 5
    scores = np.repeat(SURE[None], 3, axis=0)
    scores[2, 0] = 0.25
    answers, _ = run(smoothers.Ema(), np.arange(3) / 30, track, scores)
    moved = np.linalg.norm(answers[2].points - BODY, axis=-1)
    assert 0 < moved[0] < moved[1] * 0.8


@pytest.mark.parametrize("smoother", MADE)
def test_a_cut_and_a_gap_begin_anew(smoother):
    track = noisy(4)
    answers, state = run(smoother, np.arange(4) / 30, track)
    assert {each.reset for each in answers} == {None}
    elsewhere = BODY + np.array([150.0, 0.0])
    cut, _ = smooth(smoother, state, 4 / 30, elsewhere, SURE)
    assert cut.reset is Reset.JUMP
    np.testing.assert_array_equal(cut.points, elsewhere)
    assert (cut.lag_s, cut.lag_frames) == (0.0, 0.0)
    gap, _ = smooth(smoother, state, 3 / 30 + RULES.gap_s + 0.01, BODY, SURE)
    assert gap.reset is Reset.GAP
    np.testing.assert_array_equal(gap.points, BODY)


def test_one_joint_that_leaps_is_no_cut():
    track = noisy(4)
    track[3, 0] += 300
    answers, _ = run(smoothers.OneEuro(), np.arange(4) / 30, track)
    assert answers[-1].reset is None


@pytest.mark.parametrize("time_s", [1.0, 0.5, float("nan")])
def test_time_must_move_on(time_s):
    _, state = smooth(MADE[2], None, 1.0, BODY, SURE)
    with pytest.raises(ValueError, match="move on"):
        smooth(MADE[2], state, time_s, BODY, SURE)


@pytest.mark.parametrize("smoother", MADE)
def test_inputs_and_states_are_left_alone(smoother):
    points, scores = BODY.copy(), SURE.copy()
    points.flags.writeable = scores.flags.writeable = False
    _, state = smooth(smoother, None, 0.0, points, scores)
    kept = {name: np.copy(getattr(state, name)) for name in ("memory", "raw", "ages_s", "scores")}
    answer, _ = smooth(smoother, state, 0.1, points + 3, scores)
    answer.points[:] = -1
    for name, before in kept.items():
        np.testing.assert_array_equal(getattr(state, name), before)


@given(angle=st.floats(0, math.pi), length=st.floats(1, 1000))
def test_the_length_of_a_line_of_joints_is_its_length(angle, length):
    line = np.linspace(0, length, 400)[:, None] * np.array([[math.cos(angle), math.sin(angle)]])
    assert length_of(line) == pytest.approx(length, rel=0.01)
    assert length_of(line[:1]) == 0.0


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("kalman", {}, "unknown smoother 'kalman'; known: ema, none, one_euro"),
        ("ema", {"alpha": 0.0}, "alpha must be above 0"),
        ("ema", {"alpha": float("nan")}, "alpha must be"),
        ("ema", {"beta": 1.0}, "'ema' has no parameter 'beta'; its parameters: alpha, rate_hz"),
        ("none", {"alpha": 1.0}, "'none' has no parameter 'alpha'; its parameters: none"),
        ("one_euro", {"self": 1.0}, "no parameter 'self'"),
        ("one_euro", {"beta": -1.0}, "beta must be between"),
        ("one_euro", {"noise": float("inf")}, "noise must be between"),
    ],
)
def test_what_cannot_be_made_is_refused(name, parameters, said):
    with pytest.raises(InvalidRequest, match=said) as refused:
        smoothers.make(name, parameters)
    assert refused.value.field == ("smoothing" if name == "kalman" else "parameters")


class Halfway:
    """A plug-in: always halfway."""

    rows = 1

    def begin(self, points):
        return points[None]

    def step(self, points, memory, dt, weights, size):
        smoothed = (points + memory[0]) / 2
        return smoothers.Step(smoothed, smoothed[None], np.full(len(points), dt))


class Greedy(Halfway):
    rows = 100


def test_plug_ins_are_found_by_name_and_broken_ones_harm_only_who_asks(monkeypatch):
    offered = [
        EntryPoint("halfway", f"{__name__}:Halfway", smoothers.ENTRY_POINT_GROUP),
        EntryPoint("ema", f"{__name__}:Halfway", smoothers.ENTRY_POINT_GROUP),
        EntryPoint("gone", "no_such_package:Smoother", smoothers.ENTRY_POINT_GROUP),
        EntryPoint("greedy", f"{__name__}:Greedy", smoothers.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(smoothers, "entry_points", lambda group: offered)
    monkeypatch.setattr(EntryPoint, "load", _load)
    smoothers.plug_ins.cache_clear()
    try:
        assert smoothers.names() == ["ema", "gone", "greedy", "halfway", "none", "one_euro"]
        answers, _ = run(smoothers.make("halfway", {}), [0.0, 0.1], [BODY, BODY + 4])
        np.testing.assert_allclose(answers[1].points, BODY + 2, atol=1e-4)
        assert isinstance(smoothers.make("ema", {}), smoothers.Ema)
        with pytest.raises(InvalidRequest, match="cannot be loaded"):
            smoothers.make("gone", {})
        with pytest.raises(InvalidRequest, match="rows of memory"):
            smoothers.make("greedy", {})
    finally:
        smoothers.plug_ins.cache_clear()


def _load(plug_in):
    if plug_in.module != __name__:
        raise ModuleNotFoundError(plug_in.module)
    return globals()[plug_in.attr]


def test_the_package_lists_its_own_smoothers_in_the_group():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    listed = project["entry-points"][smoothers.ENTRY_POINT_GROUP]
    found = {name: EntryPoint(name, value, "").load() for name, value in listed.items()}
    assert found == dict(smoothers.SMOOTHERS)
