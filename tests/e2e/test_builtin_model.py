"""The model that comes with the package: it is what its card says, and it sees a person in a photograph."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_zoo import bundle, skeletons

DATA = os.environ.get("POSE_TEST_DATA")
NAME = "body19-small"


@pytest.fixture(scope="module")
def built_in() -> bundle.Bundle:
    """The bundle, its hashes checked."""
    return bundle.find(NAME)


def test_it_is_the_size_that_was_asked_for(built_in: bundle.Bundle) -> None:
    assert built_in.manifest.input.size == (256, 192)
    assert 120e6 < built_in.manifest.macs < 132e6


def test_the_graph_alone_carries_the_manifest(built_in: bundle.Bundle) -> None:
    model = onnx.load(built_in.model_path)
    alone = bundle.manifest_from_metadata({each.key: each.value for each in model.metadata_props})
    assert alone == built_in.manifest.model_copy(update={"files": {}})


def test_eight_bits_lose_at_most_one_point(built_in: bundle.Bundle) -> None:
    figures = {(each.data, each.metric, each.precision): each.value for each in built_in.manifest.accuracy}
    for (data, metric, precision), value in figures.items():
        if precision == "int8" and metric == "PCK@0.2":
            assert value >= figures[data, metric, "fp32"] - 1.0


def test_its_card_names_data_licence_seed_and_the_three_figures(built_in: bundle.Bundle) -> None:
    card = (built_in.folder / "README.md").read_text("utf-8")
    manifest = built_in.manifest
    assert manifest.licence in card
    for each in manifest.training.data:
        assert each.name in card
        assert each.licence in card
    measured = {(each.data, each.metric) for each in manifest.accuracy}
    wanted = {("body/lsp_test", "PCK@0.2"), ("body/lspet_val", "PCK@0.2"), ("body/coco17_test", "OKS-AP")}
    assert wanted <= measured


def test_it_finds_the_person_in_a_photograph_by_itself(tmp_path: Path) -> None:
    """The portrait of scikit-image's wheel: 512 x 512, head and shoulders upright in the middle."""
    import skimage
    from typer.testing import CliRunner

    from service.cli import cli

    photograph = Path(skimage.__file__).parent / "data" / "astronaut.png"
    done = CliRunner().invoke(cli, ["predict", str(photograph)])
    assert done.exit_code == 0, done.output
    (pose,) = json.loads(done.stdout)["poses"]
    at = {each["name"]: np.array([each["x"], each["y"]]) for each in pose["keypoints"]}
    assert pose["box_source"] in {"found", "image"}
    assert np.linalg.norm(at["nose"] - [222, 115]) < 25  # read off the picture by eye
    assert at["left_shoulder"][0] > at["nose"][0] > at["right_shoulder"][0]
    assert at["neck"][1] > at["nose"][1] > at["head_top"][1]


@pytest.mark.skipif(not DATA, reason="POSE_TEST_DATA does not name the folder of annotated photographs")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("name", "metric"), [("body/lsp_test", "PCK@0.2"), ("body/coco17_test", "OKS-AP")])
def test_the_card_tells_the_truth(built_in: bundle.Bundle, name: str, metric: str, precision: str) -> None:
    from trainer import evaluate
    from trainer.data import people
    from trainer.export import OnnxNet

    manifest = built_in.manifest
    found = people.read(Path(DATA) / f"{name}.json", skeletons.skeleton(manifest.skeleton))
    graph = built_in.model_path if precision == "fp32" else built_in.int8_path
    scores = evaluate.scores(OnnxNet(graph), found, manifest, manifest.codec.decoder)
    wanted = name, metric, precision
    (claimed,) = [each for each in manifest.accuracy if (each.data, each.metric, each.precision) == wanted]
    (measured,) = [each for each in scores if each.metric == metric]
    assert measured.people == claimed.people
    assert measured.value == pytest.approx(claimed.value, abs=0.3)
