"""Presence and classes in a video: calmed by time, decided with a margin, carried elsewhere without a difference."""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo import scores, skeletons
from model_zoo.manifest import Calibration
from service.errors import BrokenSession, InvalidRequest
from service.streams import state as states
from service.streams.said import Rules, Said, bounds, calm
from service.streams.session import Session
from service.streams.state import SessionConfig
from service.types import BoxSource, Classified, Heads, Pose
from tests import tiny_model

SIGMAS = skeletons.BODY19.sigmas
K = len(SIGMAS)
SIZE = (480, 640)
LABELS = ("fist", "open", "point")
RULES = Rules()


def heads(presence=0.9, classes=(0.1, 0.8, 0.1), least=0.5):
    """What a model says in one frame."""
    numbers = np.array(classes, float)
    one = Classified("gesture", LABELS, numbers, int(numbers.argmax()))
    return Heads(presence, presence >= least, least, (one,), np.zeros(K))


def play(frames, step=1 / 30, before=None, time_s=0.0):
    """The answers to one frame after the other."""
    answers = []
    for each in frames:
        answer, before = calm(before, time_s, each)
        answers.append(answer)
        time_s += step
    return answers, before


def test_the_first_frame_is_taken_as_it_is():
    (answer,), after = play([heads(0.62, (0.2, 0.5, 0.3))])
    assert (answer.presence, answer.present, answer.classes[0].label) == (0.62, True, "open")
    assert after.time_s == 0.0
    (absent,), _ = play([heads(0.49)])
    assert not absent.present


def test_what_stays_the_same_stays_the_same():
    answers, _ = play([heads(0.8, (0.25, 0.5, 0.25))] * 20)
    assert {(each.presence, each.present, each.classes[0].label) for each in answers} == {(0.8, True, "open")}
    for each in answers:
        np.testing.assert_array_equal(each.classes[0].probabilities, [0.25, 0.5, 0.25])


@pytest.mark.parametrize("step", [1 / 120, 1 / 30, 1 / 10])
def test_a_step_is_followed_by_time_and_not_by_frames(step):
    answers, _ = play([heads(1.0), *[heads(0.0)] * math.ceil(0.4 / step)], step=step)
    for index, each in enumerate(answers):
        assert each.presence == pytest.approx(math.exp(-index * step / RULES.presence_s), abs=1e-3)


def test_presence_that_trembles_about_the_least_one_makes_nobody_flicker():
    rng = np.random.default_rng(1)
    trembling = [heads(float(np.clip(0.5 + rng.normal(0, 0.15), 0, 1))) for _ in range(300)]
    alone = [each.present for each in trembling]
    calmed = [each.present for each in play(trembling)[0]]

    def changes(row):
        return sum(a != b for a, b in itertools.pairwise(row))

    assert changes(alone) > 80
    assert changes(calmed) <= changes(alone) / 10


def test_who_leaves_is_gone_and_who_comes_is_there_within_a_moment():
    leaving = [each.present for each in play([heads(0.95)] * 10 + [heads(0.02)] * 10)[0]]
    assert leaving[:10] == [True] * 10
    assert leaving.index(False) - 10 in range(2, 6)
    coming = [each.present for each in play([heads(0.02)] * 10 + [heads(0.95)] * 10)[0]]
    assert coming[:10] == [False] * 10
    assert coming.index(True) - 10 in range(2, 6)


def test_one_blurred_frame_changes_neither_presence_nor_class():
    frames = [heads()] * 10 + [heads(0.05, (0.9, 0.05, 0.05))] + [heads()] * 10
    assert all(each.present and each.classes[0].label == "open" for each in play(frames)[0])


def test_a_class_changes_once_and_not_before_it_leads():
    frames = [heads()] * 10 + [heads(classes=(0.9, 0.05, 0.05))] * 20
    answers = [each.classes[0] for each in play(frames)[0]]
    labels = [each.label for each in answers]
    changed = labels.index("fist")
    assert labels == ["open"] * changed + ["fist"] * (len(labels) - changed)
    assert 3 <= changed - 10 <= 9
    before, after = answers[changed - 1].probabilities, answers[changed].probabilities
    assert before[0] - before[1] < RULES.lead <= after[0] - after[1] + 1e-3


def test_two_classes_that_are_as_likely_do_not_take_turns():
    frames = [heads(classes=(0.5, 0.45, 0.05) if index % 2 else (0.45, 0.5, 0.05)) for index in range(60)]
    assert len({each.classes[0].label for each in play(frames)[0]}) == 1


def test_frames_in_which_nobody_is_sure_to_be_there_count_less():
    def after(presence):
        frames = [heads()] * 5 + [heads(presence, (0.9, 0.05, 0.05))] * 4
        return play(frames)[0][-1].classes[0].probabilities[0]

    assert after(0.95) > after(0.3) > after(0.01)
    assert after(0.0) == pytest.approx(0.1, abs=1e-6)


def test_after_a_pause_all_begins_anew():
    _, before = play([heads()] * 5)
    answer, _ = calm(before, before.time_s + RULES.gap_s + 0.01, heads(0.3, (0.8, 0.1, 0.1)))
    assert (answer.presence, answer.present, answer.classes[0].label) == (0.3, False, "fist")


def test_what_is_remembered_of_another_model_is_forgotten():
    _, before = play([heads()] * 5)
    other = Classified("gesture", ("a", "b"), np.array([0.3, 0.7]), 1)
    answer, after = calm(before, 0.2, replace(heads(), classes=(other,)))
    assert answer.classes[0].label == "b"
    assert len(after.classes[0][0]) == 2
    without, after = calm(after, 0.21, replace(heads(), presence=None, classes=()))
    assert (without.presence, without.present, without.classes) == (None, True, ())
    assert after.presence is None


@given(least=st.floats(0, 1))
def test_both_bounds_can_be_reached_and_lie_around_the_least_one(least):
    gone, back = bounds(least)
    assert 0 <= gone <= least <= back <= 1
    always, _ = play([heads(0.0, least=0.0)] * 3)
    assert all(each.present for each in always)


says = st.builds(
    lambda presence, numbers: heads(round(presence, 4), np.round(np.array(numbers) / sum(numbers), 4)),
    st.floats(0, 1),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
)


@given(frames=st.lists(says, min_size=1, max_size=12), steps=st.floats(0.001, 0.7))
def test_means_stay_probabilities(frames, steps):
    for answer in play(frames, step=steps)[0]:
        assert 0 <= answer.presence <= 1
        numbers = answer.classes[0].probabilities
        assert ((numbers >= 0) & (numbers <= 1)).all()
        assert numbers.sum() == pytest.approx(1, abs=2e-3)


def pose(x, seed, said_of, score=0.9):
    """A person that trembles, and what is said of them."""
    noise = np.random.default_rng(seed)
    box = (float(x), 50.0, 80.0, 240.0)
    points = np.round(tiny_model.person(box) + noise.normal(0, 2, (K, 2)), 3)
    numbers = np.round(np.clip(score + noise.normal(0, 0.1, K), 0, 1), 4)
    return Pose(box, BoxSource.REQUEST, points, numbers, float(numbers.mean()), heads=said_of)


def session():
    return Session(SessionConfig(model="tiny@1", keypoints=K), SIGMAS)


def shown(whom, frames, time_s=0.0):
    """Every answer as bytes and numbers, so that equal means bit by bit."""
    answers = []
    for found in frames:
        time_s += 1 / 30
        planned = whom.plan(time_s) is not None
        for each in whom.update(time_s, found, SIZE, planned=planned):
            one = each.heads
            numbers = [c.probabilities.tobytes() + bytes([c.chosen]) for c in one.classes]
            answers.append((each.track_id, each.points.tobytes(), one.presence, one.present, numbers))
    return answers, time_s


people = st.lists(
    st.builds(pose, st.sampled_from([100, 350]), st.integers(0, 99), says),
    max_size=2,
)


@given(frames=st.lists(people, min_size=1, max_size=8), cut=st.integers(0, 8))
def test_who_goes_on_elsewhere_hears_bit_by_bit_the_same(frames, cut):
    whole = session()
    expected, _ = shown(whole, frames)
    first = session()
    before, time_s = shown(first, frames[:cut])
    second = Session.from_bytes(first.to_bytes(), SIGMAS)
    after, _ = shown(second, frames[cut:], time_s)
    assert before + after == expected
    assert second.to_bytes() == whole.to_bytes()


def test_sessions_of_other_models_are_written_as_before():
    """So that a replica of the version before reads them."""
    plain, told = session(), session()
    plain.update(0.1, [replace(pose(100, 1, None), heads=None)], SIZE, planned=False)
    told.update(0.1, [pose(100, 1, heads())], SIZE, planned=False)
    assert plain.to_bytes()[3] == 1
    assert told.to_bytes()[3] == 2
    assert len(told.to_bytes()) - len(plain.to_bytes()) == struct.calcsize("<dfBB") + struct.calcsize("<HH3f")


def test_what_only_the_newer_form_has_is_refused_in_the_older_one():
    told = session()
    told.update(0.1, [pose(100, 1, heads())], SIZE, planned=False)
    body = b"RPS\x01" + told.to_bytes()[4:-4]
    with pytest.raises(BrokenSession, match="track"):
        Session.from_bytes(body + struct.pack("<I", zlib.crc32(body)), SIGMAS)


@given(at=st.integers(4, 4000), new=st.binary(min_size=1, max_size=8))
def test_bytes_with_a_right_checksum_are_refused_or_make_a_session_that_works(at, new):
    told = session()
    shown(told, [[pose(100, 1, heads())], [pose(100, 2, heads(0.4))]])
    body = bytearray(told.to_bytes()[:-4])
    at %= len(body) - len(new)
    body[at : at + len(new)] = new
    try:
        found = Session.from_bytes(bytes(body) + struct.pack("<I", zlib.crc32(body)), SIGMAS)
        found.check_time(1e9)
    except (BrokenSession, InvalidRequest):
        return
    for answer in found.update(1e9, [pose(100, 3, heads())], SIZE, planned=False):
        assert 0 <= answer.heads.presence <= 1
    Session.from_bytes(found.to_bytes(), SIGMAS)


@pytest.mark.parametrize(
    "wrong",
    [
        Said(0.1, 2.0, True, ()),
        Said(0.1, 0.5, True, ((np.zeros(3, np.float32), 3),)),
        Said(0.1, 0.5, True, ((np.full(3, 2.0, np.float32), 0),)),
        Said(9.9, 0.5, True, ()),
        Said(math.inf, 0.5, True, ()),
    ],
)
def test_a_state_that_cannot_be_is_refused(wrong):
    told = session()
    told.update(0.1, [pose(100, 1, heads())], SIZE, planned=False)
    state = states.from_bytes(told.to_bytes())[1]
    with pytest.raises(BrokenSession):
        states.from_bytes(states.to_bytes(told.config, replace(state, said={1: wrong})))


def test_who_is_not_there_is_not_followed_for_long_and_nobody_new_is():
    whom = session()
    shown(whom, [[pose(100, seed, heads())] for seed in range(5)])
    assert whom.people == 1
    (first,) = whom.update(0.3, [pose(100, 9, heads(0.02))], SIZE, planned=True)
    assert first.track_id == 1
    np.testing.assert_array_equal(first.points.shape, (K, 2))
    assert whom.plan(0.33) is None  # looked for on the whole frame
    new = session()
    (nobody,) = new.update(0.1, [pose(100, 1, heads(0.02))], SIZE, planned=False)
    assert (nobody.track_id, nobody.present) == (None, False)


def test_calibrated_scores_are_followed_as_the_rules_mean_them():
    """The same joints, as likely to be right, are treated alike whether their score says so or not."""
    by = Calibration(
        of="scores", scale=2.0, shift=0.5, event="it is right", data="val", count=99, bins=15, error_before=0.1,
        error=0.01, command="none",
    )  # fmt: skip
    config = SessionConfig(model="tiny@1", keypoints=K)
    plain, mapped = Session(config, SIGMAS), Session(config, SIGMAS, calibration=by)
    for index in range(25):
        strength = 0.9 if index < 12 else 0.12  # then they hide
        own = replace(pose(100 + 3 * index, index, None, strength), heads=None)
        probable = replace(own, scores=scores.of_rules(own.scores, by))
        (one,), (other,) = (
            whom.update((index + 1) / 30, [each], SIZE, planned=whom.plan((index + 1) / 30) is not None)
            for whom, each in ((plain, own), (mapped, probable))
        )
        assert one.track_id == other.track_id
        np.testing.assert_allclose(other.points, one.points, atol=2e-3)
        np.testing.assert_allclose(other.scores, scores.of_rules(one.scores, by), atol=2e-3)
    again = Session.from_bytes(mapped.to_bytes(), SIGMAS, by)
    assert again.to_bytes() == mapped.to_bytes()
