"""A bundle whose card is written anew: other figures, the same net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.errors import BundleExists
from tests.trainer import hands_made
from trainer import card, commands, latency
from trainer.cli import app
from trainer.data import people
from trainer.errors import DataError
from trainer.export import OnnxNet

VAL, TEST = Path("val.json"), Path("digits_test.json")


@pytest.fixture(scope="module")
def both(trained_hand: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Made hands in both precisions, measured on the validation set."""
    out = tmp_path_factory.mktemp("bundles")
    run, root = trained_hand.folder.path, trained_hand.root
    hands_made.make(root, TEST.stem, count=40, seed=3)
    made = commands.export(run, out, "1", root, [], images=None, replace=False)
    return commands.quantise(
        str(made.folder), root, VAL, [VAL], out=out, count=24, method="minmax", replace=True, force=True
    )


@pytest.fixture(scope="module")
def written(trained_hand: Any, both: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same, measured on another set, timed, and with a comparison."""
    folder, patched = tmp_path_factory.mktemp("pages"), pytest.MonkeyPatch()
    (folder / "hands.md").write_text("# Hands\n", "utf-8")
    (folder / "hands-curves.png").write_bytes(b"\x89PNG")
    (folder / "other.png").write_bytes(b"\x89PNG")
    out = tmp_path_factory.mktemp("new")
    with patched.context() as patch:
        patch.setattr(latency, "TURNS", 3)
        told = CliRunner().invoke(
            app,
            [
                "card", str(both.folder), "--data", str(trained_hand.root), "--on", str(TEST), "--out", str(out),
                "--reference", "body19-small", "--document", str(folder / "hands.md"),
            ],
            catch_exceptions=False,
        )  # fmt: skip
    assert told.exit_code == 0, told.output
    return bundle.read(out / "mini-hand" / "1")


def test_the_nets_are_the_same(both, written, trained_hand):
    found = people.read(trained_hand.root / VAL, hands_made.HAND21)[:4]
    assert found
    crops = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)
    for one, other in ((both.model_path, written.model_path), (both.int8_path, written.int8_path)):
        before, after = OnnxNet(one).served(crops), OnnxNet(other).served(crops)
        assert set(before) == {"keypoints", "presence", "gesture", "handedness", "depth"}
        for name, each in before.items():
            np.testing.assert_array_equal(after[name], each)
        inside = {each.key: each.value for each in onnx.load(other).metadata_props}
        assert bundle.manifest_from_metadata(inside) == written.manifest.model_copy(update={"files": {}})


def test_figures_of_both_precisions_are_those_of_evaluate_and_others_stay(both, written, trained_hand):
    found = {(each.data, each.metric, each.precision): each for each in written.manifest.accuracy}
    kept = {(each.data, each.metric, each.precision): each for each in both.manifest.accuracy}
    assert {key: found[key] for key in kept} == kept
    for precision in ("fp32", "int8"):
        printed = {
            score.metric: (score.value, score.people)
            for _, score, _ in commands.evaluate(
                str(both.folder), trained_hand.root, [TEST],
                images=None, roots=[], decoder=None, precision=precision,
            )
        }  # fmt: skip
        new = {
            metric: (each.value, each.people)
            for (data, metric, of), each in found.items()
            if (data, of) == (TEST.stem, precision)
        }
        assert new.keys() == printed.keys() > {"gesture accuracy", "presence ECE", "score ECE", "depth error"}
        for metric, (value, count) in printed.items():
            assert new[metric] == (pytest.approx(value, abs=0.01), count)


def test_every_graph_is_timed_against_the_reference(written):
    assert [each.precision for each in written.manifest.latency] == ["fp32", "int8"]
    for each in written.manifest.latency:
        assert each.reference == "body19-small@1 fp32"
        assert 0 < each.ratio < 1  # a few thousand weights against half a million
        assert each.command == "reppose-train card mini-hand@1 --reference body19-small --out OUT"


def test_the_card_says_it_all(written):
    text = (written.folder / "README.md").read_text("utf-8")
    assert text == card.text(written.manifest)
    for each in written.manifest.accuracy:
        assert (
            f"| {each.data} | {each.people} | {each.metric} | {each.precision} | {each.value:.1f} |" in text
        )
        assert f"- {each.metric}: " in text  # what it means
    for each in written.manifest.latency:
        assert f"| {each.precision} | {each.ratio:.2f}x | body19-small@1 fp32 | {each.ms:.2f} |" in text
    assert "[hands.md](hands.md)" in text
    assert "PCK@0.2:" not in text  # of bodies
    assert "hand box x 1.25" in text
    assert "MediaPipe Hands" in text  # of a set whose name begins with digits_
    assert "`handgt`" not in text
    assert set(written.manifest.files) == {
        "README.md", "model.onnx", "model.int8.onnx", "hands.md", "hands-curves.png",
    }  # fmt: skip


def test_what_becomes_of_a_card_when_the_net_changes(written, trained_hand, tmp_path):
    """Another graph was not timed; pages and the other graph's figures stay."""
    quantised = commands.quantise(
        str(written.folder),
        trained_hand.root,
        VAL,
        [VAL],
        out=tmp_path,
        count=24,
        method="minmax",
        force=True,
    )
    assert [each.precision for each in quantised.manifest.latency] == ["fp32"]
    calibrated = commands.calibrate(str(written.folder), trained_hand.root, [VAL], out=tmp_path)
    assert calibrated.manifest.latency == ()
    for each in (quantised, calibrated):
        assert "[hands.md](hands.md)" in (each.folder / "README.md").read_text("utf-8")
        assert (each.folder / "hands-curves.png").is_file()


def test_a_bundle_is_not_overwritten_unasked(both, trained_hand, tmp_path):
    with pytest.raises(BundleExists):
        commands.card(str(both.folder), trained_hand.root, [], out=both.folder.parents[1])
    told = CliRunner().invoke(app, ["card", str(both.folder), "--out", str(tmp_path), "--version", "9"])
    assert told.exit_code == 0, told.output
    again = bundle.read(tmp_path / "mini-hand" / "9").manifest
    assert again.model_copy(update={"version": "1", "files": {}}) == both.manifest.model_copy(
        update={"files": {}}
    )


@pytest.mark.parametrize("name", ["page.txt", "README.md", "absent.md"])
def test_what_is_no_page_is_refused(name, both, trained_hand, tmp_path):
    if name != "absent.md":
        (tmp_path / name).write_text("text")
    with pytest.raises(DataError, match=name):
        commands.card(
            str(both.folder), trained_hand.root, [], out=tmp_path / "out", documents=[tmp_path / name]
        )
    assert not (tmp_path / "out").exists()
