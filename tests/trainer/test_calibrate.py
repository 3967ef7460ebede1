"""Calibration in the graph: exactly the fitted map, in every graph of a bundle, and only where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from model_zoo import bundle, scores
from model_zoo.bundle import Bundle
from model_zoo.skeletons import HAND21
from tests.trainer import hands_made
from trainer import calibrate, commands
from trainer.calibrated_graph import calibrated
from trainer.cli import app
from trainer.data import people
from trainer.errors import DataError, ExportError
from trainer.export import OnnxNet
from trainer.reliability import Affine

VAL = Path("val.json")
HEADS = ("gesture", "handedness", "presence")


@pytest.fixture(scope="module")
def exported(trained_hand: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Made hands, as the net learnt them."""
    out = tmp_path_factory.mktemp("bundles")
    return commands.export(
        trained_hand.folder.path,
        out,
        "1",
        trained_hand.root,
        [],
        images=None,
        replace=False,
        calibrated="nothing",
    )


@pytest.fixture(scope="module")
def body(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Made people: heatmaps, and keypoints in the graph, in both precisions."""
    out = tmp_path_factory.mktemp("bundles")
    made = commands.export(
        trained.folder.path, out, "1", trained.root, [], images=None, replace=False, calibrated="nothing"
    )
    return commands.quantise(
        str(made.folder),
        trained.root,
        Path("people.json"),
        [],
        out=out,
        count=12,
        method="minmax",
        force=True,
    )


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Made hands and noise."""
    rng = np.random.default_rng(5)
    hands = [None if i % 3 == 0 else hands_made.hand(rng, "open", "left") for i in range(18)]
    return np.stack([hands_made.picture(rng, each)[8:72, 8:72] for each in hands])


def test_the_graph_applies_exactly_the_map(exported, crops):
    maps = {
        "presence": Affine(0.5, -1.0),
        "gesture": Affine(0.3),
        "handedness": Affine(2.0, 0.7),
        "scores": Affine(0.6, 0.4),
    }
    plain = onnx.load(exported.model_path)
    before = plain.SerializeToString()
    after = OnnxNet(calibrated(plain, exported.manifest, maps).SerializeToString())
    assert plain.SerializeToString() == before  # the argument is left alone
    net = OnnxNet(exported.model_path)
    raw, said = net.further(crops), after.further(crops)
    np.testing.assert_allclose(
        said["presence"], scores.sigmoid(0.5 * scores.odds(raw["presence"]) - 1.0), atol=2e-5
    )
    left = scores.sigmoid(2.0 * scores.odds(raw["handedness"][:, 0]) + 0.7)
    np.testing.assert_allclose(said["handedness"], np.stack([left, 1 - left], axis=-1), atol=2e-5)
    powers = raw["gesture"].astype(np.float64) ** 0.3
    np.testing.assert_allclose(said["gesture"], powers / powers.sum(-1, keepdims=True), atol=2e-5)
    np.testing.assert_array_equal(said["depth"], raw["depth"])
    own, mapped = net.keypoints(crops), after.keypoints(crops)
    np.testing.assert_array_equal(mapped[..., :2], own[..., :2])
    np.testing.assert_allclose(
        mapped[..., 2], scores.sigmoid(0.6 * scores.odds(own[..., 2]) + 0.4), atol=1e-5
    )


def test_a_graph_is_calibrated_anew_and_not_twice(exported, crops):
    plain = onnx.load(exported.model_path)
    one = {"presence": Affine(0.5, -1.0), "scores": Affine(3.0, 1.0)}
    other = {"presence": Affine(2.0, 0.3), "scores": Affine(0.5, 0.2)}
    twice = calibrated(calibrated(plain, exported.manifest, one), exported.manifest, other)
    once = calibrated(plain, exported.manifest, other)
    assert len(twice.graph.node) == len(once.graph.node)
    nets = [OnnxNet(each.SerializeToString()) for each in (twice, once)]
    np.testing.assert_array_equal(*(each.further(crops)["presence"] for each in nets))
    np.testing.assert_array_equal(*(each.keypoints(crops) for each in nets))


def test_an_output_of_another_form_is_refused(exported):
    model = onnx.load(exported.model_path)
    with pytest.raises(ExportError, match="ends with"):
        calibrated(model, exported.manifest, {"depth": Affine(2.0)})


def test_a_bundle_is_calibrated_on_a_set(trained_hand, exported, tmp_path, crops):
    result = CliRunner().invoke(
        app,
        [
            "calibrate", str(exported.folder), "--data", str(trained_hand.root), "--on", "val.json",
            "--measure", "val.json", "--out", str(tmp_path), "--plot", str(tmp_path / "plot.png"),
        ],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    written = bundle.read(tmp_path / "mini-hand" / "1-calibrated")
    found = {each.of: each for each in written.manifest.calibration}
    assert sorted(found) == [*HEADS, "scores"]
    assert found["scores"].count == 48 * 21
    assert found["scores"].error < min(found["scores"].error_before, 0.1)
    assert found["scores"].event == "the keypoint lies within 0.1 of the long side of the hand's box"
    assert found["gesture"].shift == 0
    card = (written.folder / "README.md").read_text("utf-8")
    assert "## Calibration" in card
    assert "in 15 equal bins" in card
    net = OnnxNet(exported.model_path)
    np.testing.assert_allclose(
        OnnxNet(written.model_path).keypoints(crops)[..., 2],
        scores.calibrated(net.keypoints(crops)[..., 2], found["scores"]),
        atol=1e-5,
    )
    # The order of nobody changes, so no figure does that is not about calibration itself.
    before, after = (
        {each.metric: each.value for each in one.manifest.accuracy} for one in (exported, written)
    )
    errors = {name for name in after if name.endswith(" ECE")}
    assert errors == {"presence ECE", "gesture ECE", "handedness ECE", "score ECE"}
    assert "score ECE" not in before  # what is not calibrated is no probability
    assert after["score ECE"] < 100 * found["scores"].error_before
    assert {name: each for name, each in after.items() if name not in errors} == pytest.approx(
        {name: each for name, each in before.items() if name not in errors}, abs=0.01
    )


def test_calibrating_a_calibrated_bundle_finds_the_same_maps(trained_hand, exported, tmp_path):
    first = commands.calibrate(str(exported.folder), trained_hand.root, [VAL], out=tmp_path, version="2")
    second = commands.calibrate(str(first.folder), trained_hand.root, [VAL], out=tmp_path, version="3")
    for one, other in zip(first.manifest.calibration, second.manifest.calibration, strict=True):
        assert other.scale == pytest.approx(one.scale, rel=1e-2)
        assert other.shift == pytest.approx(one.shift, abs=0.05)
        assert other.error_before == pytest.approx(one.error_before, abs=0.01)


def test_heads_are_calibrated_at_export_on_the_validation_set(trained_hand, tmp_path):
    def export(version: str, what: str) -> bundle.Bundle:
        return commands.export(
            trained_hand.folder.path,
            tmp_path,
            version,
            trained_hand.root,
            [],
            images=None,
            replace=False,
            calibrated=what,
        )

    heads, everything = export("1", "heads"), export("2", "all")
    assert [each.of for each in heads.manifest.calibration] == [*HEADS]
    assert {each.data for each in heads.manifest.calibration} == {"val"}
    assert [each.of for each in everything.manifest.calibration] == [*HEADS, "scores"]
    # Scores alone, afterwards, leave the heads as they are.
    both = commands.calibrate(
        str(heads.folder), trained_hand.root, [VAL], out=tmp_path, version="3", calibrated="scores"
    )
    *others, scored = both.manifest.calibration
    assert others == [*heads.manifest.calibration]
    assert (scored.of, "--only scores" in scored.command) == ("scores", True)
    # The graph's own copy of the manifest says the same.
    inside = {each.key: each.value for each in onnx.load(everything.model_path).metadata_props}
    assert bundle.manifest_from_metadata(inside).calibration == everything.manifest.calibration


def test_scores_of_a_body_are_calibrated_in_both_graphs(trained, body, tmp_path):
    written = commands.calibrate(
        str(body.folder), trained.root, [Path("people.json")], out=tmp_path, version="4"
    )
    (found,) = written.manifest.calibration
    assert (found.of, written.manifest.schema_version, body.manifest.schema_version) == ("scores", 2, 1)
    assert found.error <= 0.05
    assert found.error < found.error_before
    crops = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)
    for before, after in ((body.model_path, written.model_path), (body.int8_path, written.int8_path)):
        own, mapped = OnnxNet(before).keypoints(crops), OnnxNet(after).keypoints(crops)
        np.testing.assert_allclose(mapped[..., 2], scores.calibrated(own[..., 2], found), atol=1e-5)
        np.testing.assert_array_equal(OnnxNet(before)(crops), OnnxNet(after)(crops))  # maps stay as they were


def test_a_set_that_says_nothing_is_refused(trained, body, tmp_path):
    with pytest.raises(DataError, match="too few labels"):
        commands.calibrate(
            str(body.folder), trained.root, [Path("people.json")], out=tmp_path, calibrated="heads"
        )


def test_a_head_without_labels_is_left_out(trained_hand, exported):
    found = people.read(trained_hand.root / VAL, HAND21)
    there = [each for each in found if each.presence == 1]
    fits = calibrate.fits(OnnxNet(exported.model_path), exported.manifest, there, keypoints=False)
    assert sorted(fits) == ["gesture", "handedness"]
