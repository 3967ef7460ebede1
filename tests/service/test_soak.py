"""The soak: its promises on known numbers, its pictures, and a short run on a real server. No timing is judged."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli import cli
from service.errors import InvalidRequest
from service.soak import frames, report
from service.soak.run import Found, Plan, Sample
from service.soak.tally import ANSWERED, DROPPED, FAILED, Tally


def stream(name: str, kind: str, every_s: float, *, late_s: float = 0.0) -> Tally:
    """Answered at this interval for 100 s; each frame as old as an interval; as many again were dropped."""
    tally = Tally(name, kind)
    for number in range(round(100 / every_s)):
        tally.sent += 2
        tally.note(DROPPED, 2 * number, number * every_s)
        tally.note(ANSWERED, 2 * number + 1, number * every_s, (every_s + late_s) * 1e3)
    return tally


def good() -> Found:
    """All promises kept."""
    found = Found(Plan(streams=4, seconds=100.0, rate_hz=20.0, expiry_s=5.0, clips=None, environment={}))
    found.samples = [Sample(float(at), 200.0 + at / 10, 40, 3, 4) for at in range(110)]
    kinds = ("grpc live", "http", "websocket live", "grpc live")
    found.tallies = [stream(f"s{number}", kind, 0.1) for number, kind in enumerate(kinds)]
    found.window_s, found.stayed = (10.0, 100.0), 2
    found.before, found.expected, found.after, found.gone_s = (3, 4), (1, 2), (1, 2), 7.0
    found.exit_code = 0
    return found


def broken(found: Found) -> list[str]:
    return [each.what for each in report.promises(found) if not each.kept]


def test_what_is_good_keeps_all_promises() -> None:
    assert broken(good()) == []
    assert "BROKEN" not in report.verdicts(report.promises(good()))


def _leak(found: Found) -> None:
    found.samples = [Sample(each.at_s, 200 + each.at_s, 40, 3, 4) for each in found.samples]


def _starve(found: Found) -> None:
    found.tallies[0] = stream("s0", "grpc live", 0.2)


def _grow_old(found: Found) -> None:
    found.tallies = [stream(each.name, each.kind, 0.1, late_s=0.15) for each in found.tallies]


def _idle(found: Found) -> None:
    for each in found.tallies:
        each.sent, each.dropped = each.answered, 0


def _lose(found: Found) -> None:
    found.tallies[1].sent += 1


def _swap(found: Found) -> None:
    found.tallies[3].note(ANSWERED, 7, 99.0, 1.0)


def _fail(found: Found) -> None:
    found.tallies[3].sent += 1
    found.tallies[3].note(FAILED, 2000, 99.0, fault="no image")


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (_leak, ["least memory"]),
        (lambda found: found.samples.clear(), ["least memory"]),
        (_starve, ["worst share of fair (s0)"]),
        (_grow_old, ["p99 age"]),
        (_idle, ["live frames sent"]),
        (_lose, ["frames of those who stay"]),
        (_swap, ["outcomes out of order"]),
        (_fail, ["frames failed", "streams that broke"]),
        (lambda found: setattr(found, "before", (2, 4)), ["streams, sessions at the end of the load"]),
        (lambda found: setattr(found, "after", (2, 2)), ["streams, sessions left 7 s after 2 clients"]),
        (lambda found: setattr(found, "after", (1, 1)), ["streams, sessions left 7 s after 2 clients"]),
        (lambda found: setattr(found, "gone_s", None), ["streams, sessions left - after"]),
        (lambda found: setattr(found, "last", (0, 1)), ["streams, sessions left at the end"]),
        (lambda found: setattr(found, "exit_code", None), ["exit code"]),
    ],
)
def test_each_promise_can_be_broken(harm: Callable[[Found], None], what: list[str]) -> None:
    found = good()
    harm(found)
    assert [said[: len(begin)] for said, begin in zip(broken(found), what, strict=True)] == what


def test_who_sends_little_is_owed_no_more() -> None:
    found = good()
    found.plan = Plan(streams=4, seconds=100.0, rate_hz=5.0, expiry_s=5.0, clips=None, environment={})
    found.tallies[0] = stream("s0", "grpc live", 0.2)  # all that it sent
    assert report.shares(found)[0] == pytest.approx(1.0, rel=0.01)


def test_a_turn_is_from_one_answer_to_the_one_after_the_next() -> None:
    tally = Tally("a", "grpc live", times_s=[0.0, 1.0, 3.0, 6.0])
    assert report.turns_ms([tally], 0.0, 10.0) == [3000.0, 5000.0]
    assert report.turns_ms([tally], 0.0, 3.0) == [3000.0]


def test_the_table_and_the_plot() -> None:
    text = report.table(good())
    assert "grpc live         2" in text
    assert len(text.splitlines()) == 1 + 3 + 2 + 2 + 12
    drawn = xml.etree.ElementTree.fromstring(report.plot(good()))
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 4


def test_made_pictures_move_there_and_back(tmp_path: Path) -> None:
    folders = frames.write(tmp_path, None)
    shown = [frames.read(folder) for folder in folders]
    assert {len(each) for each in shown} == {frames.FRAMES - 2}
    assert all(each[1:] == each[:0:-1] for each in shown)
    assert len({each[0] for each in shown} | {shown[0][1]}) == len(shown) + 1


def test_clips_are_read_and_reduced(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    writer = cv2.VideoWriter(
        str(tmp_path / "clips" / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (1280, 720)
    )
    for number in range(5):
        writer.write(np.full((720, 1280, 3), 40 * number, np.uint8))
    writer.release()
    (tmp_path / "out").mkdir()
    (folder,) = frames.write(tmp_path / "out", tmp_path / "clips")
    shown = frames.read(folder)
    assert len(shown) == 8
    assert cv2.imdecode(np.frombuffer(shown[0], np.uint8), cv2.IMREAD_COLOR).shape == (360, 640, 3)


def test_where_there_are_no_clips_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no clips"):
        frames.write(tmp_path, tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    done = CliRunner().invoke(cli, ["soak", "--clips", str(tmp_path)])
    assert done.exit_code == 1
    assert "cannot read a video" in done.output


def test_a_whole_run(tiny_bundle_root: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REPPOSE_")}
    settings = {
        "REPPOSE_MODELS__ROOTS": str(tiny_bundle_root),
        "REPPOSE_MODELS__DEFAULT": "tiny",
        "REPPOSE_BATCH__PIN": "off",
    }
    picture = tmp_path / "soak.svg"
    done = subprocess.run(
        [
            sys.executable, "-m", "service", "soak",
            "--minutes", "0.08", "--streams", "32", "--expiry", "2", "--out", str(picture),
        ],
        env=clean | settings,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )  # fmt: skip
    kept = [line for line in done.stdout.splitlines() if line.endswith(" kept")]
    for what in (
        "frames of those who stay without an outcome",
        "outcomes out of order",
        "frames failed",
        "streams that broke",
        "streams, sessions at the end of the load",
        "streams, sessions left at the end",
        "exit code of the server",
    ):
        assert any(line.startswith(what) for line in kept), done.stdout + done.stderr
    assert any("after 16 clients vanished" in line for line in kept), done.stdout + done.stderr
    for kind in ("grpc live", "grpc file", "websocket live", "websocket file", "http"):
        assert f"\n{kind} " in done.stdout
    assert done.returncode == ("BROKEN" in done.stdout)
    assert xml.etree.ElementTree.parse(picture).getroot().tag.endswith("svg")
