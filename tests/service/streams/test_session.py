"""A stream's state: it goes on elsewhere as if nothing had happened, and damaged bytes are an error."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo import skeletons
from service.errors import BrokenSession, InvalidRequest
from service.streams import smoothers
from service.streams import state as states
from service.streams.session import Session
from service.streams.state import SessionConfig
from service.streams.token import Signer
from service.types import BoxSource, Pose
from tests import tiny_model

SIGMAS = skeletons.BODY19.sigmas
K = len(SIGMAS)
SIZE = (480, 640)
SIGNER = Signer([b"k" * 16], 60)


def config(**changes):
    return SessionConfig(model="tiny@1", keypoints=K, **changes)


def pose(x, y, score, seed, width=80.0, height=240.0):
    """A person that trembles."""
    noise = np.random.default_rng(seed)
    box = (float(x), float(y), width, height)
    points = np.round(tiny_model.person(box) + noise.normal(0, 2, (K, 2)), 3)
    scores = np.round(np.clip(score + noise.normal(0, 0.25, K), 0, 1), 4)
    return Pose(box, BoxSource.REQUEST, points, scores, float(scores.mean()))


people = st.lists(
    st.tuples(st.floats(0, 500), st.floats(0, 200), st.floats(0, 1), st.integers(0, 999)).map(
        lambda p: pose(*p)
    ),
    max_size=3,
)
videos = st.lists(
    st.tuples(st.floats(0.005, 0.8), people, st.sampled_from([SIZE] * 9 + [(240, 320)])),
    min_size=1,
    max_size=10,
)
settings = st.sampled_from(
    [
        config(),
        config(smoothing="ema", parameters={"alpha": 0.3}),
        config(smoothing="none"),
        config(smoothing="one_euro", parameters={"beta": 3.0, "noise": 0.0}, tracking=False),
    ]
)


def play(session, video, time_s=0.0, *, number=0):
    """Every answer as bytes and numbers, so that equal means bit by bit."""
    answers = []
    for step, found, size in video:
        time_s += step
        boxes = session.plan(time_s)
        poses = session.update(time_s, found, size, planned=boxes is not None, sequence=number)
        number += 1
        answers.append(
            (
                boxes,
                [
                    (p.track_id, p.points.tobytes(), p.scores.tobytes(), p.lag_ms, p.lag_frames, p.reset)
                    for p in poses
                ],
            )
        )
    return answers, time_s


@given(video=videos, cut=st.integers(0, 10), opened=settings)
def test_who_goes_on_from_a_token_gets_bit_by_bit_what_they_would_have_got(video, cut, opened):
    whole = Session(opened, SIGMAS)
    expected, _ = play(whole, video)
    first = Session(opened, SIGMAS)
    before, time_s = play(first, video[:cut])
    token = SIGNER.sign(first.to_bytes(), opened.model, "me", 0.0)
    second = Session.from_bytes(SIGNER.open(token, "me", 1.0).state, SIGMAS)
    assert second.config == opened
    after, _ = play(second, video[cut:], time_s, number=len(before))
    assert before + after == expected
    assert second.to_bytes() == whole.to_bytes()
    assert (second.time_s, second.sequence, second.people) == (whole.time_s, whole.sequence, whole.people)


def moving(frames, **changes):
    """A session in which two people were seen."""
    session = Session(config(**changes), SIGMAS)
    play(session, [(1 / 30, [pose(100 + i, 50, 0.9, i), pose(350, 60, 0.8, i)], SIZE) for i in range(frames)])
    return session


def test_a_session_answers_identities_raw_and_smoothed_points_and_lag():
    session = Session(config(), SIGMAS)
    for index in range(20):
        sent = [pose(100 + 4 * index, 50, 0.9, index), pose(350, 60, 0.9, index)]
        answers = session.update(index / 30, sent, SIZE, planned=False)
    assert [each.track_id for each in answers] == [1, 2]
    assert [each.pose for each in answers] == sent
    assert answers[0].lag_frames > 0
    assert answers[0].lag_ms == pytest.approx(answers[0].lag_frames * 1e3 / 30, abs=0.02)  # both are rounded
    truth = tiny_model.person(sent[1].box)
    assert np.abs(answers[1].points - truth).mean() < np.abs(sent[1].points - truth).mean()
    assert session.people == 2


def test_a_person_is_smoothed_by_identity_not_by_place_in_the_answer():
    session, swapped = moving(0), moving(0)
    for index in range(12):
        pair = [pose(100, 50, 0.9, index), pose(350, 60, 0.9, 100 + index)]
        one = session.update(index / 30, pair, SIZE, planned=False)
        turned = pair[::-1] if index % 2 else pair
        other = swapped.update(index / 30, turned, SIZE, planned=False)
        other = other[::-1] if index % 2 else other
        for left, right in zip(one, other, strict=True):
            assert left.track_id == right.track_id
            np.testing.assert_array_equal(left.points, right.points)


def test_who_is_nobody_sure_is_passed_on_as_found():
    session = Session(config(), SIGMAS)
    sent = pose(100, 50, 0.1, 0)
    (answer,) = session.update(0.0, [sent], SIZE, planned=False)
    assert (answer.track_id, answer.reset) == (None, None)
    assert answer.points is sent.points


def test_without_tracking_every_frame_is_looked_at_whole():
    session = moving(5, tracking=False)
    assert session.plan(0.2) is None
    assert len(moving(5).plan(0.2)) == 2


@pytest.mark.parametrize("time_s", [0.1, 0.0, float("nan"), float("inf"), 1e13])
def test_a_wrong_time_is_refused_and_changes_nothing(time_s):
    session = moving(3)
    before = session.to_bytes()
    with pytest.raises(InvalidRequest) as refused:
        session.update(time_s, [], SIZE, planned=False)
    assert refused.value.field == "timestamp_s"
    assert session.to_bytes() == before


@pytest.mark.parametrize("smoothing", ["none", "ema", "one_euro"])
@pytest.mark.parametrize("far", [1.0, 9e8])
def test_frames_with_hardly_any_time_between_them_make_no_numbers_that_are_none(smoothing, far):
    session, time_s = Session(config(smoothing=smoothing), SIGMAS), 5.0
    for index in range(6):
        boxes = session.plan(time_s)
        one = pose(100 + far * (index % 2), 50, 0.9, index)
        for answer in session.update(time_s, [one], SIZE, planned=boxes is not None):
            assert np.isfinite(answer.points).all()
            assert np.isfinite([answer.lag_ms, answer.lag_frames]).all()
        assert Session.from_bytes(session.to_bytes(), SIGMAS).to_bytes() == session.to_bytes()
        time_s = float(np.nextafter(time_s, 9))


def test_the_state_is_small():
    one = Session(config(), SIGMAS)
    play(one, [(1 / 30, [pose(100, 50, 0.9, i)], SIZE) for i in range(5)])
    assert len(one.to_bytes()) < 1700
    assert len(moving(5).to_bytes()) < 3200


def test_every_flipped_bit_is_refused():
    data = moving(3).to_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BrokenSession):
            states.from_bytes(bytes(changed))


@given(data=st.binary(max_size=400), length=st.integers(0, 4000))
def test_random_and_shortened_bytes_are_refused(data, length):
    whole = moving(3).to_bytes()
    for wrong in (data, b"RPS\x01" + data, whole + data[:1] + b"\0", whole[: min(length, len(whole) - 1)]):
        with pytest.raises(BrokenSession):
            Session.from_bytes(wrong, SIGMAS)


def sealed(body):
    """Bytes with a right checksum, as no damage but only a hand would make them."""
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


@given(at=st.integers(4, 3000), new=st.binary(min_size=1, max_size=8))
def test_bytes_with_a_right_checksum_are_refused_or_make_a_session_that_works(at, new):
    body = bytearray(moving(3).to_bytes()[:-4])
    at %= len(body) - len(new)
    body[at : at + len(new)] = new
    try:
        session = Session.from_bytes(sealed(body), SIGMAS)
    except (BrokenSession, InvalidRequest):
        return
    time_s = (session.time_s or 0.0) + 0.03
    try:
        session.check_time(time_s)
    except InvalidRequest:
        return
    session.plan(time_s)
    for answer in session.update(time_s, [pose(100, 50, 0.9, 7)], SIZE, planned=False):
        assert np.isfinite(answer.points).all()
        assert ((answer.scores >= 0) & (answer.scores <= 1)).all()
    Session.from_bytes(session.to_bytes(), SIGMAS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"RPS\x03" + data[4:], "version 3"),
        (lambda data: sealed(b"RPS\x02" + data[4:-4])[:-4] + b"\0\0\0\0", "damaged"),
        (lambda data: b"XYZ\x01" + data[4:], "no session"),
        (lambda data: sealed(data[:-4] + b"\0"), "left over"),
        (lambda data: sealed(data[:-8]), "too soon"),
        (lambda data: data + bytes(states.MAX_BYTES), "no session"),
        (lambda data: sealed(data[:6] + b"[" + data[7:-4]), "configuration"),
    ],
)
def test_what_is_wrong_is_said(change, said):
    with pytest.raises(BrokenSession, match=said):
        Session.from_bytes(change(moving(2).to_bytes()), SIGMAS)


def test_numbers_that_are_none_are_refused():
    data = moving(2).to_bytes()[:-4]
    for number in (float("nan"), float("inf"), -float("inf")):
        body = bytearray(data)
        body[-4:] = struct.pack("<f", number)
        with pytest.raises(BrokenSession, match="out of range"):
            states.from_bytes(sealed(body))


def test_a_session_of_another_model_is_refused():
    with pytest.raises(BrokenSession, match="19 keypoints, not 14"):
        Session.from_bytes(moving(2).to_bytes(), skeletons.LSP14.sigmas)
    with pytest.raises(ValueError, match="14 sigmas"):
        Session(config(), skeletons.LSP14.sigmas)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"smoothing": "kalman"}, "smoothing"),
        ({"parameters": {"alpha": 1.0}}, "parameters"),
        ({"smoothing": "ema", "parameters": {"alpha": 7.0}}, "parameters"),
    ],
)
def test_a_smoother_that_is_not_there_is_refused(changes, field):
    with pytest.raises(InvalidRequest) as refused:
        Session(config(**changes), SIGMAS)
    assert refused.value.field == field


class Wide:
    """A plug-in that remembers as much as it may."""

    rows = smoothers.MAX_ROWS

    def begin(self, points):
        return np.repeat(points[None], self.rows, axis=0)

    def step(self, points, memory, dt, weights, size):
        return smoothers.Step(points, self.begin(points), np.zeros(len(points)))


def test_no_session_is_longer_than_what_is_read(monkeypatch):
    """As many people, keypoints and rows of memory as there may be."""
    monkeypatch.setitem(smoothers.SMOOTHERS, "w" * smoothers.MAX_NAME, Wide)
    sigmas = [0.1] * 1024
    wide = SessionConfig(model="m" * 200, keypoints=1024, smoothing="w" * smoothers.MAX_NAME)
    session = Session(wide, sigmas)
    joints = np.random.default_rng(0).uniform(0, 50, (1024, 2))
    crowd = [
        Pose((x, 0.0, 50.0, 50.0), BoxSource.REQUEST, joints + np.array((x, 0.0)), np.ones(1024), 1.0)
        for x in np.arange(40) * 100.0
    ]
    for number in range(2):
        answers = session.update(number / 30, crowd, (100, 4000), planned=False)
    assert sum(answer.track_id is not None for answer in answers) == session.people == 32
    data = session.to_bytes()
    assert 0.7 * states.MAX_BYTES < len(data) <= states.MAX_BYTES
    assert Session.from_bytes(data, sigmas).to_bytes() == data
