"""`reppose-train synth --bench`: what it prints is what was spent, and a process that cannot go on is told of."""

from __future__ import annotations

import time

import pytest

from tests.trainer.synth import painted
from trainer.errors import DataError
from trainer.synth import bench, stages
from trainer.synth.recipe import Recipe


def test_stages_add_up_to_the_time_between_them() -> None:
    start = time.perf_counter()
    stages.begin()
    for name in ("first", "second", "first"):
        time.sleep(0.01)
        stages.lap(name)
    whole = time.perf_counter() - start
    assert list(stages.spent) == ["first", "second"]
    assert stages.spent["first"] >= 0.02
    assert 0.03 <= sum(stages.spent.values()) <= whole


def test_all_processes_count(capsys: pytest.CaptureFixture[str]) -> None:
    speed = bench.measure(Recipe("body", n=6, seed=3, size=64), painted.kind(), 2)
    assert speed.jobs == 2
    each = 1000 / sum(speed.stages_ms.values())
    assert speed.per_second > each  # more than the one whose stages are told
    bench.show(Recipe("body", n=4, seed=3, size=64), painted.kind(), 1)
    printed = capsys.readouterr().out
    assert "files, ms" in printed
    assert "pictures/s" in printed


def test_what_goes_wrong_in_a_process_is_told() -> None:
    with pytest.raises(DataError, match="no such pose"):
        bench.measure(Recipe("body", n=1, seed=3, size=64), painted.kind(painted.failing), 2)
