"""Both transports say where the time of a request went."""

from __future__ import annotations

import re

import pytest

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.types import Timing
from tests.service import serving
from tests.service.conftest import Scene


def read(header: str) -> tuple[dict[str, float], int]:
    """The times in milliseconds, and the batch."""
    assert re.fullmatch(r'(\w+;dur=\d+\.\d{3}, ){4}batch;desc="\d+"', header), header
    *times, batch = header.split(", ")
    return {name: float(ms) for name, ms in (each.split(";dur=") for each in times)}, int(batch.split('"')[1])


def assert_adds_up(header: str, crops: int) -> None:
    times, batch = read(header)
    assert list(times) == ["queue", "decode", "infer", "total"]
    assert min(times.values()) >= 0
    assert 0 < times["decode"] + times["infer"] <= times["total"]
    assert times["queue"] <= times["total"]
    assert batch >= crops


def test_the_form_of_the_header() -> None:
    header = Timing(queue_s=0.001, decode_s=0.0025, infer_s=0.0, batch=3).header(total_s=1.25)
    assert header == 'queue;dur=1.000, decode;dur=2.500, infer;dur=0.000, total;dur=1250.000, batch;desc="3"'


def test_rest(service: serving.Service, scene: Scene) -> None:
    boxes = str([list(scene.box)] * 3)
    assert_adds_up(serving.post(service, scene.png, boxes=boxes).headers["server-timing"], crops=3)


def test_a_picture_is_timed_as_well(service: serving.Service, scene: Scene) -> None:
    assert_adds_up(serving.post(service, scene.png, render=True).headers["server-timing"], crops=1)


def test_grpc(stub: pose_pb2_grpc.PoseServiceStub, scene: Scene) -> None:
    _, call = stub.Estimate.with_call(pb.EstimateRequest(image=scene.png))
    assert_adds_up(dict(call.trailing_metadata())["server-timing"], crops=1)


@pytest.mark.parametrize("path", ["/v1/models", "/healthz/live"])
def test_what_runs_no_model_has_no_timing(path: str, service: serving.Service) -> None:
    assert "server-timing" not in serving.get(service, path).headers


def test_a_refused_image_has_no_timing(service: serving.Service) -> None:
    assert "server-timing" not in serving.post(service, b"garbage").headers
