"""Graphs that decode keypoints themselves, graphs in 8 bits, and what all decoders say side by side.

The decoder inside the graphs of these tests is told from ours by what it leaves out: it stays in the middle of the best
cell. The graph in 8 bits is told from the other by its scores, which it halves.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_zoo import bundle, codecs, geometry
from model_zoo.bundle import Bundle
from model_zoo.errors import ManifestError, UnknownDecoder
from model_zoo.manifest import BundleManifest
from service import runner
from service.core import Core, build_core
from service.errors import StartupError
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.rest.schemas import ModelsResponse, PoseResponse
from service.settings import BatchSettings, ModelSettings, Settings
from service.types import Frame, Options, Prediction
from tests import tiny_model
from tests.service import serving
from tests.service.conftest import Scene
from tests.service.test_predictor import predicted, with_core

MAPS = tiny_model.manifest().outputs[0].model_dump()
INSIDE = {"name": "keypoints", "kind": "keypoints", "decoder": "argmax_shift"}
BY_ITSELF = {"name": "keypoints", "kind": "keypoints"}
COLUMNS = tiny_model.WIDTH // tiny_model.STRIDE


def graph(facts: BundleManifest, strength: float = 1.0) -> bytes:
    """The tiny graph with a decoder behind its heatmaps; it answers what the manifest names."""
    model = onnx.load_from_string(tiny_model.graph(facts))
    added = model.graph
    added.initializer.extend(
        [
            numpy_helper.from_array(np.array([0, 0, -1], np.int64), "flat shape"),
            numpy_helper.from_array(np.array(COLUMNS, np.int64), "columns"),
            numpy_helper.from_array(np.array(tiny_model.STRIDE, np.float32), "stride"),
            numpy_helper.from_array(np.array((tiny_model.STRIDE - 1) / 2, np.float32), "middle"),
            numpy_helper.from_array(np.array(strength, np.float32), "strength"),
        ]
    )
    (last,) = (node for node in added.node if node.output[0] == "heatmaps")
    last.output[0] = "strong"
    added.node.extend(
        [
            helper.make_node("Mul", ["strong", "strength"], ["heatmaps"]),
            helper.make_node("Reshape", ["heatmaps", "flat shape"], ["flat"]),
            helper.make_node("ArgMax", ["flat"], ["best"], axis=2, keepdims=1),
            helper.make_node("Mod", ["best", "columns"], ["column"]),
            helper.make_node("Div", ["best", "columns"], ["row"]),
            helper.make_node("Concat", ["column", "row"], ["cell"], axis=2),
            helper.make_node("Cast", ["cell"], ["numbered"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["numbered", "stride"], ["corner"]),
            helper.make_node("Add", ["corner", "middle"], ["pixels"]),
            helper.make_node("ReduceMax", ["flat"], ["score"], axes=[2], keepdims=1),
            helper.make_node("Concat", ["pixels", "score"], ["keypoints"], axis=2),
        ]
    )
    shape = ["N", len(tiny_model.SKELETON), 3]
    added.output.append(helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, shape))
    for output in [each for each in added.output if each.name not in {o.name for o in facts.outputs}]:
        added.output.remove(output)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write(root: Path, **changes: Any) -> Bundle:
    """A bundle of that graph; with `int8_file`, of both."""
    facts = tiny_model.manifest(**{"outputs": [MAPS, INSIDE]} | changes)
    files = {facts.model_file: graph(facts)}
    if facts.int8_file:
        files[facts.int8_file] = graph(facts, strength=0.5)
    return bundle.write(root, facts, files)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 has both outputs and both precisions; 2 answers keypoints by itself."""
    folder = tmp_path_factory.mktemp("outputs")
    write(folder, int8_file="small.onnx")
    write(folder, version="2", outputs=[BY_ITSELF], codec=None)
    return folder


def in_cells(prediction: Prediction) -> np.ndarray:
    """Points of a whole-box answer as cells of its crop."""
    (pose,) = prediction.poses
    matrix = geometry.crop_affine(np.array([pose.box]), (tiny_model.HEIGHT, tiny_model.WIDTH), padding=1.25)
    return geometry.apply(matrix, pose.points[None])[0] / tiny_model.STRIDE - (tiny_model.STRIDE - 1) / (
        2 * tiny_model.STRIDE
    )


def off_centre(prediction: Prediction) -> float:
    """How far the points are from the middles of cells."""
    cells = in_cells(prediction)
    return float(np.abs(cells - np.round(cells)).max())


@pytest.mark.parametrize(("decoder", "inside"), [(None, True), ("argmax_shift", True), ("dark", False)])
def test_the_graphs_own_decoder_answers_where_it_is_wanted(
    decoder: str | None, inside: bool, root: Path, scene: Scene
) -> None:
    prediction = predicted(root, scene.png, Options(boxes=(scene.box,), decoder=decoder))
    assert prediction.decoder == (decoder or "argmax_shift")
    assert (off_centre(prediction) < 0.01) is inside
    assert np.abs(prediction.poses[0].points - scene.joints).max() < 5


def test_only_what_is_wanted_is_computed(root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.Runner, "run", lambda *_: pytest.fail("heatmaps were fetched"))
    predicted(root, scene.png, Options(boxes=(scene.box,)))


def test_frames_with_different_decoders_share_a_worker_and_nothing_else(root: Path, scene: Scene) -> None:
    names = [None, "dark", "argmax_shift", "dsnt", None, "dark"]

    async def test(core: Core) -> tuple[list[Prediction], list[Prediction]]:
        def ask(name: str | None) -> Any:
            return core.predictor.predict(Frame(scene.png), Options(boxes=(scene.box,), decoder=name))

        return [await ask(name) for name in names], await asyncio.gather(*map(ask, names))

    for alone, together in zip(*with_core(root, test), strict=True):
        np.testing.assert_allclose(alone.poses[0].points, together.poses[0].points, atol=1e-3)
        assert alone.decoder == together.decoder


def test_a_net_without_heatmaps_serves(root: Path, scene: Scene) -> None:
    prediction = predicted(root, scene.png, Options(model="tiny@2", boxes=(scene.box,), compare=True))
    assert prediction.decoder == "net"
    assert np.abs(prediction.poses[0].points - scene.joints).max() < 5
    comparison = prediction.poses[0].comparison
    assert [each.decoder for each in comparison.readings] == ["net"]
    assert comparison.disagreement_px == 0
    with pytest.raises(UnknownDecoder, match="has no heatmaps; its only decoder is net"):
        predicted(root, scene.png, Options(model="tiny@2", decoder="dark"))


def test_a_graph_without_the_keypoints_that_its_manifest_promises(tmp_path: Path) -> None:
    facts = tiny_model.manifest(outputs=[MAPS, INSIDE])
    found = bundle.write(tmp_path, facts, {facts.model_file: tiny_model.graph(facts)})
    with pytest.raises(ManifestError, match="output heatmaps, keypoints"):
        runner.load(found)


async def loaded(root: Path, precision: str) -> Core:
    """A core that runs; stop it."""
    models = ModelSettings(roots=(root,), default="tiny@1", precision=precision)
    settings = Settings(models=models, batch=BatchSettings(workers=1, pin="off"))
    core = build_core(settings)
    await core.load(settings)
    return core


@pytest.mark.parametrize(("asked", "got"), [("auto", "int8"), ("fp32", "fp32")])
def test_the_precision_is_chosen_by_a_setting(asked: str, got: str, root: Path, scene: Scene) -> None:
    async def test() -> None:
        core = await loaded(root, asked)
        prediction = await core.predictor.predict(Frame(scene.png), Options(boxes=(scene.box,)))
        assert await core.stop(30)
        assert core.registry.default.precision == got
        assert (prediction.poses[0].score < 0.55) is (got == "int8")

    asyncio.run(test())


def test_a_precision_that_a_bundle_lacks_is_an_error_of_the_start(root: Path) -> None:
    with pytest.raises(StartupError, match="tiny@2 has no graph in int8"):
        asyncio.run(loaded(root, "int8"))


def test_every_decoder_side_by_side(tiny_bundle_root: Path, scene: Scene) -> None:
    options = Options(boxes=(scene.box,), compare=True)
    prediction = predicted(tiny_bundle_root, scene.png, options)
    (pose,) = prediction.poses
    readings = {each.decoder: each.points for each in pose.comparison.readings}
    assert list(readings) == sorted(codecs.decoders())
    np.testing.assert_array_equal(readings[prediction.decoder], pose.points)
    apart = max(np.hypot(*(one - other).T).max() for one in readings.values() for other in readings.values())
    assert pose.comparison.disagreement_px == pytest.approx(apart, abs=2e-3)
    for name, points in readings.items():
        (alone,) = predicted(tiny_bundle_root, scene.png, Options(boxes=(scene.box,), decoder=name)).poses
        np.testing.assert_allclose(points, alone.points, atol=1e-3)
        assert alone.comparison is None


def test_both_transports_compare_alike(
    service: serving.Service, stub: pose_pb2_grpc.PoseServiceStub, scene: Scene
) -> None:
    sent = serving.post(service, scene.png, compare=True, boxes=json.dumps([scene.box]))
    rest = PoseResponse.model_validate_json(sent.content, strict=True).poses[0].comparison
    box = pb.Box(**dict(zip(("x", "y", "width", "height"), scene.box, strict=True)))
    answer = stub.Estimate(pb.EstimateRequest(image=scene.png, boxes=[box], compare=True))
    rpc = answer.poses[0].comparison
    assert rpc.disagreement_px == rest.disagreement_px
    for one, other in zip(rest.readings, rpc.readings, strict=True):
        assert one.decoder == other.decoder
        assert [each.model_dump(exclude_none=True) for each in one.keypoints] == [
            {name: getattr(each, name) for name in ("name", "x", "y", "score")} for each in other.keypoints
        ]


def test_nobody_who_did_not_ask_gets_a_comparison(
    service: serving.Service, stub: pose_pb2_grpc.PoseServiceStub, scene: Scene
) -> None:
    assert "comparison" not in serving.post(service, scene.png).json()["poses"][0]
    assert not stub.Estimate(pb.EstimateRequest(image=scene.png)).poses[0].HasField("comparison")


def test_the_list_of_models_tells_precision_and_decoder(root: Path) -> None:
    with serving.running(root) as service:
        listed = ModelsResponse.model_validate_json(serving.get(service, "/v1/models").content)
    assert {each.version: (each.precision, each.decoder) for each in listed.models} == {
        "1": ("int8", "argmax_shift"),
        "2": ("fp32", "net"),
    }
