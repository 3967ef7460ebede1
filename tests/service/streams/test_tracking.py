"""Who is who from frame to frame, and where to look next."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo import geometry, skeletons
from service.streams import matching
from service.streams.matching import People
from service.streams.smoothers import as_complex
from service.streams.tracking import Found, Rules, Tracker, TrackerState, confidence
from tests import tiny_model

SIGMAS = skeletons.BODY19.sigmas
K = len(SIGMAS)
SIZE = (480, 640)
RULES = Rules()


def found(x, y=100.0, score=0.9, width=80.0, height=240.0):
    """A person whose box begins at x, y."""
    box = (x, y, width, height)
    return Found(box, tiny_model.person(box), np.full(K, float(score)))


def follow(tracker, frames, *, rate=30.0, planned=False, start=0.0):
    """The identities of every frame."""
    return [
        tracker.update(start + index / rate, poses, SIZE, planned=planned)
        for index, poses in enumerate(frames)
    ]


def test_a_person_is_followed_and_the_box_holds_them():
    tracker = Tracker(SIGMAS)
    assert tracker.plan(0.0) is None
    assert tracker.update(0.0, [found(100)], SIZE, planned=False) == [1]
    for index in range(1, 40):
        pose = found(100 + 6 * index)
        (box,) = tracker.plan(index / 30)
        low, high = pose.points.min(axis=0), pose.points.max(axis=0)
        assert (np.array(box[:2]) <= low).all()
        assert (np.array(box[:2]) + box[2:] >= high).all()
        assert np.prod(box[2:]) < 4 * np.prod(high - low)
        assert tracker.update(index / 30, [pose], SIZE, planned=True) == [1]
    assert np.array(tracker.state.tracks[0].velocity) == pytest.approx([180, 0], abs=10)


def test_the_box_is_as_calm_as_the_person():
    tracker = Tracker(SIGMAS)
    noise = np.random.default_rng(0)
    sides = []
    for index in range(60):
        pose = found(200)
        pose = Found(pose.box, pose.points + noise.normal(0, 2, (K, 2)), pose.scores)
        tracker.update(index / 30, [pose], SIZE, planned=index > 0)
        tight = geometry.box_of_points(pose.points)
        sides.append([tight[3] * RULES.growth, tracker.plan((index + 1) / 30)[0][3]])
    raw, planned = np.abs(np.diff(np.array(sides)[10:], axis=0)).mean(axis=0)
    assert planned < 0.7 * raw


def test_joints_that_were_sure_a_moment_ago_stay_in_the_box():
    """Else the crop shrinks to a head, in which no model finds a body again."""
    tracker = Tracker(SIGMAS)
    whole = found(200)
    for index in range(10):
        tracker.update(index / 30, [whole], SIZE, planned=index > 0)
    scores = np.full(K, 0.1)
    scores[:10] = 0.9  # the upper half: two of five rows, and a half
    for index in range(10, 20):
        assert tracker.update(index / 30, [Found(whole.box, whole.points, scores)], SIZE, planned=True) == [1]
    assert tracker.plan(20 / 30)[0][3] > 240
    for index in range(20, 120):
        tracker.update(index / 30, [Found(whole.box, whole.points, scores)], SIZE, planned=True)
    assert tracker.plan(4.0)[0][3] < 200


def test_hysteresis_between_acquire_and_lose():
    middle = (RULES.acquire + RULES.lose) / 2
    tracker = Tracker(SIGMAS)
    assert tracker.update(0.0, [found(100, score=middle)], SIZE, planned=False) == [None]
    assert tracker.plan(0.03) is None
    assert tracker.update(0.03, [found(100, score=RULES.acquire)], SIZE, planned=False) == [1]
    assert tracker.update(0.06, [found(100, score=middle)], SIZE, planned=True) == [1]
    assert tracker.plan(0.09) is not None
    assert tracker.update(0.09, [found(100, score=RULES.lose - 0.01)], SIZE, planned=True) == [1]
    assert tracker.plan(0.12) is None  # given up: the whole frame is looked at
    assert tracker.update(0.12, [found(104)], SIZE, planned=False) == [1]
    assert tracker.plan(0.15) is not None


def test_who_is_lost_for_long_is_somebody_new():
    tracker = Tracker(SIGMAS)
    tracker.update(0.0, [found(100)], SIZE, planned=False)
    assert tracker.plan(RULES.keep_s + 0.1) is None
    assert tracker.update(RULES.keep_s + 0.1, [found(100)], SIZE, planned=False) == [2]


def test_somebody_elsewhere_is_somebody_new_and_the_first_is_remembered():
    tracker = Tracker(SIGMAS)
    tracker.update(0.0, [found(50)], SIZE, planned=False)
    assert tracker.update(0.1, [found(450)], SIZE, planned=False) == [2]
    assert tracker.update(0.2, [found(450), found(50)], SIZE, planned=False) == [2, 1]


def test_two_people_who_cross_keep_their_identities():
    """Their boxes come in another order in every frame."""
    tracker, order = Tracker(SIGMAS), np.random.default_rng(1)
    for index in range(60):
        people = [found(60 + 7 * index), found(480 - 7 * index, y=115.0)]
        turn = order.permutation(2)
        ids = tracker.update(index / 30, [people[i] for i in turn], SIZE, planned=False)
        assert [ids[int(np.flatnonzero(turn == person)[0])] for person in (0, 1)] in ([1, 2], [2, 1])
        if index == 0:
            first = [ids[int(np.flatnonzero(turn == person)[0])] for person in (0, 1)]
        assert [ids[int(np.flatnonzero(turn == person)[0])] for person in (0, 1)] == first


def test_two_tracks_of_one_person_become_one():
    tracker = Tracker(SIGMAS)
    follow(tracker, [[found(200), found(260 - 6 * index)] for index in range(10)])
    assert [track.id for track in tracker.state.tracks] == [1, 2]
    tracker.update(0.4, [found(200), found(201)], SIZE, planned=True)
    assert [track.id for track in tracker.state.tracks] == [1]
    assert len(tracker.plan(0.5)) == 1


def test_a_client_may_send_the_same_box_twice():
    tracker = Tracker(SIGMAS)
    assert tracker.update(0.0, [found(100), found(100)], SIZE, planned=False) == [1, 2]


def test_another_size_of_frame_is_another_camera():
    tracker = Tracker(SIGMAS)
    tracker.update(0.0, [found(100)], SIZE, planned=False)
    assert tracker.update(0.1, [found(100)], (240, 320), planned=False) == [2]


def test_no_more_people_than_allowed():
    tracker = Tracker(SIGMAS, Rules(people=2))
    assert tracker.update(0.0, [found(0), found(200), found(400)], SIZE, planned=False) == [1, 2, None]


def test_who_walks_out_of_the_frame_is_not_looked_for_there():
    tracker = Tracker(SIGMAS)
    for index in range(30):
        pose = found(400 + 12 * index)
        tracker.update(index / 30, [pose], SIZE, planned=False)
    assert tracker.plan(1.0) is None


def test_time_must_move_on():
    tracker = Tracker(SIGMAS)
    tracker.update(1.0, [found(100)], SIZE, planned=False)
    with pytest.raises(ValueError, match="move on"):
        tracker.update(1.0, [found(100)], SIZE, planned=False)


@given(
    frames=st.lists(
        st.lists(st.tuples(st.floats(-300, 900), st.floats(-300, 700), st.floats(0, 1)), max_size=6),
        max_size=12,
    ),
    planned=st.booleans(),
)
def test_whatever_is_found_identities_are_unique_and_boxes_usable(frames, planned):
    tracker, seen = Tracker(SIGMAS), 0
    for index, people in enumerate(frames):
        ids = tracker.update(
            index / 10, [found(x, y, score) for x, y, score in people], SIZE, planned=planned and index > 0
        )
        named = [each for each in ids if each is not None]
        assert len(set(named)) == len(named)
        new = [each for each in named if each > seen]
        assert sorted(new) == list(range(seen + 1, seen + 1 + len(new)))
        seen += len(new)
        for x, y, width, height in tracker.plan((index + 1) / 10) or ():
            assert min(width, height) >= 1
            assert x < SIZE[1] - 0.5
            assert y < SIZE[0] - 0.5
            assert x + width > -0.5
            assert y + height > -0.5


@given(worth=st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=4))
def test_the_assignment_is_the_best_of_all(worth):
    worth = np.array(worth)
    pairs = matching.assign(worth, least=0.2)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(worth[pair] >= 0.2 for pair in pairs)
    counted = np.where(worth >= 0.2, worth, 0)
    best = max(
        sum(counted[row, column] for row, column in enumerate(columns))
        for columns in itertools.permutations(range(4), len(worth))
    )
    assert sum(worth[pair] for pair in pairs) == pytest.approx(best)


def test_nobody_is_assigned_to_nobody():
    assert matching.assign(np.zeros((0, 3)), 0.1) == []
    assert matching.assign(np.zeros((2, 2)), 0.1) == []


def test_similarity_is_one_for_the_same_and_falls_with_distance():
    def people(*places, score=0.9):
        those = [found(x, score=score) for x in places]
        return People(
            *(np.array([getattr(each, name) for each in those]) for name in ("box", "points", "scores"))
        )

    alike = matching.similarities(people(0, 100), people(0, 4, 20, 60, 100), np.array(SIGMAS))
    assert alike.shape == (2, 5)
    assert alike[0, 0] == alike[1, 4] == 1.0
    assert all(one > other for one, other in itertools.pairwise(alike[0]))
    assert alike[0, -1] < 1e-3
    assert matching.similarities(people(0, score=0.1), people(0), np.array(SIGMAS)) == [[0.5]]
    assert matching.iou(np.array([0.0, 0, 2, 2]), np.array([1.0, 1, 2, 2])) == pytest.approx(1 / 7)


@given(seed=st.integers(0, 9999), apart=st.sampled_from([0.0, 3.0, 40.0, 500.0]), unsure=st.floats(0, 1))
def test_two_people_are_as_alike_alone_as_among_others(seed, apart, unsure):
    draw = np.random.default_rng(seed)
    boxes = np.concatenate([draw.normal(100, apart, (2, 2)), draw.uniform(0, 200, (2, 2))], axis=-1)
    points = boxes[:, None, :2] + draw.uniform(0, 1, (K, 2)) * boxes[:, None, 2:]
    scores = np.where(draw.random((2, K)) < unsure, 0.1, 0.9)
    one, other = (
        matching.Person(box.tolist(), as_complex(p), s)
        for box, p, s in zip(boxes, points, scores, strict=True)
    )
    both = (People(boxes[i : i + 1], points[i : i + 1], scores[i : i + 1]) for i in (0, 1))
    alone = matching.similarity(one, other, np.array(SIGMAS))
    assert alone == pytest.approx(matching.similarities(*both, np.array(SIGMAS)).item(), abs=1e-12)


def test_oks_is_that_of_coco():
    sigmas, counted = np.array([0.05, 0.1, 0.2]), np.array([True, True, False])
    expected = np.mean([np.exp(-25 / (2 * 400 * (2 * sigma) ** 2)) for sigma in sigmas[:2]])
    squared = np.array([25.0, 25.0, 0.0])
    assert matching.oks(squared, sigmas, np.array(400.0), counted) == pytest.approx(expected)
    assert matching.oks(squared, sigmas, np.array(400.0), ~counted) == 1.0
    assert matching.oks(squared, sigmas, np.array(400.0), counted & False) == 0.0


def test_confidence_is_of_the_surer_half():
    assert confidence(np.array([0.1, 0.9, 0.7, 0.0])) == pytest.approx(0.8)


def test_a_tracker_goes_on_from_a_state():
    one = Tracker(SIGMAS)
    follow(one, [[found(100 + 5 * i)] for i in range(5)])
    other = Tracker(SIGMAS, state=one.state)
    assert other.plan(0.2) == one.plan(0.2)
    assert TrackerState().tracks == ()
