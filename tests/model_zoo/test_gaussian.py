"""Drawing keypoints as heatmaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_zoo.codecs import gaussian

SIZE = (16, 12)
anywhere = st.floats(-40, 60)
sigmas = st.sampled_from([1.0, 1.5, 2.0, 3.0])


@given(x=st.integers(0, 11), y=st.integers(0, 15), sigma=sigmas)
def test_a_point_on_a_cell_has_its_peak_there(x, y, sigma):
    (drawn,) = gaussian.draw([[x, y]], SIZE, sigma)
    assert drawn.dtype == np.float32
    assert drawn.shape == SIZE
    assert drawn[y, x] == drawn.max() == 1


@given(x=anywhere, y=anywhere, sigma=sigmas)
def test_the_value_is_that_of_the_distance(x, y, sigma):
    (drawn,) = gaussian.draw([[x, y]], SIZE, sigma)
    rows, columns = np.indices(SIZE)
    expected = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(drawn, expected, rtol=1e-6, atol=1e-12)


def test_leading_axes_are_kept_and_the_points_left_alone():
    points = np.random.default_rng(0).uniform(0, 12, (2, 3, 5, 2))
    points.flags.writeable = False
    drawn = gaussian.draw(points, SIZE, 1.0)
    assert drawn.shape == (2, 3, 5, *SIZE)
    np.testing.assert_array_equal(drawn[1, 2], gaussian.draw(points[1, 2], SIZE, 1.0))


@pytest.mark.parametrize("encode", [gaussian.draw_msra, gaussian.draw_udp])
@given(x=anywhere, y=anywhere, sigma=sigmas)
@example(x=-5.0, y=5.0, sigma=1.5)
@example(x=-6.0, y=5.0, sigma=2.0)
@example(x=5.0, y=20.0, sigma=1.5)
@example(x=5.0, y=21.0, sigma=2.0)
def test_a_window_reaches_three_sigma_from_the_nearest_cell(encode, x, y, sigma):
    (drawn,), (weight,) = encode([[x, y]], SIZE, sigma)
    nearest = np.floor([x + 0.5, y + 0.5])
    rows, columns = np.indices(SIZE)
    inside = np.maximum(np.abs(columns - nearest[0]), np.abs(rows - nearest[1])) <= 3 * sigma
    np.testing.assert_array_equal(drawn > 0, inside)
    assert weight == inside.any()
    assert weight == gaussian.weights([[x, y]], SIZE, sigma)[0]


@given(x=st.integers(0, 11), y=st.integers(0, 15), sigma=sigmas)
def test_all_targets_agree_about_a_point_on_a_cell(x, y, sigma):
    full = gaussian.draw([[x, y]], SIZE, sigma)
    for windowed, _ in (gaussian.draw_msra([[x, y]], SIZE, sigma), gaussian.draw_udp([[x, y]], SIZE, sigma)):
        np.testing.assert_array_equal(windowed, np.where(windowed > 0, full, 0))


def test_a_joint_that_cannot_be_seen_stays_empty():
    points, visible = [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]], [0.0, 0.49, 0.5]
    maps, weights = gaussian.draw_msra(points, SIZE, 1.0, visible)
    assert weights.tolist() == [0, 0, 1]
    assert maps.reshape(3, -1).max(axis=1).tolist() == [0, 0, 1]
