"""What one connection may take, held to it on real sockets: heads, bodies, time and places."""

from __future__ import annotations

import fcntl
import json
import re
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1.pose_pb2_grpc import PoseServiceStub
from tests.service import serving
from tests.service.conftest import Scene

WAIT_S = 60.0
CONNECTIONS = 6
STRICT = {
    "REPPOSE_HTTP__CONNECTIONS": str(CONNECTIONS),
    "REPPOSE_HTTP__HEADER_BYTES": "4096",
    "REPPOSE_HTTP__HEADERS": "20",
    "REPPOSE_HTTP__HEADER_S": "1.5",
    "REPPOSE_HTTP__BODY_S": "1.5",
    "REPPOSE_HTTP__BODY_BYTES_PER_S": "200",
    "REPPOSE_HTTP__BODIES_BYTES": "100000",
    "REPPOSE_HTTP__KEEP_ALIVE_S": "1",
    "REPPOSE_HTTP__PING_S": "1",
    "REPPOSE_GRPC__CONNECTIONS": "3",
    "REPPOSE_GRPC__METADATA_BYTES": "4096",
    "REPPOSE_GRPC__MESSAGE_S": "1.5",
    "REPPOSE_STREAMS__IDLE_S": "1.5",
    "REPPOSE_BATCH__WORKERS": "1",
}
GET = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def strict(tiny_bundle_root: Path) -> Iterator[serving.Service]:
    with serving.running(tiny_bundle_root, **STRICT) as service:
        yield service


@contextmanager
def connected(service: serving.Service, *sent: bytes) -> Iterator[socket.socket]:
    address = "127.0.0.1", service.wait_for("listening")["http_port"]
    with socket.create_connection(address, WAIT_S) as connection:
        for data in sent:
            connection.sendall(data)
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the service hangs up."""
    found = b""
    while True:
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            return found
        if not data:
            return found
        found += data


def refused(answer: bytes) -> tuple[int, str, str]:
    """(status, code, message) of a refusal in the form that all errors have."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    return int(head.split()[1]), error["code"], error["message"]


def count(service: serving.Service, reason: str) -> float:
    text = serving.get(service, "/metrics").text
    found = re.search(rf'^reppose_connections_refused_total{{reason="{reason}"}} (.*)$', text, re.MULTILINE)
    return float(found[1])


@pytest.mark.parametrize(
    ("sent", "reason", "code", "limit"),
    [
        (GET + b"X: " + b"a" * 4096 + b"\r\n\r\n", "header_bytes", 431, "4096 bytes"),
        (GET + b"X: " + b"a" * 5000, "header_bytes", 431, "4096 bytes"),  # and it does not even end
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", "header_bytes", 431, "4096 bytes"),
        (b"\r\n" * 2500, "header_bytes", 431, "4096 bytes"),
        (
            GET + b"".join(b"X%d: 1\r\n" % number for number in range(20)) + b"\r\n",
            "headers",
            431,
            "20 headers",
        ),
        (GET, "header_time", 408, "1.5 s"),
        (b"", "header_time", 408, "1.5 s"),
        (b"POST /v1/pose HTTP/1.1\r\nContent-Length: 50\r\n\r\n", "body_time", 408, "200 bytes"),
        (b"POST /v1/pose HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "body_time", 408, "200 bytes"),
        (b"HELLO\r\n\r\n", "malformed", 400, "HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "malformed", 400, "HTTP/1.1"),  # TLS
    ],
)
def test_each_limit_is_named_by_its_refusal(
    sent: bytes, reason: str, code: int, limit: str, strict: serving.Service
) -> None:
    before = count(strict, reason)
    with connected(strict, sent) as connection:
        status, _, message = refused(rest_of(connection))
    assert status == code
    assert limit in message
    assert count(strict, reason) == before + 1


def test_a_head_at_its_limits_is_answered(strict: serving.Service) -> None:
    line, host = b"GET /healthz/live HTTP/1.1\r\n", b"Host: x\r\n"
    headers = [b"X%02d: 1\r\n" % number for number in range(18)]
    filler = b"Y: " + b"a" * (4096 - len("/healthz/live") - sum(map(len, [host, *headers])) - 5) + b"\r\n"
    with connected(strict, line + host + b"".join(headers) + filler + b"\r\n") as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("trickled", [GET, b"POST /v1/pose HTTP/1.1\r\nContent-Length: 5000\r\n\r\n"])
def test_a_byte_now_and_then_does_not_keep_it(trickled: bytes, strict: serving.Service) -> None:
    with connected(strict, trickled) as connection:
        over = threading.Event()

        def trickle() -> None:
            while not over.wait(0.2):
                try:
                    connection.sendall(b"a")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert refused(rest_of(connection))[0] == 408
        finally:
            over.set()
            thread.join()


def test_a_slow_line_is_served_as_long_as_it_brings_something(strict: serving.Service, scene: Scene) -> None:
    """Three times as long as an empty body would have."""
    head = b"POST /v1/pose HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(scene.png)
    assert len(scene.png) > 1500
    with connected(strict, head) as connection:
        for piece in range(6):
            at, end = (len(scene.png) * each // 6 for each in (piece, piece + 1))
            connection.sendall(scene.png[at:end])
            time.sleep(0.8)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_all_bodies_together_have_a_limit(strict: serving.Service, scene: Scene) -> None:
    head = b"POST /v1/pose HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: 90000\r\n\r\n"
    before = count(strict, "bodies_bytes")
    for _ in range(3):  # what is given up is given back
        with connected(strict, head, bytes(60_000)) as first:
            wait_for_body(strict, first)
            with connected(strict, head, bytes(60_000)) as second:
                status, code, message = refused(rest_of(second))
            assert (status, code) == (503, "service_unavailable")
            assert "100000 bytes" in message
            assert serving.post(strict, scene.png).status_code == 200
    assert count(strict, "bodies_bytes") == before + 3
    for _ in range(100_000 // len(scene.png) + 2):  # and so is what was answered
        assert serving.post(strict, scene.png).status_code == 200


def wait_for_body(service: serving.Service, connection: socket.socket) -> None:
    """Until the service has read what was sent."""
    deadline = time.monotonic() + WAIT_S
    while struct.unpack("I", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    serving.get(service, "/healthz/live")  # one turn of its loop


def test_who_goes_on_sending_after_a_refusal_is_cut_off(strict: serving.Service) -> None:
    head = b"POST /v1/pose HTTP/1.1\r\nContent-Type: text/x\r\nContent-Length: 1000000000\r\n\r\n"
    with connected(strict, head) as connection:
        assert connection.recv(12) == b"HTTP/1.1 415"
        deadline = time.monotonic() + WAIT_S
        try:
            while True:
                assert time.monotonic() < deadline
                connection.send(bytes(1000))
                time.sleep(0.05)
        except OSError:  # it is closed
            pass


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(GET + b"X: ", id="a head that is too long"),
        pytest.param(
            b"POST /v1/pose HTTP/1.1\r\nContent-Type: text/x\r\nContent-Length: 4000000000\r\n\r\n",
            id="a body that nobody wants",
        ),
    ],
)
def test_who_was_refused_is_read_slowly(head: bytes, strict: serving.Service) -> None:
    """Else somebody could keep the event loop busy with what is thrown away."""
    piece, sent = bytes(1 << 20), 0
    with connected(strict, head) as connection, suppress(OSError):
        while sent < 2000 * len(piece):
            sent += connection.send(piece)
    assert 0 < sent < 100 * len(piece)


def test_an_idle_connection_makes_room_for_a_new_one(strict: serving.Service) -> None:
    with ExitStack() as held:
        idle = [held.enter_context(connected(strict, GET + b"\r\n")) for _ in range(CONNECTIONS)]
        for connection in idle:
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert serving.get(strict, "/healthz/live").status_code == 200
        rest_of(idle[0])  # it was closed


def test_where_nobody_is_idle_a_new_one_is_refused(strict: serving.Service) -> None:
    head = b"POST /v1/pose HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: 50000\r\n\r\n"
    with ExitStack() as held:
        busy = [held.enter_context(connected(strict, head + bytes(3000))) for _ in range(CONNECTIONS)]
        deadline = time.monotonic() + WAIT_S
        answer = b""
        while not answer.startswith(b"HTTP/1.1 503"):  # the heads of the others must have been read
            assert time.monotonic() < deadline
            with connected(strict) as connection:
                connection.settimeout(0.5)
                try:
                    answer = connection.recv(65536)
                except TimeoutError:
                    continue
        assert refused(answer)[1:] == (
            "service_unavailable",
            f"this service has {CONNECTIONS} connections, the most that it takes",
        )
    del busy
    assert serving.get(strict, "/healthz/live").status_code == 200


def test_a_connection_without_a_request_is_closed_without_a_word(strict: serving.Service) -> None:
    with connected(strict, GET + b"\r\n") as connection:
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_websocket_that_answers_no_ping_is_closed(strict: serving.Service) -> None:
    upgrade = (
        b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with connected(strict, upgrade) as connection:
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"\x89" in answer  # a ping


def test_a_websocket_takes_no_message_beyond_an_image_and_some_room(tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root, REPPOSE_LIMITS__IMAGE_BYTES="1000") as service:
        url = f"ws://127.0.0.1:{service.wait_for('listening')['http_port']}/v1/stream"
        with connect(url, proxy=None) as websocket:
            websocket.send("{}")
            websocket.recv(WAIT_S)
            websocket.send(bytes(600_000))
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(WAIT_S)
        assert closed.value.rcvd.code == 1009  # RFC 6455, section 7.4.1: too big


def failure(call: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    return error.value


@pytest.mark.parametrize("method", ["Estimate", "EstimateStream"])
def test_a_call_whose_first_message_never_comes_is_given_up(method: str, strict: serving.Service) -> None:
    before = count(strict, "message_time")
    silent = threading.Event()
    with grpc.insecure_channel(strict.target) as channel:
        call = channel.stream_stream(f"/reppose.v1.PoseService/{method}")(
            iter(lambda: silent.wait(WAIT_S), True), timeout=WAIT_S
        )
        error = failure(call)
        silent.set()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.details() == "the first message did not come within 1.5 s"
    assert dict(error.trailing_metadata())["reppose-code"] == "deadline_exceeded"
    assert count(strict, "message_time") == before + 1


@pytest.mark.parametrize("config", [None, pb.StreamConfig()])
def test_a_stream_that_falls_silent_is_ended(
    config: pb.StreamConfig | None, strict: serving.Service, scene: Scene
) -> None:
    silent = threading.Event()

    def messages() -> Iterator[pb.EstimateStreamRequest]:
        if config is not None:
            yield pb.EstimateStreamRequest(config=config)
        yield pb.EstimateStreamRequest(frame=pb.EstimateRequest(image=scene.png))
        silent.wait(WAIT_S)

    with grpc.insecure_channel(strict.target) as channel:
        error = failure(PoseServiceStub(channel).EstimateStream(messages(), timeout=WAIT_S))
        silent.set()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "1.5 s" in error.details()


def test_a_call_without_a_message_ends(strict: serving.Service) -> None:
    with grpc.insecure_channel(strict.target) as channel:
        call = channel.stream_stream("/reppose.v1.PoseService/Estimate")(iter(()), timeout=WAIT_S)
        assert failure(call).code() is grpc.StatusCode.INTERNAL


def test_long_metadata_is_refused(strict: serving.Service, scene: Scene) -> None:
    request = pb.EstimateRequest(image=scene.png)
    with grpc.insecure_channel(strict.target) as channel:
        stub = PoseServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.Estimate(request, metadata=[("x", "a" * 8000)], timeout=WAIT_S)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stub.Estimate(request, metadata=[("x", "a" * 1000)], timeout=WAIT_S).model == "tiny"


def test_grpc_closes_connections_beyond_the_most(strict: serving.Service) -> None:
    host, port = strict.target.split(":")
    with ExitStack() as held:
        many = [held.enter_context(socket.create_connection((host, int(port)), WAIT_S)) for _ in range(12)]
        closed = 0
        for connection in many:
            connection.settimeout(0.5)
            try:
                closed += connection.recv(100) == b""
            except ConnectionResetError:
                closed += 1
            except TimeoutError:
                pass
        assert closed >= 12 - 3
    with httpx.Client(trust_env=False, timeout=WAIT_S) as client:
        assert client.get(f"{strict.url}/healthz/ready").status_code == 200
