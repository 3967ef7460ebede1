"""Heatmaps on request: they are what the points were read from, and nobody else pays for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from model_zoo import codecs, geometry
from service import runner
from service.core import Core
from service.errors import InvalidRequest
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.rest.schemas import ErrorResponse, PoseResponse
from service.types import Frame, Heatmaps, Options, Prediction
from tests import tiny_model
from tests.service import serving
from tests.service.conftest import Scene
from tests.service.test_outputs import BY_ITSELF, write
from tests.service.test_predictor import predicted, with_core

SHAPE = (len(tiny_model.SKELETON), tiny_model.HEIGHT // 2, tiny_model.WIDTH // 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 decodes in its graph and has heatmaps too; 2 has none."""
    folder = tmp_path_factory.mktemp("heatmaps")
    write(folder)
    write(folder, version="2", outputs=[BY_ITSELF], codec=None)
    return folder


def read(heatmaps: Heatmaps, decoder: str) -> np.ndarray:
    """(K, 2) points in the frame, by a client that knows the maps and their place alone."""
    cells, _ = codecs.decoder(decoder)(heatmaps.values[None], tiny_model.manifest().codec)
    return geometry.apply(heatmaps.to_frame, cells[0])


@pytest.mark.parametrize("decoder", [None, "argmax_shift", "dark", "dsnt"])
@pytest.mark.parametrize("boxed", [True, False])
def test_the_points_can_be_read_from_the_maps(
    decoder: str | None, boxed: bool, root: Path, scene: Scene
) -> None:
    options = Options(boxes=(scene.box,) if boxed else None, decoder=decoder, heatmaps=True)
    prediction = predicted(root, scene.png, options)
    (pose,) = prediction.poses
    assert (pose.box_source == "request") is boxed
    assert (pose.heatmaps.values.shape, pose.heatmaps.values.dtype) == (SHAPE, np.float32)
    np.testing.assert_allclose(read(pose.heatmaps, prediction.decoder), pose.points, atol=1e-3)


def test_only_who_asks_gets_them_and_neighbours_answer_as_ever(root: Path, scene: Scene) -> None:
    wanted = [False, True, False, True, True, False]

    async def test(core: Core) -> tuple[list[Prediction], Prediction]:
        def ask(heatmaps: bool) -> Any:
            return core.predictor.predict(Frame(scene.png), Options(boxes=(scene.box,), heatmaps=heatmaps))

        return await asyncio.gather(*map(ask, wanted)), await ask(False)

    answers, alone = with_core(root, test)
    assert [answer.poses[0].heatmaps is not None for answer in answers] == wanted
    for answer, asked in zip(answers, wanted, strict=True):
        if not asked:
            np.testing.assert_allclose(answer.poses[0].points, alone.poses[0].points, atol=1e-3)
    first, *others = [answer.poses[0].heatmaps for answer in answers if answer.poses[0].heatmaps]
    for other in others:
        np.testing.assert_allclose(other.values, first.values, atol=1e-6)


def test_the_net_is_not_asked_for_maps_that_nobody_wants(
    root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    run = runner.Runner.run
    monkeypatch.setattr(
        runner.Runner, "run", lambda self, crops: fetched.append(len(crops)) or run(self, crops)
    )
    predicted(root, scene.png, Options(boxes=(scene.box,)))
    assert fetched == []
    predicted(root, scene.png, Options(boxes=(scene.box,), heatmaps=True))
    assert fetched == [1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(model="tiny@2", heatmaps=True), "tiny has no heatmaps"),
        (Options(heatmaps=True, render=True), "a picture has no room"),
    ],
)
def test_where_there_are_none_to_give(options: Options, said: str, root: Path, scene: Scene) -> None:
    with pytest.raises(InvalidRequest, match=said) as error:
        predicted(root, scene.png, options)
    assert error.value.field == "heatmaps"


def test_both_transports_give_the_same_to_the_last_bit(root: Path, scene: Scene) -> None:
    expected = predicted(root, scene.png, Options(heatmaps=True)).poses[0].heatmaps
    with (
        serving.running(root, REPPOSE_MODELS__DEFAULT="tiny@1") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        stub = pose_pb2_grpc.PoseServiceStub(channel)
        sent = serving.post(service, scene.png, heatmaps=True)
        rest = PoseResponse.model_validate_json(sent.content).poses[0].heatmaps
        rpc = stub.Estimate(pb.EstimateRequest(image=scene.png, heatmaps=True)).poses[0].heatmaps
        assert "heatmaps" not in serving.post(service, scene.png).json()["poses"][0]
        assert not stub.Estimate(pb.EstimateRequest(image=scene.png)).poses[0].HasField("heatmaps")
        refused = serving.post(service, scene.png, heatmaps=True, model="tiny@2")
        with pytest.raises(grpc.RpcError) as status:
            stub.Estimate(pb.EstimateRequest(image=scene.png, heatmaps=True, model="tiny@2"))
    assert rest.shape == (rpc.keypoints, rpc.rows, rpc.columns) == SHAPE
    assert rest.data == rpc.data
    np.testing.assert_array_equal(np.frombuffer(rest.data, "<f4").reshape(SHAPE), expected.values)
    np.testing.assert_array_equal(np.array(rest.to_image), np.reshape(rpc.to_image, (2, 3)))
    np.testing.assert_array_equal(np.array(rest.to_image), expected.to_frame)
    assert refused.status_code == 422
    assert ErrorResponse.model_validate_json(refused.content).error.field == "heatmaps"
    assert status.value.code() is grpc.StatusCode.INVALID_ARGUMENT
