"""The whole process: how it starts, refuses to start, drains and ends."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests import tiny_model
from tests.service import serving
from tests.service.conftest import Scene


def is_free(address: str) -> bool:
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def test_sigterm_ends_it_well_and_leaves_no_port(tiny_bundle_root: Path) -> None:
    service = serving.Service(tiny_bundle_root)
    try:
        service.wait_for("ready")
        addresses = service.url, service.target
        assert not any(map(is_free, addresses))
        service.terminate()
        assert service.ended() == 0, service.text
        assert all(map(is_free, addresses))
        assert service.wait_for("stopped")["finished"] is True
    finally:
        service.process.kill()
        service.ended()


def test_a_signal_during_the_start_ends_it_too(tiny_bundle_root: Path) -> None:
    service = serving.Service(tiny_bundle_root)
    try:
        service.wait_for("listening")
        service.terminate(signal.SIGINT)
        assert service.ended() == 0, service.text
    finally:
        service.process.kill()
        service.ended()


def test_a_drain_finishes_what_was_accepted_and_tells_before_it_closes(
    tiny_bundle_root: Path, scene: Scene
) -> None:
    """Readiness turns false first, on both protocols, while requests are still answered; those at work are finished."""
    slow = tiny_model.encode(np.full((2000, 2000, 3), 128, np.uint8))
    environment = {"REPPOSE_DRAIN__NOTICE_S": "1.5", "REPPOSE_BATCH__WORKERS": "1"}
    answers: list[int] = []
    with serving.running(tiny_bundle_root, **environment) as service:
        url, channel = service.url, grpc.insecure_channel(service.target)
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        service.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        ready = httpx.get(f"{url}/healthz/ready", trust_env=False)
        assert (ready.status_code, ready.json()["reason"]) == (503, "the service is stopping")
        assert httpx.get(f"{url}/healthz/live", trust_env=False).status_code == 200
        assert serving.post(service, scene.png).status_code == 200

        def ask() -> None:
            answers.append(serving.post(service, slow).status_code)

        asking = [threading.Thread(target=ask) for _ in range(6)]
        for thread in asking:
            thread.start()
        time.sleep(0.2)
        call = pose_pb2_grpc.PoseServiceStub(channel).Estimate.future(
            pb.EstimateRequest(image=slow), timeout=60
        )
        assert call.result().model == "tiny"
        assert service.ended() == 0, service.text  # in spite of the watcher, which never leaves by itself
        for thread in asking:
            thread.join()
        channel.close()
    assert answers == [200] * 6


def test_an_open_stream_is_answered_told_and_closed(tiny_bundle_root: Path, scene: Scene) -> None:
    more = threading.Event()

    def frames() -> object:
        for number in range(3):
            yield pb.EstimateStreamRequest(sequence=number, frame=pb.EstimateRequest(image=scene.png))
        more.wait(60)

    with serving.running(tiny_bundle_root) as service, grpc.insecure_channel(service.target) as channel:
        stream = pose_pb2_grpc.PoseServiceStub(channel).EstimateStream(frames(), timeout=60)
        assert [next(stream).sequence for _ in range(3)] == [0, 1, 2]
        began = time.monotonic()
        service.terminate()
        with pytest.raises(grpc.RpcError) as error:
            next(stream)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        more.set()
        assert service.ended() == 0, service.text
        assert time.monotonic() - began < 15  # not the whole time that a drain may take


@pytest.mark.parametrize("transport", ["HTTP", "GRPC"])
def test_a_port_of_another_service_is_refused_in_one_line(
    transport: str, service: serving.Service, tiny_bundle_root: Path
) -> None:
    taken = (service.url.removeprefix("http://") if transport == "HTTP" else service.target).split(":")[1]
    second = serving.Service(tiny_bundle_root, **{f"REPPOSE_{transport}__PORT": taken})
    assert second.ended() == 1
    assert f"127.0.0.1:{taken}" in second.text
    assert f"REPPOSE_{transport}__PORT" in second.text
    assert "Traceback" not in second.text


def test_a_corrupt_bundle_is_refused_in_one_line(tmp_path: Path) -> None:
    written = tiny_model.write(tmp_path)
    written.model_path.write_bytes(b"\0" * written.model_path.stat().st_size)
    service = serving.Service(tmp_path)
    assert service.ended() == 1
    assert "sha256" in service.text
    assert "Traceback" not in service.text


def test_every_line_of_the_log_is_json(tiny_bundle_root: Path, scene: Scene) -> None:
    with serving.running(tiny_bundle_root) as service:
        serving.post(service, scene.png)
        serving.post(service, b"garbage")
        serving.get(service, "/nowhere")
    assert all(isinstance(line, dict) for line in service.lines), service.text
    requests = [line for line in service.lines if line["message"] == "request"]
    assert [line["outcome"] for line in requests] == ["ok", "invalid_image", "not_found"]
    assert all({"time", "level", "logger", "ms", "request_id"} <= line.keys() for line in requests)
    assert not [line for line in service.lines if line["level"] == "warning"]


def test_everything_that_is_wrong_is_told_at_once(service: serving.Service, tmp_path: Path) -> None:
    """Two ports that are taken, a key that is not there, and two broken bundles."""
    for version in ("1", "2"):
        written = tiny_model.write(tmp_path, version=version)
        written.model_path.write_bytes(b"\0" * written.model_path.stat().st_size)
    taken = {
        "REPPOSE_HTTP__PORT": service.url.rpartition(":")[2],
        "REPPOSE_GRPC__PORT": service.target.rpartition(":")[2],
    }
    files = {
        name: str(tmp_path / f"nowhere-{name}") for name in ("REPPOSE_TLS__CERTIFICATE", "REPPOSE_TLS__KEY")
    }
    second = serving.Service(tmp_path, **taken, **files, REPPOSE_DRAIN__NOTICE_S="1000")
    assert second.ended() == 1
    assert all(f"{name} names another" in second.text for name in taken)
    assert f"cannot read {files['REPPOSE_TLS__CERTIFICATE']}" in second.text
    assert second.text.count("sha256") == 2
    assert "Traceback" not in second.text


def test_a_second_signal_ends_it_at_once(tiny_bundle_root: Path) -> None:
    service = serving.Service(tiny_bundle_root, REPPOSE_DRAIN__NOTICE_S="1000")
    try:
        service.wait_for("ready")
        service.terminate()
        service.wait_for("stopping")
        service.terminate()
        assert service.ended() in (-signal.SIGTERM, 128 + signal.SIGTERM)
    finally:
        service.process.kill()
        service.ended()


def test_who_never_finishes_does_not_hold_up_the_end(tiny_bundle_root: Path, scene: Scene) -> None:
    """An upload that stopped half way, a connection without a request, a WebSocket without a config and a stream that
    says nothing: all of them may take longer than the end may."""
    patient = {
        "REPPOSE_HTTP__BODY_S": "1000",
        "REPPOSE_HTTP__HEADER_S": "1000",
        "REPPOSE_GRPC__MESSAGE_S": "1000",
        "REPPOSE_STREAMS__IDLE_S": "1000",
        "REPPOSE_DRAIN__TIMEOUT_S": "2",
    }
    silent = threading.Event()
    service = serving.Service(tiny_bundle_root, **patient)
    try:
        service.wait_for("ready")
        address = "127.0.0.1", service.wait_for("listening")["http_port"]
        with (
            socket.create_connection(address) as uploading,
            socket.create_connection(address) as idle,
            grpc.insecure_channel(service.target) as channel,
        ):
            uploading.sendall(
                b"POST /v1/pose HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nx"
            )
            stream = pose_pb2_grpc.PoseServiceStub(channel).EstimateStream(
                iter(lambda: silent.wait(60), True)
            )
            assert serving.post(service, scene.png).status_code == 200
            addresses = service.url, service.target
            service.terminate()
            assert service.ended() in (0, 1), service.text
            silent.set()
            with pytest.raises(grpc.RpcError) as error:
                next(stream)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            assert idle.recv(100) == b""
            assert uploading.recv(100).startswith(b"HTTP/1.1 503 ")
        assert all(map(is_free, addresses))
        told = [
            line for line in service.lines if isinstance(line, dict) and line.get("outcome") == "not_ready"
        ]
        assert [(line["path"], line["status"]) for line in told] == [("/v1/pose", 503)]
        assert service.wait_for("stopped")
    finally:
        service.process.kill()
        service.ended()
