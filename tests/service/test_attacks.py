"""Attacks on the resources of a real process: a clear refusal, bounded memory, and others are served meanwhile.

How fast others are served meanwhile is measured, not tested: `python -m tests.service.attack_bench`.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1.pose_pb2_grpc import PoseServiceStub
from tests.service import attacks, serving
from tests.service.conftest import Scene

WAIT_S = 120.0
MIB = 1024 * 1024
IDLE = 2000


@pytest.fixture(scope="module")
def target(tiny_bundle_root: Path) -> Iterator[serving.Service]:
    """With the limits that it has by itself."""
    with serving.running(
        tiny_bundle_root, REPPOSE_BATCH__WORKERS="2", REPPOSE_LOG__REQUESTS="false"
    ) as service:
        yield service


@contextmanager
def unharmed(service: serving.Service, scene: Scene, most_bytes: int) -> Iterator[None]:
    """Somebody else is answered all the while, and the process grows by no more than this, not even for a moment."""
    assert serving.post(service, scene.png).status_code == 200
    before = attacks.resident_bytes(service.process.pid)
    peak_before = attacks.resident_bytes(service.process.pid, most=True)
    over = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=WAIT_S) as client:
            while not over.is_set():
                answer = client.post(
                    f"{service.url}/v1/pose", content=scene.png, headers={"Content-Type": "image/png"}
                )
                statuses.append(answer.status_code)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield
    finally:
        over.set()
        asker.join()
    assert statuses
    assert set(statuses) == {200}
    peak = attacks.resident_bytes(service.process.pid, most=True)
    assert peak <= max(peak_before, before + most_bytes)


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


@pytest.mark.parametrize("form", attacks.headers_of_huge_pictures())
def test_a_header_of_50000_x_50000_pixels(form: str, target: serving.Service, scene: Scene) -> None:
    data = attacks.headers_of_huge_pictures()[form]
    with unharmed(target, scene, 64 * MIB), grpc.insecure_channel(target.target) as channel:
        for _ in range(20):
            status, code, message = error_of(serving.post(target, data, media="application/octet-stream"))
            assert (status, code) == (413, "image_too_large")
            assert "50000 x 50000" in message
            assert "40000000" in message
        with pytest.raises(grpc.RpcError) as error:
            PoseServiceStub(channel).Estimate(pb.EstimateRequest(image=data), timeout=WAIT_S)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_gzip_bombs(target: serving.Service, scene: Scene) -> None:
    bomb = gzip.compress(bytes(200 * MIB))
    assert len(bomb) < MIB
    with unharmed(target, scene, 64 * MIB), httpx.Client(trust_env=False, timeout=WAIT_S) as client:
        for coding in ("gzip", "deflate", "br", "gzip, gzip"):
            answer = client.post(
                f"{target.url}/v1/pose",
                content=bomb,
                headers={"Content-Type": "image/png", "Content-Encoding": coding},
            )
            assert error_of(answer)[:2] == (415, "unsupported_media")
        with grpc.insecure_channel(
            target.target, compression=grpc.Compression.Gzip, options=[("grpc.max_send_message_length", -1)]
        ) as channel:
            request = pb.EstimateRequest(image=bytes(200 * MIB))
            with pytest.raises(grpc.RpcError) as error:
                PoseServiceStub(channel).Estimate(request, timeout=WAIT_S)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "'gzip' is disabled" in error.value.details()


def test_10000_boxes(target: serving.Service, scene: Scene) -> None:
    boxes = [[1.0, 1.0, 50.0, 50.0]] * 10_000
    with unharmed(target, scene, 64 * MIB), grpc.insecure_channel(target.target) as channel:
        with httpx.Client(trust_env=False, timeout=WAIT_S) as client:
            in_the_query = client.post(
                f"{target.url}/v1/pose",
                params={"boxes": json.dumps(boxes[:1500], separators=(",", ":"))},
                content=scene.png,
                headers={"Content-Type": "image/png"},
            )
            assert error_of(in_the_query)[0] == 431
            few = client.post(
                f"{target.url}/v1/pose",
                data={"boxes": json.dumps(boxes[:3000], separators=(",", ":"))},
                files={"image": ("x.png", scene.png)},
            )
            assert error_of(few)[0] == 422
            assert "32" in error_of(few)[2]
        request = pb.EstimateRequest(image=scene.png)
        for x, y, width, height in boxes[:2000]:
            request.boxes.add(x=x, y=y, width=width, height=height)
        with pytest.raises(grpc.RpcError) as error:
            PoseServiceStub(channel).Estimate(request, timeout=WAIT_S)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "32" in error.value.details()


def test_huge_headers_and_metadata(target: serving.Service, scene: Scene) -> None:
    with unharmed(target, scene, 64 * MIB), grpc.insecure_channel(target.target) as channel:
        with httpx.Client(trust_env=False, timeout=WAIT_S) as client:
            for headers in ({"X-Big": "a" * 10 * MIB}, {f"X-{number}": "1" for number in range(10_000)}):
                try:
                    answer = client.get(f"{target.url}/healthz/live", headers=headers)
                except httpx.TransportError:  # it was refused and hung up while this side still sent
                    continue
                assert error_of(answer)[0] == 431
        with pytest.raises(grpc.RpcError) as error:
            PoseServiceStub(channel).Estimate(
                pb.EstimateRequest(image=scene.png), metadata=[("x-big", "a" * 4 * MIB)], timeout=WAIT_S
            )
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_500_uploads_of_a_byte_now_and_then(tiny_bundle_root: Path, scene: Scene) -> None:
    if not attacks.open_files_for(2000):
        pytest.skip("this process may not have 2,000 open files")
    limits = {"REPPOSE_HTTP__BODY_S": "3", "REPPOSE_LOG__REQUESTS": "false"}
    with serving.running(tiny_bundle_root, **limits) as service, ExitStack() as held:
        port = service.wait_for("listening")["http_port"]
        with unharmed(service, scene, 128 * MIB):
            uploads = attacks.trickles(held, port, 500)
            answers = [_trickled(upload) for upload in uploads]
        assert all(b" 408 " in answer and b"body came too slowly" in answer for answer in answers)


def _trickled(upload) -> bytes:
    """What is answered while a byte is sent every half second."""
    upload.settimeout(0.5)
    answer = b""
    while True:
        try:
            upload.sendall(b"\xff")
            if not (data := upload.recv(65536)):
                return answer
            answer += data
        except TimeoutError:
            continue
        except OSError:
            return answer


def test_2000_idle_connections(tiny_bundle_root: Path, scene: Scene) -> None:
    if not attacks.open_files_for(2 * IDLE):
        pytest.skip(f"this process may not have {2 * IDLE} open files")
    limits = {
        "REPPOSE_HTTP__CONNECTIONS": "1000",
        "REPPOSE_GRPC__CONNECTIONS": "1000",
        "REPPOSE_HTTP__HEADER_S": "30",
        "REPPOSE_LOG__REQUESTS": "false",
    }
    with serving.running(tiny_bundle_root, **limits) as service, ExitStack() as held:
        told = service.wait_for("listening")
        with unharmed(service, scene, 128 * MIB):
            attacks.idle(held, told["http_port"], IDLE)
            text = serving.get(service, "/metrics").text
            assert 'reppose_connections_refused_total{reason="connections"}' in text
            connections = float(
                next(
                    line for line in text.splitlines() if line.startswith("reppose_http_connections ")
                ).split()[1]
            )
            assert 0 < connections <= 1250  # those that are being closed count for a moment
            with grpc.insecure_channel(service.target) as channel:
                stub = PoseServiceStub(channel)
                assert stub.Estimate(pb.EstimateRequest(image=scene.png), timeout=WAIT_S).model == "tiny"
                attacks.idle(held, told["grpc_port"], IDLE)
                assert stub.Estimate(pb.EstimateRequest(image=scene.png), timeout=WAIT_S).model == "tiny"
