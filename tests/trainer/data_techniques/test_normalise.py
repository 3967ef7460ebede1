"""Normalised coordinates against the original numbers, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.data import normalise

pixels = hnp.arrays(np.float64, (2, 5, 2), elements=st.floats(-1e4, 1e4))
sizes = st.tuples(st.integers(1, 1000), st.integers(1, 1000))


@pytest.mark.parametrize("case", [0, 1])
def test_target(golden, case):
    numbers = golden("normalise")
    width, height = (int(each) for each in numbers[f"case{case}_size_wh"])
    found = normalise.target(
        numbers[f"case{case}_keypoints_px"], numbers[f"case{case}_visible"], (height, width)
    )
    np.testing.assert_allclose(found.points, numbers[f"case{case}_target"], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(found.weights, numbers[f"case{case}_weight"])
    np.testing.assert_array_equal(found.in_crop, numbers[f"case{case}_in_crop"].astype(bool))


@given(points=pixels, size=sizes)
def test_there_and_back(points, size):
    back = normalise.to_pixels(normalise.to_normalised(points, size), size)
    np.testing.assert_allclose(back, points, rtol=1e-12, atol=1e-11)


@given(size=sizes)
def test_corners_and_middle(size):
    height, width = size
    corners = [[0, 0], [width, height], [width / 2, height / 2]]
    np.testing.assert_allclose(
        normalise.to_normalised(corners, size), [[-0.5, -0.5], [0.5, 0.5], [0, 0]], atol=1e-12
    )


@given(points=hnp.arrays(np.float64, (2, 5, 3), elements=st.floats(-1e3, 1e3)), root=st.integers(0, 4))
def test_depth_is_relative_to_its_root_and_comes_back(points, root):
    found = normalise.to_normalised_3d(points, (256, 192), 400.0, root)
    np.testing.assert_array_equal(found[:, root, 2], 0)
    np.testing.assert_allclose(found[..., :2], normalise.to_normalised(points[..., :2], (256, 192)))
    moved = points + np.array([0, 0, 37.0])
    np.testing.assert_allclose(normalise.to_normalised_3d(moved, (256, 192), 400.0, root), found, atol=1e-12)
    back = normalise.to_pixels_3d(found, (256, 192), 400.0, points[:, root, 2])
    np.testing.assert_allclose(back, points, rtol=1e-10, atol=1e-9)


def test_outside_keeps_its_weight_and_loses_only_the_flag():
    found = normalise.target([[96.0, 300.0], [192.0, 256.0]], [1, 1], (256, 192))
    np.testing.assert_allclose(found.points[0], [0, 300 / 256 - 0.5])
    np.testing.assert_array_equal(found.weights, np.ones((2, 2)))
    np.testing.assert_array_equal(found.in_crop, [False, True])


def test_a_keypoint_without_label_never_spreads():
    found = normalise.target([[np.nan, np.inf], [10.0, 20.0]], [0, 1], (256, 192))
    assert np.isfinite(found.points).all()
    np.testing.assert_array_equal(found.weights[0], 0)
    np.testing.assert_array_equal(found.in_crop, [False, True])
