"""Export: the graph computes what the trained net computes, describes itself, and refuses to be wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import utils
from torch import Tensor, nn

from model_zoo import bundle, codecs, geometry
from model_zoo.bundle import Bundle
from model_zoo.errors import BundleExists
from model_zoo.manifest import Normalisation
from model_zoo.scores import calibrated
from model_zoo.skeletons import BODY19
from tests.trainer import people_made
from trainer import agreement, card, commands, evaluate, export
from trainer import config as configuration
from trainer.checkpoint import RunFolder
from trainer.config import RunConfig
from trainer.data import people
from trainer.errors import CheckpointError, ConfigError, ExportError
from trainer.export import OnnxNet
from trainer.nets import build
from trainer.nets.repvgg import MergedBlock
from trainer.nets.served import Torch, normalised

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def crops(trained: Any) -> np.ndarray:
    """Real crops of the size that the run serves."""
    found = people.read(trained.folder.path.parents[1] / "people.json", BODY19)
    return evaluate.crops(found[:7], (64, 64), trained.config.padding)[0]


@pytest.fixture(scope="module")
def exported(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The run's bundle."""
    out = tmp_path_factory.mktemp("bundles")
    return commands.export(trained.folder.path, out, "3", trained.root, [], images=None, replace=False)


def sharpened(net: nn.Module) -> nn.Module:
    """A copy of a net that is sure of its keypoints, so that its peaks are high."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.head.weight.mul_(8)
        net.head.bias.mul_(8)
    return net


class Wrong(MergedBlock):
    """A block whose fusion forgets a part of the batch norm."""

    def fused(self) -> tuple[Tensor, Tensor]:
        """Not what it says."""
        kernel, bias = super().fused()
        return kernel, bias * 0.5


def test_the_graph_agrees_with_the_trained_net(trained: Any, exported: Bundle, crops: np.ndarray) -> None:
    expected = Torch(export.trained_net(trained.folder), trained.config, CPU)(crops)
    maps = OnnxNet(exported.model_path)(crops)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    assert expected.max() > 0.1  # it has learnt something, so this says something
    agreement = exported.manifest.agreement
    assert [each.net for each in agreement] == ["fused", "ONNX Runtime", "decoder in the graph"]
    assert all((each.heatmap or 0) < 1e-4 and each.points_px < 0.01 for each in agreement)


def test_the_graph_decodes_as_the_codecs_do(trained: Any, exported: Bundle, crops: np.ndarray) -> None:
    net = OnnxNet(exported.model_path)
    cells, scores = codecs.decoder("dark")(net(crops), trained.config.codec)
    inside = net.keypoints(crops)
    np.testing.assert_allclose(inside[..., :2], geometry.cells_to_pixels(cells, 8), atol=1e-3)
    by = exported.manifest.score_calibration
    assert by is not None
    np.testing.assert_allclose(inside[..., 2], calibrated(scores.clip(0, 1), by), atol=1e-5)
    assert exported.manifest.keypoints_output.decoder == "dark"


@pytest.mark.parametrize("change", [{"decoder": "mine"}, {"dark_blur_kernel": 3}], ids=["plug-in", "blur"])
def test_a_decoder_that_cannot_be_in_the_graph_leaves_heatmaps_alone(
    trained: Any, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    plug_ins = codecs.InstalledDecoders({"mine": None})
    plug_ins._loaded["mine"] = codecs.DECODERS["dark"]
    monkeypatch.setattr(codecs, "decoders", lambda: plug_ins)
    config = changed(trained.config, codec=trained.config.codec.model_dump() | change)
    net = export.trained_net(trained.folder)
    model = export.to_onnx(net, config)
    assert [each.name for each in model.graph.output] == ["heatmaps"]
    agreement = export.compare(net, model.SerializeToString(), config, crops)
    assert [each.net for each in agreement] == ["fused", "ONNX Runtime"]


def test_a_decoder_in_the_graph_that_is_wrong_is_noticed(
    trained: Any, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = export.trained_net(trained.folder)
    model = export.to_onnx(net, trained.config).SerializeToString()

    def shifted(maps: np.ndarray, codec: object) -> tuple[np.ndarray, np.ndarray]:
        return codecs.DECODERS["dark"](maps, codec)[0] + 0.1, np.ones(maps.shape[:2])

    monkeypatch.setattr(codecs, "decoder", lambda name: shifted)
    with pytest.raises(ExportError, match="the decoder in the graph differs"):
        export.compare(net, model, trained.config, crops)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_gives_each_crop_the_same_answer(exported: Bundle, crops: np.ndarray, batch: int) -> None:
    net = OnnxNet(exported.model_path)
    alone = np.concatenate([net(crops[at : at + 1]) for at in range(batch)])
    np.testing.assert_allclose(net(crops[:batch]), alone, atol=1e-6)


@pytest.mark.parametrize(("mean", "scale"), [(114, 58.0), (0, 255.0), (255, 1.0), (100, 57.375)])
def test_the_graph_normalises_every_pixel_value_exactly(
    trained: Any, tmp_path: Path, mean: int, scale: float
) -> None:
    config = changed(trained.config, normalisation={"mean": mean, "scale": scale})
    whole = tmp_path / "whole.onnx"
    onnx.save(export.to_onnx(export.trained_net(trained.folder), config), whole)
    utils.extract_model(str(whole), str(tmp_path / "front.onnx"), ["images"], ["normalised"])
    front = onnxruntime.InferenceSession(tmp_path / "front.onnx", providers=["CPUExecutionProvider"])
    pixels = np.zeros((1, 64, 64, 3), np.uint8)
    pixels.reshape(-1)[: 256 * 3] = np.arange(256 * 3) % 256
    (found,) = front.run(None, {"images": pixels})
    exact = (pixels.astype(np.float64) - mean) / scale
    np.testing.assert_allclose(found, exact.transpose(0, 3, 1, 2), atol=1e-5, rtol=1e-6)
    trainer_s = normalised(torch.from_numpy(pixels).permute(0, 3, 1, 2), config)
    np.testing.assert_allclose(found, trainer_s.numpy(), atol=1e-5, rtol=1e-6)


def changed(config: RunConfig, **values: Any) -> RunConfig:
    """The configuration with other values."""
    return configuration.parse(config.model_dump(mode="json") | values)


@pytest.mark.parametrize("mean", [114.5, -1.0, 256.0])
def test_a_mean_that_a_pixel_cannot_have_is_refused(trained: Any, mean: float) -> None:
    with pytest.raises(ConfigError, match="whole number from 0 to 255"):
        changed(trained.config, normalisation={"mean": mean})
    config = trained.config.model_copy(update={"normalisation": Normalisation(mean=mean)})
    with pytest.raises(ExportError, match="whole number from 0 to 255"):
        export.to_onnx(export.trained_net(trained.folder), config)


def test_the_graph_takes_raw_pixels_and_any_number_of_them(exported: Bundle) -> None:
    session = onnxruntime.InferenceSession(exported.model_path, providers=["CPUExecutionProvider"])
    (taken,), (given, points) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["N", 64, 64, 3])
    assert (given.name, given.type, given.shape[1:]) == ("heatmaps", "tensor(float)", [19, 8, 8])
    assert (points.name, points.type, points.shape[1:]) == ("keypoints", "tensor(float)", [19, 3])
    assert isinstance(given.shape[0], str)
    assert isinstance(points.shape[0], str)


def test_the_graph_is_fused(exported: Bundle) -> None:
    graph = onnx.load(exported.model_path).graph
    kinds = {node.op_type for node in graph.node}
    assert "BatchNormalization" not in kinds
    manifest = exported.manifest
    weights = sum(int(np.prod(each.dims)) for each in graph.initializer if len(each.dims) in (1, 4))
    assert 0 <= weights - manifest.parameters <= 16  # and a few shapes of the decoder


def test_the_bundle_is_verified_and_complete(trained: Any, exported: Bundle) -> None:
    written = exported
    read = bundle.read(written.folder)
    assert read.manifest == written.manifest
    assert written.folder.parts[-2:] == ("mini", "3")
    assert set(read.manifest.files) == {"model.onnx", "README.md"}
    manifest = read.manifest
    assert manifest.input.size == (64, 64)
    assert (manifest.heatmaps.height, manifest.heatmaps.width, manifest.heatmaps.stride) == (8, 8, 8)
    assert RunConfig.model_validate(manifest.training.config) == trained.config
    assert (manifest.training.epochs, manifest.training.seed) == (4, 1)
    assert [(each.name, each.people) for each in manifest.training.data] == [("people", 64)]


def test_the_metadata_alone_holds_the_manifest(exported: Bundle) -> None:
    session = onnxruntime.InferenceSession(exported.model_path, providers=["CPUExecutionProvider"])
    rebuilt = bundle.manifest_from_metadata(session.get_modelmeta().custom_metadata_map)
    assert rebuilt == exported.manifest.model_copy(update={"files": {}})


def test_the_accuracy_in_the_manifest_is_that_of_the_graph(trained: Any, exported: Bundle) -> None:
    found = people.read(trained.root / "people.json", BODY19)
    manifest = exported.manifest
    scores = evaluate.scores(OnnxNet(exported.model_path), found, manifest, manifest.codec.decoder)
    measured = [(each.metric, each.people, round(each.value, 2)) for each in scores]
    assert [(each.metric, each.people, each.value) for each in manifest.accuracy] == measured
    assert [each[0] for each in measured] == ["PCK@0.2", "PCKh@0.5", "OKS-AP", "score ECE"]
    history = trained.folder.load_checkpoint()["history"]
    assert manifest.accuracy[0].value == pytest.approx(history[-1]["people"], abs=1)


def test_the_card_tells_the_facts(exported: Bundle) -> None:
    written = exported
    text = (written.folder / "README.md").read_text("utf-8")
    assert text == card.text(written.manifest)
    assert text.startswith("# mini 3\n")
    assert "; trained on people." in text
    for each in written.manifest.accuracy:
        assert f"| people | {each.people} | {each.metric} | fp32 | {each.value:.1f} | dark |" in text


def test_a_run_is_measured_like_its_export(trained: Any, exported: Bundle) -> None:
    sets = [Path("people.json")]
    by_run, by_bundle = (
        [
            (name, score.metric, score.people, score.value)
            for name, score, _ in commands.evaluate(
                str(model), trained.root, sets, images=None, roots=[], decoder=None
            )
        ]
        for model in (trained.folder.path, exported.folder)
    )
    by_bundle = [
        each for each in by_bundle if each[1] != "score ECE"
    ]  # the run's scores are no probabilities yet
    assert [each[:3] for each in by_run] == [each[:3] for each in by_bundle]
    np.testing.assert_allclose([each[3] for each in by_run], [each[3] for each in by_bundle], atol=0.5)


def test_a_wrong_fusion_is_noticed(trained: Any, crops: np.ndarray) -> None:
    good = export.trained_net(trained.folder)
    bad = copy.deepcopy(good)
    bad.smooth8.__class__ = Wrong
    model = export.to_onnx(good, trained.config).SerializeToString()
    with pytest.raises(ExportError, match="the fused net differs"):
        export.compare(bad, model, trained.config, crops)


@pytest.mark.parametrize("sure", [True, False])
def test_a_graph_of_other_weights_is_noticed(trained: Any, crops: np.ndarray, sure: bool) -> None:
    net = export.trained_net(trained.folder)
    net = sharpened(net) if sure else net
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias.add_(torch.linspace(-1, 1, 19))
        other.smooth8.norm.bias.add_(torch.linspace(-0.5, 0.5, 16))
    model = export.to_onnx(other, trained.config).SerializeToString()
    with pytest.raises(ExportError, match="the ONNX Runtime net differs"):
        export.compare(net, model, trained.config, crops)


def test_nothing_is_written_where_the_nets_disagree(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "TOLERANCE", -1.0)
    with pytest.raises(ExportError):
        commands.export(trained.folder.path, tmp_path, "1", trained.root, [], images=None, replace=False)
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_written_once_unless_asked(trained: Any, exported: Bundle) -> None:
    out = exported.folder.parents[1]
    arguments: Any = (trained.folder.path, out, "3", trained.root, [])
    with pytest.raises(BundleExists):
        commands.export(*arguments, images=None, replace=False)
    commands.export(*arguments, images=None, replace=True)
    assert bundle.read(exported.folder).manifest == exported.manifest


def test_a_version_that_is_no_name_is_refused(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"version: .*'My Version'"):
        commands.export(
            trained.folder.path, tmp_path, "My Version", trained.root, [], images=None, replace=False
        )


def test_a_run_without_an_epoch_cannot_be_exported(trained: Any, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(trained.config, [64], "1 core")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        commands.export(folder.path, tmp_path, "1", trained.root, [], images=None, replace=False)


def test_a_linear_head_is_exported_as_it_comes(trained: Any, crops: np.ndarray) -> None:
    net = export.trained_net(trained.folder)
    config = changed(trained.config, net=trained.config.net.model_dump() | {"head": "linear"})
    maps = OnnxNet(export.to_onnx(net, config).SerializeToString())(crops)
    np.testing.assert_allclose(maps, Torch(net, config, CPU)(crops), atol=1e-4)
    assert maps.min() < 0  # no softmax in between


@pytest.mark.parametrize(("decoder", "cells"), [([16], 4), ([16, 16, 16], 16)])
def test_heatmaps_of_any_stride_are_exported(decoder: list[int], cells: int, crops: np.ndarray) -> None:
    document = people_made.run_document()
    config = configuration.parse(document | {"net": document["net"] | {"decoder": decoder}})
    torch.manual_seed(3)
    net = sharpened(build.plain(config)).eval()
    graph = export.to_onnx(net, config).SerializeToString()
    assert OnnxNet(graph)(crops).shape == (len(crops), 19, cells, cells)
    export.compare(net, graph, config, crops)


def test_own_sets_are_found_where_the_configuration_says(trained: Any, tmp_path: Path) -> None:
    made = people_made.make(tmp_path / "labels", "other", count=6, tar=True)
    (tmp_path / "labels" / "other.tar").rename(tmp_path / "pictures.tar")
    source = {"annotations": str(made.annotations), "images": str(tmp_path / "pictures.tar")}
    config = changed(
        trained.config, data={"train": [{"annotations": "people.json"}], "validate_on": [source]}
    )
    folder = RunFolder(tmp_path / "run")
    folder.start(config, [64], "1 core")
    folder.checkpoint_file.write_bytes(trained.folder.checkpoint_file.read_bytes())
    written = commands.export(folder.path, tmp_path, "1", trained.root, [], images=None, replace=False)
    assert {each.people for each in written.manifest.accuracy} == {6}
