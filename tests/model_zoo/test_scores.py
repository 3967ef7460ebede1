"""Calibrated scores: an order that stays, an inverse, and no number that is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model_zoo import scores
from model_zoo.manifest import Calibration

maps = st.builds(
    lambda scale, shift: Calibration(
        of="scores", scale=scale, shift=shift, event="it is right", data="val", count=9, bins=15, error_before=0,
        error=0, command="none",
    ),
    st.floats(0.05, 20),
    st.floats(-10, 10),
)  # fmt: skip
probabilities = arrays(np.float64, 12, elements=st.floats(0, 1))


@given(by=maps, some=probabilities)
def test_a_map_keeps_the_order_and_stays_a_probability(by, some):
    found = scores.calibrated(some, by)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found[np.argsort(some, kind="stable")]) >= 0).all()


@given(by=maps, some=arrays(np.float64, 5, elements=st.floats(0.001, 0.999)))
def test_probabilities_go_to_the_scale_of_the_rules_and_back(by, some):
    there = scores.for_rules(some, by)
    assert (np.diff(there[np.argsort(some, kind="stable")]) >= 0).all()
    np.testing.assert_allclose(scores.of_rules(there, by), some, atol=1e-6)


def test_a_sure_joint_is_right_about_every_second_time():
    """As measured for the model that the rules were made for, see `model_zoo.scores`."""
    by = Calibration(
        of="scores", scale=9.0, shift=1.0, event="it is right", data="val", count=9, bins=15, error_before=0, error=0,
        command="none",
    )  # fmt: skip
    assert scores.of_rules(0.3, by) == pytest.approx(0.525, abs=0.002)  # whatever the model's own map


def test_without_a_map_nothing_changes():
    some = np.array([0.0, 0.3, 1.0, 1.2], np.float32)
    assert scores.calibrated(some, None) is some
    assert scores.for_rules(some, None) is some
    assert scores.of_rules(some, None) is some


@pytest.mark.parametrize("x", [-1e4, -40.0, 0.0, 40.0, 1e4])
def test_the_sigmoid_knows_no_overflow(x):
    with np.errstate(all="raise"):
        assert 0 <= scores.sigmoid(x) <= 1
    assert scores.odds(scores.sigmoid(0.25)) == pytest.approx(0.25)
