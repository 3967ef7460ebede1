"""Learning rates over a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.schedule import SCHEDULES, cosine, flat_cosine

part = st.floats(0, 1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ends_of_the_run(name):
    schedule = SCHEDULES[name]
    how = {"total": 100, "warmup": 5, "start": 0.1, "final": 0.02}
    assert schedule(0, **how) == pytest.approx(0.1)
    assert schedule(2.5, **how) == pytest.approx(0.55)
    assert schedule(5, **how) == 1.0
    assert schedule(100, **how) == pytest.approx(0.02)
    assert schedule(130, **how) == pytest.approx(0.02)


def test_without_warm_up_it_starts_at_the_top():
    assert cosine(0, total=10) == 1.0
    assert cosine(5, total=10) == pytest.approx(0.5)
    assert cosine(10, total=10) == pytest.approx(0.0)


@given(one=part, other=part, warmup=st.floats(0, 0.9), final=st.floats(0, 1), flat=st.floats(0, 0.95))
def test_up_and_then_down_and_always_between_the_ends(one, other, warmup, final, flat):
    earlier, later = sorted([one, other])
    for schedule, more in ((cosine, {}), (flat_cosine, {"flat": flat})):
        a, b = (
            schedule(each, total=1, warmup=warmup, start=0.0, final=final, **more)
            for each in (earlier, later)
        )
        assert 0 <= a <= 1
        assert final - 1e-12 <= b <= 1 or later < warmup
        if later <= warmup:
            assert a <= b
        if earlier >= warmup:
            assert a >= b - 1e-12


def test_rtmpose():
    epochs, steps = 420, 100
    rate = [flat_cosine(each, total=epochs * steps, warmup=1000) for each in range(epochs * steps + 1)]
    assert rate[0] == 1e-5
    assert set(rate[1000 : epochs * steps // 2 + 1]) == {1.0}
    assert rate[epochs * steps * 3 // 4] == pytest.approx((1 + 0.05) / 2)
    assert rate[-1] == pytest.approx(0.05)


@given(unit=st.floats(1e-3, 1e4), progress=part)
def test_the_unit_of_progress_does_not_matter(unit, progress):
    how = {"start": 0.01, "final": 0.05}
    assert flat_cosine(progress * unit, total=unit, warmup=0.1 * unit, **how) == pytest.approx(
        flat_cosine(progress, total=1, warmup=0.1, **how), rel=1e-6
    )
