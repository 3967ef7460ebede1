"""Drawing changes what it should and nothing else, whatever the pose."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from model_zoo.skeletons import BODY19, HAND21, Skeleton
from service import render
from service.types import BoxSource, Pose
from tests import tiny_model

IMAGE = np.full((200, 160, 3), 90, np.uint8)


def pose(points: np.ndarray, scores: np.ndarray, box: tuple = (10.0, 10.0, 140.0, 180.0)) -> Pose:
    return Pose(box, BoxSource.REQUEST, points, scores, float(scores.mean()))


def standing(score: float) -> Pose:
    return pose(tiny_model.person((20, 20, 120, 160)), np.full(19, score))


def test_sure_joints_are_drawn_on_a_copy() -> None:
    image = IMAGE.copy()
    image.flags.writeable = False
    drawn = render.draw(image, [standing(1.0)], BODY19)
    assert drawn.shape == image.shape
    for x, y in standing(1.0).points.astype(int):
        assert (drawn[y, x] != image[y, x]).any()
    assert (drawn[:5] == 90).all()


def test_left_and_right_have_colours_of_their_own() -> None:
    points = np.zeros((19, 2))
    scores = np.zeros(19)
    left, right = BODY19.index("left_wrist"), BODY19.index("right_wrist")
    points[left], points[right] = (40, 100), (120, 100)
    scores[[left, right]] = 1
    drawn = render.draw(IMAGE, [pose(points, scores)], BODY19)
    assert drawn[100, 40, 0] > drawn[100, 40, 2]
    assert drawn[100, 120, 2] > drawn[100, 120, 0]


def test_what_is_not_sure_is_faint_or_hidden() -> None:
    def ink(score: float) -> float:
        return float(np.abs(render.draw(IMAGE, [standing(score)], BODY19).astype(float) - 90).sum())

    assert ink(0.1) == 0
    assert 0 < ink(0.2) < 0.7 * ink(1.0)


def test_lines_grow_with_the_person() -> None:
    def inked(scale: int) -> float:
        image = np.full((200 * scale, 160 * scale, 3), 90, np.uint8)
        grown = pose(standing(1).points * scale, np.ones(19), (10, 10, 140 * scale, 180 * scale))
        return float((render.draw(image, [grown], BODY19) != 90).any(axis=-1).mean())

    assert inked(6) == pytest.approx(inked(3), rel=0.25)


@settings(max_examples=60, deadline=None)
@given(
    points=stn.arrays(np.float64, (21, 2), elements=st.floats(-1e7, 1e7)),
    scores=stn.arrays(np.float64, 21, elements=st.floats(0, 1)),
    box=st.tuples(*[st.floats(1, 1e5)] * 4),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    skeleton=st.sampled_from([BODY19, HAND21]),
)
def test_any_pose_can_be_drawn(
    points: np.ndarray, scores: np.ndarray, box: tuple, size: tuple[int, int], skeleton: Skeleton
) -> None:
    count = len(skeleton)
    drawn = render.draw(np.zeros((*size, 3), np.uint8), [pose(points[:count], scores[:count], box)], skeleton)
    assert drawn.shape == (*size, 3)


def test_png_is_read_back_as_it_was() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    read = cv2.imdecode(np.frombuffer(render.png(image), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), image)
