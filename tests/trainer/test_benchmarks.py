"""The comparison: figures of a bundle are those of `evaluate`, a peer answers as a program, and who stands upright."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model_zoo.skeletons import BODY19, HAND21
from tests.trainer import people_made
from tests.trainer.conftest import TrainedRun
from trainer import benchmark_families, benchmarks, cli, commands
from trainer.benchmark_families import FAMILIES, Family
from trainer.data import people
from trainer.data.people import Person, Picture
from trainer.errors import DataError
from trainer.peer import Peer

PEER = """
import json, sys
import numpy as np
about = {"name": "Centre 1.0", "licence": "none", "keypoints": ["left_hip", "right_hip", "left_pinky"]}
print(json.dumps(about), flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    if "crops" in wanted:
        crops = np.load(wanted["crops"])
        middle = np.array([(crops.shape[2] - 1) / 2, (crops.shape[1] - 1) / 2])
        np.savez(wanted["out"], points=np.tile(middle, (len(crops), 3, 1)), scores=np.ones((len(crops), 3)))
        print("{}", flush=True)
    else:
        print(json.dumps({"ms": 7.0}), flush=True)
"""
"""Says that both hips are in the middle of every crop."""


@pytest.fixture
def bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """Bodies, with the peer above."""
    program = tmp_path / "peer.py"
    program.write_text(PEER)
    changed = replace(FAMILIES["body"], peer=program)
    monkeypatch.setitem(FAMILIES, "body", changed)
    return changed


def standing(angle_deg: float) -> Person:
    """Somebody whose trunk is turned by so much from upright."""
    points, visible = np.zeros((19, 2)), np.zeros(19, np.int64)
    angle = np.radians(angle_deg)
    for side, across in (("left", 5.0), ("right", -5.0)):
        points[BODY19.index(f"{side}_hip")] = 50 + across, 50
        points[BODY19.index(f"{side}_shoulder")] = 50 + across + 30 * np.sin(angle), 50 - 30 * np.cos(angle)
        visible[[BODY19.index(f"{side}_hip"), BODY19.index(f"{side}_shoulder")]] = 2
    box = np.array([0.0, 0, 100, 100])
    return Person(1, 1, Picture(Path("none")), box, 1.0, points, visible, (visible > 0) * 1.0)


@pytest.mark.parametrize(
    ("angle", "is_upright"), [(0, True), (44, True), (-44, True), (46, False), (-90, False), (180, False)]
)
def test_upright_is_within_45_degrees(angle: float, is_upright: bool) -> None:
    assert benchmark_families.upright(standing(angle), BODY19) is is_upright


def test_nobody_is_upright_or_tilted_without_a_trunk() -> None:
    person = standing(0)
    person.visible[BODY19.index("left_hip")] = 0
    assert benchmark_families.upright(person, BODY19) is True  # one hip is enough
    person.visible[BODY19.index("right_hip")] = 0
    assert benchmark_families.upright(person, BODY19) is None


def test_a_peer_answers_in_pixels_of_the_pictures(bodies: Family, tmp_path: Path) -> None:
    made = people_made.make(tmp_path / "made", count=6)
    found = people.read(made.annotations, BODY19)
    with Peer(Path(sys.executable), bodies.peer) as program:
        entrant = benchmarks.entrant_of(program, bodies)
        points, scores = entrant.predict(found)
        benchmarks._figures(entrant, "made", found, bodies)
        assert entrant.timed(found, 3) == 7.0
    assert points.shape == (6, 3, 2)
    assert scores.shape == (6, 3)
    middles = np.array([person.box[:2] + person.box[2:] / 2 for person in found])
    np.testing.assert_allclose(points, np.repeat(middles[:, None], 3, axis=1), atol=1e-6)
    right = entrant.joints["made"]
    assert right["left_wrist"] == 0.0  # what it does not answer is wrong
    assert max(right["left_hip"], right["right_hip"]) > 0


def test_a_peer_that_cannot_run_is_an_error(bodies: Family, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot run"):
        Peer(tmp_path / "no-python", bodies.peer)
    bodies.peer.write_text("raise SystemExit(3)")
    with pytest.raises(DataError, match="cannot run"):
        Peer(Path(sys.executable), bodies.peer)


def entries_of(report: Path) -> dict[str, dict[str, str]]:
    """The first table of a report, by name of the net and head of the column."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in report.read_text().splitlines()
        if "|" in line
    ]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:] if len(row) == len(rows[0])}


@pytest.mark.usefixtures("bodies")
def test_the_report_has_the_figures_of_evaluate(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "TURNS", 3)
    bundle = commands.export(
        trained.folder.path, tmp_path / "bundles", "1", trained.root, [], images=None, replace=False
    )
    report = tmp_path / "report" / "benchmarks.md"
    run = ["benchmarks", "--data", str(trained.root), "--out", str(report), "--on", "people.json"]
    run += ["--bundles", str(tmp_path / "bundles"), "--reference", bundle.name, "--peer", sys.executable]
    told = CliRunner().invoke(cli.app, run)
    assert told.exit_code == 0, told.output
    entries = entries_of(report)
    ours = entries[f"{bundle.name}@1 fp32"]
    assert ours["latency"] == "1.00x"
    assert any(name.startswith("body19-small") and name.endswith("int8") for name in entries)
    wanted = {
        score.metric: score.value
        for _, score, _ in commands.evaluate(
            f"{bundle.name}@1",
            trained.root,
            [Path("people.json")],
            images=None,
            decoder=None,
            roots=[tmp_path / "bundles"],
        )
    }
    assert float(ours["people PCK"]) == pytest.approx(wanted["PCK@0.2"], abs=0.051)
    assert float(ours["people AP"]) == pytest.approx(wanted["OKS-AP"], abs=0.051)
    assert float(entries["Centre 1.0"]["people PCK"]) < 60
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


HANDS_PEER = """
import json, sys
import numpy as np
print(json.dumps({"name": "Half 1.0", "licence": "none", "keypoints": NAMES}), flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    if "crops" in wanted:
        crops = np.load(wanted["crops"])
        there = np.arange(len(crops)) % 2 == 0
        scores = np.repeat(there[:, None], 21, axis=1) * 1.0
        np.savez(wanted["out"], points=np.zeros((len(crops), 21, 2)), scores=scores)
        print("{}", flush=True)
    else:
        print(json.dumps({"ms": 7.0}), flush=True)
"""
"""Finds every second hand, and that in the corner."""


def test_hands_are_compared_as_well(
    trained_hand: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, out = tmp_path / "peer.py", tmp_path / "bundles"
    program.write_text(HANDS_PEER.replace("NAMES", repr(list(HAND21.keypoints))))
    monkeypatch.setitem(FAMILIES, "hand", replace(FAMILIES["hand"], peer=program))
    monkeypatch.setattr(benchmarks, "TURNS", 3)
    bundle = commands.export(
        trained_hand.folder.path, out, "1", trained_hand.root, [], images=None, replace=False
    )
    report = tmp_path / "hands.md"
    run = ["benchmarks", "--family", "hand", "--data", str(trained_hand.root), "--out", str(report)]
    run += ["--on", "val.json", "--bundles", str(out), "--peer", sys.executable]
    told = CliRunner().invoke(cli.app, run, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    entries = entries_of(report)
    assert not any(name.startswith("body19") for name in entries)
    ours, half = entries[f"{bundle.name}@1 fp32"], entries["Half 1.0"]
    assert 0 < float(ours["latency"].rstrip("x")) < 1 < float(half["latency"].rstrip("x"))
    assert "against body19-small@1 fp32" in report.read_text()
    wanted = {each.metric: each.value for each in bundle.manifest.accuracy if each.data == "val"}
    for figure, metric in (
        ("error", "mean error of box"), ("PCK", "PCK@0.1box"), ("presence AUC", "presence AUC"),
        ("gesture accuracy", "gesture accuracy"), ("handedness accuracy", "handedness accuracy"),
    ):  # fmt: skip
        assert float(ours[f"val {figure}"]) == pytest.approx(wanted[metric], abs=0.06), figure
    assert ours["val found"] == "100.0"
    labelled = np.array([each.visible.any() for each in people.read(trained_hand.root / "val.json", HAND21)])
    found = labelled[::2].sum() / labelled.sum()
    assert float(half["val found"]) == pytest.approx(100 * found, abs=0.06)
    assert float(half["val error"]) > 30
    assert float(half["val PCK"]) < 5
    assert half["val presence AUC"] == ""
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_hands_that_were_not_found_count_in_pck_alone() -> None:
    points, box = np.random.default_rng(1).uniform(10, 90, (21, 2)), np.array([0.0, 0, 100, 100])
    known = np.full(21, 2)
    found = [Person(n, n, Picture(Path("none")), box, 1.0, points, known, np.ones(21)) for n in range(4)]
    told = np.stack([points, points + np.array([3, 4]), np.zeros((21, 2)), np.zeros((21, 2))])
    scores = np.repeat([[1.0], [0.4], [0.0], [0.0]], 21, axis=1)
    figures, joints = benchmark_families.of_hands(found, told, scores, HAND21)
    assert figures == {"found": 50.0, "PCK": pytest.approx(50.0), "error": pytest.approx(2.5)}
    assert set(joints) == set(HAND21.keypoints)
    nothing, _ = benchmark_families.of_hands(found[2:], told[2:], scores[2:], HAND21)
    assert nothing == {"found": 0.0, "PCK": 0.0}
