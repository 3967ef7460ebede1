"""Nets whose head answers keypoints: measured, exported and served without a heatmap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_zoo import bundle
from tests.trainer import people_made
from trainer import commands, loop
from trainer import config as configuration
from trainer.checkpoint import RunFolder
from trainer.export import OnnxNet

HEADS: dict[str, dict[str, Any]] = {
    "rle": {"head": "rle"},
    "regression": {"head": "regression", "presence": True},
    "dsnt": {"head": "dsnt", "debiased": "mean"},
    "dsnt in space": {"head": "dsnt", "dimensions": 3, "depth_cells": 4},
    "simcc": {"head": "simcc"},
}


@pytest.mark.parametrize("name", HEADS)
def test_a_run_is_measured_and_exported_as_keypoints(name: str, tmp_path: Path) -> None:
    people_made.make(tmp_path, count=8)
    document = people_made.run_document(phases=[{"epochs": 1, "height": 64, "width": 64}])
    document["net"] |= HEADS[name]
    folder = RunFolder(tmp_path / "run")
    loop.train(configuration.parse(document), tmp_path, folder, cache=tmp_path / "cache", accelerator="cpu")
    assert folder.curves_file.read_bytes().startswith(b"\x89PNG")
    assert folder.sheet_file.read_bytes().startswith(b"\x89PNG")

    written = commands.export(folder.path, tmp_path / "out", "1", tmp_path, [], images=None, replace=False)
    manifest = bundle.read(written.folder).manifest
    assert manifest.heatmaps is None
    assert manifest.codec is None
    assert manifest.keypoints_output is not None
    assert {each.net for each in manifest.agreement} == {"fused", "ONNX Runtime"}
    assert all(each.points_px < 0.05 for each in manifest.agreement)
    crops = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    found = OnnxNet(written.model_path).keypoints(crops)
    assert found.shape == (3, 19, 3)
    assert np.isfinite(found).all()
    assert ((found[..., 2] >= 0) & (found[..., 2] <= 1)).all()
    measured = commands.evaluate(
        str(written.folder), tmp_path, [Path("people.json")], images=None, roots=[], decoder=None
    )
    _, score, decoder = next(measured)
    assert decoder == "none"
    assert score.value == pytest.approx(manifest.accuracy[0].value, abs=0.01)
