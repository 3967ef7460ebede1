"""Graphs in 8 bits: built as CPUs want them, close to float32, and written only where they are good enough."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
import typer
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.manifest import Normalisation
from tests.trainer import people_made
from trainer import commands, export, graph, quantise
from trainer import config as configuration
from trainer.errors import ConfigError, DataError, QuantisationError, TrainerError
from trainer.export import OnnxNet
from trainer.nets import build
from trainer.nets.activations import ACTIVATIONS
from trainer.quantise import METHODS, Recipe

SIZE = (64, 48)
PEOPLE = Path("people.json")


class Small(nn.Module):
    """Convolutions in a chain, a sum of two branches, and linear heatmaps; as `trainer.nets` builds them, but random.

    Args:
        outlier: factor of one channel in the middle of the chain, taken back behind it.
    """

    def __init__(self, outlier: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.third, self.deep = nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.side, self.up = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.head = nn.Conv2d(16, 4, 1)
        with torch.no_grad():
            self.second.weight[3] *= outlier
            self.second.bias[3] *= outlier
            self.third.weight[:, 3] /= outlier

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, 4, h / 8, w / 8)."""
        y = self.third(self.second(self.first(x).relu()).relu()).relu()
        deep = nn.functional.interpolate(self.up(self.deep(y).relu()), scale_factor=2.0, mode="nearest")
        return self.head((deep + self.side(y)).relu())


def small(outlier: float = 1.0, net: nn.Module | None = None) -> onnx.ModelProto:
    """The graph of a `Small`."""
    return graph.to_onnx(net or Small(outlier), ["heatmaps"], Normalisation(), SIZE)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Smooth random pictures."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (24, 8, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(each, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for each in coarse])


def maps(model: onnx.ModelProto, crops: np.ndarray) -> np.ndarray:
    """What a graph answers."""
    return OnnxNet(model.SerializeToString())(crops)


def error(model: onnx.ModelProto, recipe: Recipe, crops: np.ndarray) -> float:
    """Root mean square of what quantising changes, as a share of the maps' standard deviation."""
    expected = maps(model, crops[12:])
    found = maps(quantise.quantise(model, crops[:12], recipe), crops[12:])
    return float(np.sqrt(np.square(found - expected).mean()) / expected.std())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("equalised", [False, True], ids=["plain", "equalised"])
@pytest.mark.parametrize("corrected", [False, True], ids=["uncorrected", "corrected"])
def test_the_graph_stays_near_to_float32(crops, method, corrected, equalised):
    assert 0 < error(small(), Recipe(method, corrected, equalised), crops) < 0.05


def test_the_same_pixels_go_in_and_the_same_maps_come_out(crops):
    model = small()
    before = model.SerializeToString()
    quantised = quantise.quantise(model, crops, Recipe())
    assert model.SerializeToString() == before
    assert quantised.graph.input == model.graph.input
    assert quantised.graph.output == model.graph.output
    together = maps(quantised, crops[:5])
    alone = np.concatenate([maps(quantised, crops[at : at + 1]) for at in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_weights_are_int8_by_channel_and_activations_uint8(crops):
    quantised = quantise.quantise(small(), crops, Recipe())
    constants = {each.name: each for each in quantised.graph.initializer}
    makers = {name: node for node in quantised.graph.node for name in node.output}
    convolutions = [node for node in quantised.graph.node if node.op_type == "Conv"]
    *inner, head = sorted(convolutions, key=lambda node: "head" in node.name)
    assert len(inner) == 6
    for node in inner:
        activation, weight = (makers[name] for name in node.input[:2])
        assert (activation.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert constants[activation.input[2]].data_type == TensorProto.UINT8
        assert constants[weight.input[0]].data_type == TensorProto.INT8
        assert list(constants[weight.input[1]].dims) == [16]
    assert constants[head.input[1]].data_type == TensorProto.FLOAT
    assert "Relu" not in {node.op_type for node in quantised.graph.node}  # they are the lower ends of ranges


def test_the_raw_pixels_are_the_first_quantised_tensor(crops):
    model, normalisation = small(), Normalisation()
    quantised = quantise.quantise(model, crops, Recipe())
    constants = {each.name: numpy_helper.to_array(each) for each in quantised.graph.initializer}
    transpose, *others = quantised.graph.node
    assert (transpose.op_type, list(transpose.input)) == ("Transpose", ["images"])
    (reader,) = (node for node in others if transpose.output[0] in node.input)
    assert reader.op_type == "DequantizeLinear"
    assert constants[reader.input[1]] == np.float32(1 / normalisation.scale)
    assert constants[reader.input[2]] == np.uint8(normalisation.mean)


def test_bias_correction_takes_shifted_means_back(crops):
    model = small(outlier=30)
    expected = maps(model, crops).mean(axis=(0, 2, 3))
    shifts = [
        np.abs(
            maps(quantise.quantise(model, crops, Recipe(corrected=corrected)), crops).mean(axis=(0, 2, 3))
            - expected
        ).max()
        for corrected in (False, True)
    ]
    assert shifts[1] < shifts[0] / 5


def test_equalisation_helps_channels_of_very_different_ranges(crops):
    uneven = small(outlier=200)
    np.testing.assert_allclose(maps(uneven, crops), maps(small(), crops), atol=1e-4)
    plain, equalised = (error(uneven, Recipe("minmax", True, each), crops) for each in (False, True))
    assert equalised < plain / 3


def test_a_channel_that_is_always_zero_does_no_harm(crops):
    net = Small()
    with torch.no_grad():
        net.first.bias[2], net.third.weight[:, 5] = -1e3, 0
    assert error(small(net=net), Recipe("mse", equalised=True), crops) < 0.05


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("head", ["linear", "dsnt", "simcc", "rle"])
def test_every_kind_of_net_can_be_computed_in_8_bits(crops, activation, head):
    document = people_made.run_document(phases=[{"epochs": 1, "height": 64, "width": 64}])
    shape = document["net"] | {"activation": activation, "head": head}
    config = configuration.parse(document | {"net": shape, "skeleton": "hand21"})
    torch.manual_seed(2)
    net = build.plain(config).eval()
    with torch.no_grad():
        for each in net.parameters():  # else all biases are the same tensor
            each.add_(0.05 * torch.randn_like(each))
    exported = export.to_onnx(net, config)
    square = np.stack([cv2.resize(each, (64, 64)) for each in crops])
    nets = [exported, quantise.quantise(exported, square[:12], Recipe())]
    answers = [OnnxNet(each.SerializeToString()) for each in nets]
    expected, found = [each(square) if head == "linear" else each.keypoints(square) for each in answers]
    assert np.median(np.abs(found - expected)) < 0.2 * expected.std()  # simcc's largest bin may jump
    inside = {node.op_type for node in nets[1].graph.node}
    assert "QuantizeLinear" in inside


def test_one_crop_is_enough(crops):
    assert np.isfinite(maps(quantise.quantise(small(), crops[:1], Recipe("percentile")), crops)).all()


def test_a_graph_without_raw_pixels_is_refused(crops):
    model = small()
    del model.graph.node[0]
    with pytest.raises(QuantisationError, match="does not begin with the normalisation"):
        quantise.quantise(model, crops, Recipe())


def test_a_graph_of_one_convolution_is_refused(crops):
    with pytest.raises(QuantisationError, match="no convolution to quantise"):
        quantise.quantise(small(net=nn.Conv2d(3, 4, 8, 8)), crops, Recipe())


@pytest.fixture(scope="module")
def exported(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle in float32, of a net that finds made people."""
    out = tmp_path_factory.mktemp("bundles")
    return commands.export(trained.folder.path, out, "3", trained.root, [], images=None, replace=False)


def quantised(exported: Bundle, root: Path, out: Path, **options: Any) -> Bundle:
    """Quantise with few crops and one method."""
    arguments: dict[str, Any] = {"count": 12, "method": "minmax", "force": True} | options
    return commands.quantise(str(exported.folder), root, PEOPLE, [], out=out, **arguments)


@pytest.fixture(scope="module")
def both(trained: Any, exported: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same bundle with a graph in 8 bits."""
    return quantised(exported, trained.root, tmp_path_factory.mktemp("int8"))


def test_a_bundle_holds_both_graphs(exported: Bundle, both: Bundle) -> None:
    read = bundle.read(both.folder)
    assert (read.name, read.version) == ("mini", "3-int8")
    assert set(read.manifest.files) == {"model.onnx", "model.int8.onnx", "README.md"}
    assert read.int8_path.stat().st_size < read.model_path.stat().st_size
    assert read.manifest.outputs == exported.manifest.outputs
    for path in (read.model_path, read.int8_path):
        inside = {each.key: each.value for each in onnx.load(path).metadata_props}
        assert bundle.manifest_from_metadata(inside) == read.manifest.model_copy(update={"files": {}})


def test_both_graphs_are_measured_on_the_same_people(trained: Any, exported: Bundle, both: Bundle) -> None:
    measured = {(each.metric, each.precision): each for each in both.manifest.accuracy}
    before = {each.metric: each.value for each in exported.manifest.accuracy}
    assert len(measured) == 2 * len(before)
    for metric, value in before.items():
        assert measured[metric, "fp32"].value == value
        assert measured[metric, "int8"].value == pytest.approx(value, abs=5)
    evaluated = commands.evaluate(
        str(both.folder), trained.root, [PEOPLE], images=None, roots=[], decoder=None, precision="int8"
    )
    for _, score, _ in evaluated:
        assert measured[score.metric, "int8"].value == pytest.approx(score.value, abs=0.01)
    assert measured["PCK@0.2", "int8"].command.endswith(" --precision int8")


def test_keypoints_stay_where_they_are(trained: Any, exported: Bundle, both: Bundle) -> None:
    facts = both.manifest.quantisation
    assert facts.crops == 12
    assert facts.data == "people"
    assert 0 < facts.mean_shift_px < 1.5
    assert facts.method.startswith("minmax, biases corrected")


def test_the_card_says_what_was_done_and_lost(both: Bundle) -> None:
    card = (both.folder / "README.md").read_text("utf-8")
    assert "`model.onnx` (fp32), `model.int8.onnx` (int8)" in card
    assert "## The graph in 8 bits" in card
    assert "--data DATA --calibrate people.json" in card
    for each in both.manifest.accuracy:
        assert f"| {each.metric} | {each.precision} | {each.value:.1f} |" in card


def test_too_great_a_loss_is_refused_and_nothing_written(
    trained: Any, exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "MOST_LOST", -101.0)
    with pytest.raises(
        QuantisationError, match=r"8 bits lose -?\d+\.\d points of PCK@0\.2 on people .* -101"
    ):
        quantised(exported, trained.root, tmp_path, force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_version_can_be_kept(trained: Any, exported: Bundle, tmp_path: Path) -> None:
    first = bundle.write(
        tmp_path,
        exported.manifest,
        {name: (exported.folder / name).read_bytes() for name in exported.manifest.files},
    )
    once = quantised(first, trained.root, tmp_path, replace=True)
    twice = quantised(once, trained.root, tmp_path, replace=True)
    assert once.folder == twice.folder == first.folder
    assert once.manifest.version == "3"
    assert bundle.read(twice.folder).manifest.model_dump(exclude={"files"}) == once.manifest.model_dump(
        exclude={"files"}
    )


def test_pictures_without_labels_are_enough(trained: Any, exported: Bundle, tmp_path: Path) -> None:
    people_made.make(tmp_path / "data", "some", count=4)
    written = commands.quantise(
        str(exported.folder), tmp_path / "data", Path("some"), [], out=tmp_path, count=4, method="minmax"
    )
    assert written.manifest.quantisation.data == "some"
    assert {each.precision for each in written.manifest.accuracy} == {"fp32"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        commands.quantise(str(exported.folder), tmp_path, Path("empty"), [], out=tmp_path)


def test_the_nearest_candidate_is_taken(exported: Bundle, trained: Any, monkeypatch: Any) -> None:
    model = onnx.load(exported.model_path)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    wrecked = Recipe("percentile")
    make = quantise.quantise

    def sometimes_bad(model: Any, crops: Any, recipe: Recipe) -> onnx.ModelProto:
        return make(model, np.zeros_like(crops) if recipe == wrecked else crops, recipe)

    monkeypatch.setattr(quantise, "quantise", sometimes_bad)
    for candidates in ([wrecked, Recipe()], [Recipe(), wrecked]):
        _, recipe, _ = quantise.best(model, exported.manifest, crops, candidates)
        assert recipe == Recipe()


def test_only_a_bundle_with_both_graphs_has_two_precisions(trained: Any, exported: Bundle) -> None:
    for model, complaint in ((exported.folder, "has no graph in 8 bits"), (trained.folder.path, "is a run")):
        with pytest.raises(ConfigError, match=complaint):
            list(
                commands.evaluate(
                    str(model), trained.root, [PEOPLE], images=None, roots=[], decoder=None, precision="int8"
                )
            )


def run(*arguments: object) -> Result:
    """`reppose-zoo quantize` as installed distributions offer it."""
    loaded = EntryPoint("quantize", "trainer.zoo:quantize", "reppose.zoo_commands").load()
    program = typer.Typer()
    program.callback()(lambda: None)
    program.command("quantize")(loaded)
    return CliRunner().invoke(program, ["quantize", *map(str, arguments)], catch_exceptions=False)


def test_the_command(trained: Any, exported: Bundle, tmp_path: Path) -> None:
    result = run(
        exported.folder, "--data", trained.root, "--calibrate", PEOPLE, "--out", tmp_path,
        "--crops", 8, "--method", "minmax", "--force", "--version", "4",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == f"wrote {tmp_path / 'mini' / '4'}"
    assert any("people: PCK@0.2" in line and "int8)" in line for line in lines)


def test_a_mistake_is_one_line(exported: Bundle, tmp_path: Path) -> None:
    result = run(exported.folder, "--data", tmp_path, "--calibrate", "absent.json", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: cannot read {tmp_path / 'absent.json'}")
    assert result.stderr.count("\n") == 1


def test_what_to_install_is_said(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(commands, "quantise", missing)
    result = run(exported.folder, "--calibrate", "x.json", "--out", tmp_path)
    assert result.exit_code == 1
    wanted = "error: this command needs onnx, which is not installed: pip install 'reppose[trainer]'\n"
    assert result.stderr == wanted


def test_every_error_of_ours_is_expected() -> None:
    assert issubclass(QuantisationError, TrainerError)
