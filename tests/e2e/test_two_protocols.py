"""A real service on real sockets: HTTP and gRPC give the same poses, and no input is a fault of the service."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.pb.reppose.v1 import pose_pb2, pose_pb2_grpc
from tests import tiny_model

BOXES = [[60.0, 40.0, 120.0, 160.0], [250.0, 30.0, 150.0, 200.0]]
SIZE = (260, 460)
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Running:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    http: int
    grpc: int

    def ask(self, path: str, body: bytes | None = None, kind: str = "image/png") -> tuple[int, bytes]:
        """Status and body of one request."""
        headers = {} if body is None else {"Content-Type": kind}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", body, headers)
        try:
            with DIRECT.open(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def channel(self) -> grpc.Channel:
        """A connection to the gRPC port."""
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc}")


def start(root: Path) -> Running:
    """Start on free ports and wait until it is ready."""
    environment = os.environ | {
        "REPPOSE_MODELS__ROOTS": str(root),
        "REPPOSE_MODELS__DEFAULT": tiny_model.NAME,
        "REPPOSE_LOG__FORMAT": "json",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--http-port", "0", "--grpc-port", "0"],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ports: dict[str, int] = {}
    for line in process.stderr:
        entry = json.loads(line)
        ports |= {key: entry[key] for key in ("http_port", "grpc_port") if key in entry}
        if entry["message"] == "ready":
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return Running(process, ports["http_port"], ports["grpc_port"])
    raise AssertionError(f"the service ended with {process.wait()} before it was ready")


def stop(service: Running) -> int:
    """End it as a container engine does; its exit code."""
    service.process.send_signal(signal.SIGTERM)
    code = service.process.wait(30)
    service.process.stderr.close()
    return code


@pytest.fixture(scope="module")
def running(tiny_bundle_root: Path) -> Iterator[Running]:
    """One service for the tests of this file."""
    service = start(tiny_bundle_root)
    yield service
    assert stop(service) == 0


@pytest.fixture(scope="module")
def people() -> list[np.ndarray]:
    """The true joints in the boxes."""
    return [tiny_model.person(tuple(box)) for box in BOXES]


@pytest.fixture(scope="module")
def picture(people: list[np.ndarray]) -> bytes:
    """Two painted people."""
    return tiny_model.encode(tiny_model.paint(SIZE, *people, radius=7))


def query(**values: object) -> str:
    """A path with query values, JSON where they are not texts."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return "/v1/pose?" + urllib.parse.urlencode(texts)


def points(answer: dict[str, object]) -> np.ndarray:
    """(people, K, 2) of a JSON answer."""
    return np.array([[[each["x"], each["y"]] for each in pose["keypoints"]] for pose in answer["poses"]])


def test_poses_lie_where_they_were_painted_one_per_box_in_order(
    running: Running, picture: bytes, people: list[np.ndarray]
) -> None:
    for boxes, expected in ((BOXES, people), (BOXES[::-1], people[::-1])):
        status, body = running.ask(query(boxes=boxes, decoder="dsnt"), picture)
        answer = json.loads(body)
        assert status == 200, answer
        assert [pose["box"] for pose in answer["poses"]] == boxes
        assert {pose["box_source"] for pose in answer["poses"]} == {"request"}
        assert answer["image"] == {"width": SIZE[1], "height": SIZE[0]}
        np.testing.assert_allclose(points(answer), expected, atol=1.5)  # a cell covers about 3 px


@pytest.mark.parametrize("decoder", ["argmax_shift", "dark", "dsnt", "udp"])
def test_both_protocols_give_the_same_numbers(running: Running, picture: bytes, decoder: str) -> None:
    _, body = running.ask(query(boxes=BOXES, decoder=decoder), picture)
    over_http = json.loads(body)
    boxes = [pose_pb2.Box(x=x, y=y, width=w, height=h) for x, y, w, h in BOXES]
    request = pose_pb2.EstimateRequest(image=picture, boxes=boxes, decoder=decoder)
    with running.channel() as channel:
        service = pose_pb2_grpc.PoseServiceStub(channel)
        over_grpc = service.Estimate(request, timeout=30)
        messages = [pose_pb2.EstimateStreamRequest(sequence=number, frame=request) for number in range(5)]
        streamed = list(service.EstimateStream(iter(messages), timeout=30))
    assert over_grpc.decoder == over_http["decoder"] == decoder
    for pose, other in zip(over_grpc.poses, over_http["poses"], strict=True):
        assert pose.score == other["score"]
        assert [(each.name, each.x, each.y, each.score) for each in pose.keypoints] == [
            (each["name"], each["x"], each["y"], each["score"]) for each in other["keypoints"]
        ]
    assert [each.sequence for each in streamed] == list(range(5))
    assert all(each.prediction == over_grpc for each in streamed)


def test_an_error_of_one_frame_does_not_end_the_stream(running: Running, picture: bytes) -> None:
    frames = [picture, b"no picture", picture]
    messages = [
        pose_pb2.EstimateStreamRequest(sequence=number, frame=pose_pb2.EstimateRequest(image=data))
        for number, data in enumerate(frames)
    ]
    with running.channel() as channel:
        answers = list(pose_pb2_grpc.PoseServiceStub(channel).EstimateStream(iter(messages), timeout=30))
    assert [each.WhichOneof("outcome") for each in answers] == ["prediction", "error", "prediction"]
    assert answers[1].error.code == "invalid_image"
    assert answers[1].error.status == grpc.StatusCode.INVALID_ARGUMENT.value[0]


WRONG = {
    "no picture": ({}, b"nonsense", "invalid_image", "image"),
    "half a picture": ({}, None, "invalid_image", "image"),
    "unknown model": ({"model": "nobody"}, b"", "unknown_model", "model"),
    "unknown version": ({"model": "tiny@9"}, b"", "unknown_model", "model"),
    "unknown decoder": ({"decoder": "magic"}, b"", "unknown_decoder", "decoder"),
    "box without area": ({"boxes": [[1, 2, 0, 4]]}, b"", "invalid_boxes", "boxes"),
    "box outside": ({"boxes": [[5000, 0, 10, 10]]}, b"", "invalid_boxes", "boxes"),
    "three numbers": ({"boxes": [[1, 2, 3]]}, b"", "invalid_boxes", "boxes"),
    "not a number": ({"boxes": "[[1, 2, NaN, 4]]"}, b"", "invalid_boxes", "boxes"),
    "no JSON": ({"boxes": "[["}, b"", "invalid_boxes", "boxes"),
    "too many boxes": ({"boxes": [[0, 0, 9, 9]] * 1000}, b"", "invalid_boxes", "boxes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_refused_by_name_of_the_field(running: Running, picture: bytes, case: str) -> None:
    values, body, code, field = WRONG[case]
    sent = picture[: len(picture) // 2] if body is None else body or picture
    status, answer = running.ask(query(**values), sent)
    error = json.loads(answer)["error"]
    assert 400 <= status < 500
    assert (error["code"], error["field"]) == (code, field)
    assert error["message"]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    data=st.binary(max_size=400) | st.just(b"\x89PNG\r\n\x1a\n"), cut=st.integers(0, 3000), flip=st.integers(0, 3000),
    boxes=st.text(max_size=30) | st.lists(st.lists(st.floats(), max_size=5), max_size=3).map(json.dumps),
    kind=st.sampled_from(["image/jpeg", "image/png", "text/plain", "multipart/form-data; boundary=x", ""]),
)  # fmt: skip
def test_no_bytes_are_a_fault_of_the_service(
    running: Running, picture: bytes, data: bytes, cut: int, flip: int, boxes: str, kind: str
) -> None:
    broken = bytearray(picture[: cut % len(picture)])
    if broken:
        broken[flip % len(broken)] ^= 0x5A
    for body in (data, bytes(broken)):
        status, answer = running.ask(query(boxes=boxes), body, kind)
        assert status == 200 or 400 <= status < 500, answer
    assert running.ask("/healthz/live")[0] == 200


def test_multipart_takes_the_same_names(running: Running, picture: bytes) -> None:
    parts = {"boxes": json.dumps(BOXES), "decoder": "dark"}
    body = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in parts.items()
    )
    body += b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
    body += b"Content-Type: image/png\r\n\r\n" + picture + b"\r\n--x--\r\n"
    status, answer = running.ask("/v1/pose", body, "multipart/form-data; boundary=x")
    assert status == 200, answer
    assert json.loads(answer) == json.loads(running.ask(query(**parts), picture)[1])


def test_render_answers_with_the_picture(running: Running, picture: bytes) -> None:
    status, body = running.ask(query(boxes=BOXES, render="true"), picture)
    assert status == 200
    assert body.startswith(b"\x89PNG")


def test_a_person_is_found_without_boxes(running: Running) -> None:
    person = tiny_model.person((150.0, 60.0, 100.0, 140.0))
    alone = tiny_model.encode(tiny_model.paint(SIZE, person, radius=12))
    (pose,) = json.loads(running.ask("/v1/pose", alone)[1])["poses"]
    assert pose["box_source"] in {"found", "image"}
    found = np.array([[each["x"], each["y"]] for each in pose["keypoints"]])
    assert np.median(np.linalg.norm(found - person, axis=1)) < 4


def test_health_models_metrics_and_documentation(running: Running) -> None:
    for path in ("/healthz/live", "/healthz/ready", "/docs", "/openapi.json"):
        assert running.ask(path)[0] == 200, path
    models = json.loads(running.ask("/v1/models")[1])
    assert models["default"] == "tiny@2"
    assert {(each["name"], each["version"]) for each in models["models"]} == {("tiny", "1"), ("tiny", "2")}
    metrics = running.ask("/metrics")[1].decode()
    assert 'reppose_requests_total{method="pose",outcome="ok",transport="http"}' in metrics
    with running.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "reppose.v1.PoseService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_sigterm_finishes_what_was_asked_and_leaves_no_port(tiny_bundle_root: Path, picture: bytes) -> None:
    service = start(tiny_bundle_root)
    answers: list[int] = []
    clients = [
        threading.Thread(target=lambda: answers.append(service.ask(query(boxes=BOXES), picture)[0]))
        for _ in range(8)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert answers == [200] * 8
    assert stop(service) == 0
    for port in (service.http, service.grpc):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
