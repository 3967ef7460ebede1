"""`make soak`, for seconds: the load runs, its goals are met, and what it must find it finds."""

from __future__ import annotations

from pathlib import Path

from tests.ops.soak import Held, grown, soak


def test_nothing_goes_wrong_under_a_mixed_load(tiny_bundle_root: Path) -> None:
    wrong, said = soak(tiny_bundle_root, 6)
    assert "every frame of a stream is answered in its turn" in said
    assert [each for each in wrong if not each.startswith("memory grew")] == [], (
        said
    )  # it has not settled by now


def test_a_load_that_is_refused_is_found(tiny_bundle_root: Path) -> None:
    wrong, said = soak(tiny_bundle_root, 3, REPPOSE_LIMITS__IMAGE_PIXELS="1000")
    assert any(each.startswith("k6 ended with ") for each in wrong), said
    assert "✗ a picture is answered" in said


def test_growth_is_found() -> None:
    before = Held(bytes=200_000_000, threads=14, files=30)
    assert grown(before, before) == []
    assert grown(before, Held(bytes=220_000_000, threads=14, files=38)) == []
    assert grown(before, Held(bytes=230_000_000, threads=15, files=39)) == [
        "memory grew from 200 to 230 MB",
        "threads grew from 14 to 15",
        "open files grew from 30 to 39",
    ]
