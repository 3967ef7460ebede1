"""How many processors: the affinity mask and the quotas of both kinds of cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import cpus


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", None),
        ("150000 100000", 1.5),
        ("50000 100000", 0.5),
        ("0 100000", None),
        ("nonsense", None),
    ],
)
def test_quota_of_cgroup_v2(text: str, expected: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert cpus.quota(tmp_path) == expected


@pytest.mark.parametrize(("granted", "expected"), [("-1", None), ("250000", 2.5)])
def test_quota_of_cgroup_v1(granted: str, expected: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(granted)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cpus.quota(tmp_path) == expected


def test_what_is_usable_is_the_smaller_of_both(tmp_path: Path) -> None:
    assert cpus.usable(tmp_path) == len(cpus.affinity())
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert cpus.usable(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("99900000 100000")
    assert cpus.usable(tmp_path) == len(cpus.affinity())


def test_workers_are_tied_to_processors_where_there_is_one_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "affinity", lambda: (0, 2, 5))
    assert [cpus.tied(workers, "auto") for workers in (2, 3, 4)] == [(), (0, 2, 5), ()]
    assert [cpus.tied(workers, "on") for workers in (2, 3, 4)] == [(0, 2), (0, 2, 5), ()]
    assert cpus.tied(3, "off") == ()
