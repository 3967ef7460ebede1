"""Half bodies: whose box becomes smaller, and to what."""

from __future__ import annotations

import numpy as np
import pytest

from model_zoo import skeletons
from trainer.data import half_body
from trainer.data.half_body import HalfBody
from trainer.errors import DataError

UPPER = half_body.upper_body(skeletons.BODY19)
ALWAYS = HalfBody(probability=1, upper=1)


def people(count=4, seed=0):
    """Upper bodies in rows 0..100, lower ones in rows 100..200, in boxes of 100 x 200."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 100, (count, len(UPPER), 2))
    points[:, ~UPPER, 1] += 100
    boxes = np.tile([0.0, 0.0, 100.0, 200.0], (count, 1))
    return boxes, points, np.ones((count, len(UPPER)))


def drawn(how, boxes, points, weights, seed=0):
    return half_body.draw(how, boxes, points, weights, UPPER, np.random.default_rng(seed))


def test_halves_of_a_skeleton():
    names = np.array(skeletons.BODY19.keypoints)
    assert {"nose", "left_wrist", "neck", "head_top"} <= set(names[UPPER])
    assert set(names[~UPPER]) == {
        f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle")
    }
    with pytest.raises(DataError, match="hand21"):
        half_body.upper_body(skeletons.HAND21)


@pytest.mark.parametrize(("share", "half"), [(1.0, UPPER), (0.0, ~UPPER)])
def test_the_box_is_that_of_the_half_with_its_margin(share, half):
    boxes, points, weights = people()
    found = drawn(HalfBody(probability=1, upper=share), boxes, points, weights)
    low, high = points[:, half].min(axis=1), points[:, half].max(axis=1)
    np.testing.assert_allclose(found[:, :2] + found[:, 2:] / 2, (low + high) / 2)
    np.testing.assert_allclose(found[:, 2:], 1.5 * (high - low))


def test_how_often():
    boxes, points, weights = people(4000)
    found = drawn(HalfBody(probability=0.3, upper=0.6), boxes, points, weights)
    changed = (found != boxes).any(axis=1)
    assert changed.mean() == pytest.approx(0.3, abs=0.03)
    middle = found[changed, 1] + found[changed, 3] / 2
    assert (middle < 100).mean() == pytest.approx(0.6, abs=0.05)


def test_never_and_for_people_with_few_keypoints_the_box_stays():
    boxes, points, weights = people()
    np.testing.assert_array_equal(drawn(HalfBody(probability=0), boxes, points, weights), boxes)
    weights[:, 8:] = 0
    np.testing.assert_array_equal(drawn(ALWAYS, boxes, points, weights), boxes)


def test_the_other_half_steps_in_where_the_preferred_one_has_too_few():
    boxes, points, weights = people()
    weights[:, np.flatnonzero(~UPPER)[2:]] = 0
    how = HalfBody(probability=1, upper=0)
    np.testing.assert_array_equal(drawn(how, boxes, points, weights), drawn(ALWAYS, boxes, points, weights))


def test_a_joint_without_label_never_counts():
    boxes, points, weights = people()
    weights[:, 0] = 0
    expected = drawn(ALWAYS, boxes, points, weights)
    points[:, 0] = np.nan
    np.testing.assert_array_equal(drawn(ALWAYS, boxes, points, weights), expected)


def test_joints_in_a_row_still_make_a_box():
    boxes, points, weights = people()
    points[..., 0] = 40
    found = drawn(ALWAYS, boxes, points, weights)
    np.testing.assert_allclose(found[:, 2], 10)
    assert (found[:, 3] > 0).all()


def test_the_same_seed_draws_the_same_and_the_generator_moves_alike_for_everybody():
    boxes, points, weights = people(50)
    how = HalfBody()
    np.testing.assert_array_equal(
        drawn(how, boxes, points, weights, seed=4), drawn(how, boxes, points, weights, seed=4)
    )
    following = []
    for present in (weights, weights * 0):
        rng = np.random.default_rng(1)
        half_body.draw(how, boxes, points, present, UPPER, rng)
        following.append(rng.random())
    assert following[0] == following[1]
