"""Presence, classes and depth: the graph says what the net says, in both precisions, and the card how well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from model_zoo import bundle
from model_zoo.bundle import Bundle
from tests.trainer import hands_made
from trainer import agreement, commands, export, quantise
from trainer import config as configuration
from trainer.errors import ExportError, QuantisationError
from trainer.export import OnnxNet
from trainer.nets import answers, build, further
from trainer.nets.served import Torch, normalised
from trainer.quantise import Recipe

CPU = torch.device("cpu")
VAL = Path("val.json")


@pytest.fixture(scope="module")
def exported(trained_hand: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of the net of made hands, in float32."""
    out = tmp_path_factory.mktemp("bundles")
    return commands.export(
        trained_hand.folder.path, out, "1", trained_hand.root, [], images=None, replace=False
    )


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Made hands and noise, as large as the net wants them."""
    rng = np.random.default_rng(5)
    hands = [None if i % 3 == 0 else hands_made.hand(rng, "open", "left") for i in range(24)]
    return np.stack([hands_made.picture(rng, each)[8:72, 8:72] for each in hands])


def test_the_manifest_tells_of_every_head(trained_hand, exported):
    manifest = bundle.read(exported.folder).manifest
    assert manifest.schema_version == 2
    assert manifest.presence.of == "hand"
    assert {each.of: (each.labels, each.mirror) for each in manifest.classes} == {
        "gesture": (("fist", "open"), None),
        "handedness": (("left", "right"), (1, 0)),
    }
    assert (manifest.depth.root, manifest.depth.scale) == ("wrist", 1.0)
    assert manifest.heatmaps is None
    again = configuration.RunConfig.model_validate(exported.manifest.training.config)
    assert again == trained_hand.config


def test_the_graph_says_what_the_net_says(trained_hand, exported, crops):
    net = export.trained_net(trained_hand.folder)
    config = trained_hand.config
    with torch.inference_mode():
        found = net(normalised(torch.from_numpy(crops).permute(0, 3, 1, 2), config))
    graph = export.to_onnx(net, config).SerializeToString()
    said = OnnxNet(graph).further(crops)
    assert set(said) == {"presence", "gesture", "handedness", "depth"}
    left = found["handedness"].sigmoid().numpy()
    z = answers.points(found, config.net, (64, 64))[..., 2].numpy()
    expected = {
        "presence": found["presence"].sigmoid().numpy(),
        "gesture": found["class"].softmax(-1).numpy(),
        "handedness": np.stack([left, 1 - left], axis=-1),
        "depth": z - z[:, :1],
    }
    for name, each in expected.items():
        np.testing.assert_allclose(said[name], each, atol=1e-5 if name != "depth" else 1e-3, err_msg=name)
    assert said["presence"].std() > 0.1  # else nothing would be compared
    assert np.abs(said["depth"]).max() > 1
    assert (said["depth"][:, 0] == 0).all()


def test_the_nets_agree_and_the_card_says_how_well_they_do(exported):
    manifest = exported.manifest
    for each in manifest.agreement:
        assert each.probability <= 1e-5
        assert each.depth_px <= 1e-3
    found = {each.metric: each for each in manifest.accuracy}
    assert found["gesture accuracy"].value > 90
    assert found["handedness accuracy"].value > 90
    assert found["presence AUC"].value > 95
    assert found["depth error"].value < 8
    assert (found["presence AUC"].people, found["gesture accuracy"].people) == (64, 48)
    card = (exported.folder / "README.md").read_text("utf-8")
    for text in (
        "probability that a hand is there",
        "`gesture` (N, 2) float32, probabilities of fist, open",
        "which a mirrored crop exchanges",
        "z relative to `wrist`",
        "| gesture accuracy |",
        "Depth, crop px",
    ):
        assert text in card


def test_what_is_written_is_what_evaluate_prints(trained_hand, exported):
    printed = {
        score.metric: score.value
        for _, score, _ in commands.evaluate(
            str(exported.folder), trained_hand.root, [VAL], images=None, roots=[], decoder=None
        )
    }
    assert printed == pytest.approx(
        {each.metric: each.value for each in exported.manifest.accuracy}, abs=0.01
    )


def test_a_graph_of_another_net_is_refused(trained_hand, crops):
    net = export.trained_net(trained_hand.folder)
    other = export.trained_net(trained_hand.folder)
    with torch.no_grad():
        other.more["class"].logits.bias[0] += 0.01
    graph = export.to_onnx(other, trained_hand.config).SerializeToString()
    with pytest.raises(ExportError, match=r"ONNX Runtime net differs .* in its probabilities"):
        export.compare(net, graph, trained_hand.config, crops)


def test_depth_that_differs_is_refused(trained_hand, crops):
    config, net = (
        trained_hand.config,
        Torch(export.trained_net(trained_hand.folder), trained_hand.config, CPU),
    )

    class Deeper:
        """The same net with another z."""

        def keypoints(self, images: np.ndarray) -> np.ndarray:
            return net.keypoints(images)

        def further(self, images: np.ndarray) -> dict[str, np.ndarray]:
            return net.further(images) | {"depth": net.further(images)["depth"] + 0.1}

    with pytest.raises(ExportError, match="in its depths"):
        agreement.check(agreement.measure(net, {"other": Deeper()}, config, crops))


@pytest.mark.parametrize(
    ("output", "where"), [("presence", "probabilities"), ("class", "probabilities"), ("depth", "depths")]
)
def test_what_is_no_number_agrees_with_nothing(output, where, trained_hand, crops):
    config = trained_hand.config
    net = Torch(export.trained_net(trained_hand.folder), config, CPU)

    class Broken:
        """The same net, which does not know one thing of one crop."""

        def keypoints(self, images: np.ndarray) -> np.ndarray:
            return net.keypoints(images)

        def further(self, images: np.ndarray) -> dict[str, np.ndarray]:
            said = net.further(images)
            name = next(
                each for each in said if each.startswith(output) or (output, each) == ("class", "gesture")
            )
            said[name][-1] = np.nan
            return said

    with pytest.raises(ExportError, match=f"by nan.* in its {where}"):
        agreement.check(agreement.measure(net, {"other": Broken()}, config, crops))


@pytest.mark.parametrize("head", ["softmax", "linear", "rle", "simcc"])
def test_every_keypoint_head_goes_with_the_others(head, crops):
    """Also those with heatmaps, whose graph answers both forms of keypoints."""
    document = hands_made.run_document()
    flat = document["net"] | {"head": head, "dimensions": 3 if head == "rle" else 2}
    config = configuration.parse(document | {"net": flat})
    torch.manual_seed(3)
    net = build.plain(config).eval()
    graph = export.to_onnx(net, config)
    names = [each.name for each in graph.graph.output]
    assert set(further.names(config)) <= set(names)
    export.compare(net, graph.SerializeToString(), config, crops)


def test_the_heads_survive_8_bits(trained_hand, exported, tmp_path):
    written = commands.quantise(
        str(exported.folder), trained_hand.root, VAL, [VAL], out=tmp_path, count=24, method="minmax"
    )
    manifest = bundle.read(written.folder).manifest
    by_metric: dict[str, dict[str, float]] = {}
    for each in manifest.accuracy:
        by_metric.setdefault(each.metric, {})[each.precision] = each.value
    for metric in ("gesture accuracy", "handedness accuracy", "presence AUC"):
        assert by_metric[metric]["fp32"] - by_metric[metric]["int8"] <= 1.0
    assert "| gesture accuracy | int8 |" in (written.folder / "README.md").read_text("utf-8")


def test_convolutions_before_a_pooled_head_are_in_8_bits(trained_hand, exported, crops):
    """Only what must be in float32 is: the heads, and what makes the keypoints."""
    graph = quantise.quantise(onnx.load(exported.model_path), crops, Recipe()).graph
    dequantised = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    convolutions = [n for n in graph.node if n.op_type == "Conv"]
    in_float = [n.name for n in convolutions if n.input[0] not in dequantised]
    assert len(in_float) <= 1
    assert len(convolutions) > 5
    answers_of = OnnxNet(
        quantise.quantise(onnx.load(exported.model_path), crops, Recipe()).SerializeToString()
    )
    said, expected = answers_of.further(crops), OnnxNet(exported.model_path).further(crops)
    for name in ("presence", "gesture", "handedness"):
        assert np.abs(said[name] - expected[name]).mean() < 0.05


def test_more_than_a_point_of_any_head_is_refused(trained_hand, exported, tmp_path, monkeypatch):
    """The answers of the graph in 8 bits are turned round, as if it took fists for open hands."""
    own = OnnxNet.further

    def turned(self: OnnxNet, images: np.ndarray) -> dict[str, np.ndarray]:
        said = own(self, images)
        return said | {"gesture": said["gesture"][:, ::-1]} if self.is_turned else said

    opened = OnnxNet.__init__

    def open_graph(self: OnnxNet, model: Path | bytes) -> None:
        opened(self, model)
        self.is_turned = isinstance(model, bytes)

    monkeypatch.setattr(OnnxNet, "__init__", open_graph)
    monkeypatch.setattr(OnnxNet, "further", turned)
    with pytest.raises(QuantisationError, match=r"8 bits lose .* points of gesture accuracy"):
        commands.quantise(
            str(exported.folder), trained_hand.root, VAL, [VAL], out=tmp_path, count=12, method="minmax"
        )


def test_a_set_of_presence_alone_is_measured(trained_hand, exported, tmp_path):
    document = json.loads((trained_hand.root / VAL).read_text("utf-8"))
    for entry in document["annotations"]:
        del entry["keypoints"], entry["gesture"], entry["handedness"]
        entry.pop("keypoints_3d", None)
    document["categories"] = [{"id": 1, "name": "hand"}]
    path = trained_hand.root / "presence_only.json"
    path.write_text(json.dumps(document), "utf-8")
    found = [
        score
        for _, score, _ in commands.evaluate(
            str(exported.folder), trained_hand.root, [Path(path.name)], images=None, roots=[], decoder=None
        )
    ]
    assert [(each.metric, each.people) for each in found] == [("presence AUC", 64), ("presence ECE", 64)]
    assert found[0].value > 95
    assert found[1].value < 10
