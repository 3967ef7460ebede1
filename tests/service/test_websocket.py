"""The stream of browsers over real sockets: the same contract as gRPC, and what only a WebSocket has."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.pb.reppose.v1 import pose_pb2 as pb
from tests import tiny_model
from tests.service import serving, video
from tests.service.video import FRAMES, GARBAGE, clip

WAIT_S = 60
NO_TIME = float("nan")


@contextmanager
def opened(
    service: serving.Service, *first: dict[str, Any] | bytes, **options: Any
) -> Iterator[ClientConnection]:
    url = service.url.replace("http", "ws", 1) + "/v1/stream"
    with connect(url, compression=None, proxy=None, max_size=None, **options) as socket:
        for message in first:
            socket.send(message if isinstance(message, bytes) else json.dumps(message))
        yield socket


def frame(number: int, data: bytes | None = None, time_s: float | None = None) -> bytes:
    taken_s = 100 + number / video.RATE_HZ if time_s is None else time_s
    return struct.pack("<Qd", number, taken_s) + (clip()[number % FRAMES] if data is None else data)


def read(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(socket.recv(WAIT_S))


def rest(socket: ClientConnection) -> tuple[list[dict[str, Any]], int, str]:
    """What is left, and how the service closed."""
    found = []
    try:
        while True:
            found.append(read(socket))
    except ConnectionClosed as closed:
        return found, closed.rcvd.code, closed.rcvd.reason


def file(service: serving.Service, frames: Iterable[bytes], **config: Any) -> list[dict[str, Any]]:
    """The answers to a whole file."""
    with opened(service, {"mode": "file"} | config, *frames, {"end": True}) as socket:
        found, code, _ = rest(socket)
    assert code == 1000
    assert "opened" in found[0]
    return found[1:]


def facts(answer: dict[str, Any]) -> str:
    """A tracked answer without what depends on the clock."""
    tracked = {name: answer["tracked"][name] for name in ("raw", "tracks")}
    return json.dumps([answer["sequence"], tracked], sort_keys=True)


def test_browsers_get_what_grpc_gives(service: serving.Service) -> None:
    answers = file(service, map(frame, range(FRAMES)))
    other, _ = video.stream(
        service.target, [video.config(mode=pb.STREAM_MODE_FILE), *map(video.frame, range(FRAMES))]
    )
    assert [answer["sequence"] for answer in answers] == list(range(FRAMES))
    for mine, message in zip(answers, other[1:], strict=True):
        theirs = MessageToDict(
            message.tracked, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        assert len(mine["tracked"]["tracks"]) == len(theirs["tracks"])
        for track, its in zip(mine["tracked"]["tracks"], theirs["tracks"], strict=True):
            assert {"reset": "", "classes": [], **track} == its
        for pose, its in zip(mine["tracked"]["raw"]["poses"], theirs["raw"]["poses"], strict=True):
            assert (pose["keypoints"], pose["score"]) == (its["keypoints"], its["score"])
        assert set(mine["tracked"]["timing"]) == {"queue_ms", "decode_ms", "infer_ms", "age_ms"}


def test_in_live_mode_every_frame_is_answered_or_dropped_with_a_reason(service: serving.Service) -> None:
    with opened(service, {}, *map(frame, range(200)), {"end": True}) as socket:
        found, code, _ = rest(socket)
    assert code == 1000
    assert [answer["sequence"] for answer in found[1:]] == list(range(200))
    assert {answer["dropped"]["reason"] for answer in found if "dropped" in answer} <= {
        "superseded",
        "deadline",
    }
    assert any("tracked" in answer for answer in found)


def test_frames_without_a_time_take_that_of_their_arrival(service: serving.Service) -> None:
    with opened(service, {}) as socket:
        read(socket)
        for number in range(3):
            socket.send(frame(number, time_s=NO_TIME))
            assert "tracked" in read(socket)


def test_what_is_wrong_with_a_frame_is_its_own_answer(service: serving.Service) -> None:
    frames = [frame(0), frame(1, GARBAGE), frame(2, b""), frame(3, time_s=99.9), frame(4)]
    answers = file(service, frames)
    assert ["tracked" in answer for answer in answers] == [True, False, False, False, True]
    codes = [(answer["error"]["code"], answer["error"]["field"]) for answer in answers[1:4]]
    assert codes == [("invalid_image", "image")] * 2 + [("invalid_request", "timestamp_s")]


def test_a_text_says_what_to_do_with_the_next_frame(service: serving.Service) -> None:
    asked = {"next": {"boxes": [[30, 40, 90, 160], [60, 40, 90, 160]], "want_token": True, "heatmaps": True}}
    with opened(service, {"mode": "file"}, asked, frame(0), frame(1), {"end": True}) as socket:
        found, _, _ = rest(socket)
    first, second = (answer["tracked"] for answer in found[1:])
    assert [pose["box"] for pose in first["raw"]["poses"]] == asked["next"]["boxes"]
    assert all("heatmaps" in pose for pose in first["raw"]["poses"])
    assert first["resume_token"]
    assert "resume_token" not in second
    again = file(service, [frame(1)], resume_token=first["resume_token"])
    assert facts(again[0]) == facts(found[2])


@pytest.mark.parametrize(
    ("messages", "code", "name", "field"),
    [
        ([b"binary"], 4422, "invalid_request", "config"),
        (["{"], 4422, "invalid_request", None),
        (["[]"], 4422, "invalid_request", None),
        ([{"mode": "neither"}], 4422, "invalid_request", "mode"),
        ([{"colour": "red"}], 4422, "invalid_request", "colour"),
        ([{"mailbox": 0}], 4422, "invalid_request", "mailbox"),
        ([{"mailbox": 17}], 4422, "invalid_request", "mailbox"),
        ([{"max_age_ms": -1}], 4422, "invalid_request", "max_age_ms"),
        ([{"session": "a b"}], 4422, "invalid_request", "session"),
        ([{"session": ""}], 4422, "invalid_request", "session"),
        ([{"model": "absent"}], 4422, "unknown_model", "model"),
        ([{"decoder": "absent"}], 4422, "unknown_decoder", "decoder"),
        ([{"smoothing": {"name": "absent"}}], 4422, "invalid_request", "smoothing"),
        ([{"smoothing": {"name": "ema", "parameters": {"beta": 1}}}], 4422, "invalid_request", "parameters"),
        ([{"smoothing": {"name": "ema", "parameters": {"alpha": 2}}}], 4422, "invalid_request", "parameters"),
        ([{"resume_token": "nonsense"}], 4422, "invalid_token", "resume_token"),
        ([{}, {}, {"mode": "live"}], 4422, "invalid_request", "mode"),
        ([{}, b"too short"], 4422, "invalid_request", "frame"),
        ([{}, "nonsense"], 4422, "invalid_request", None),
        ([{}, {"next": {"boxes": [[1, 2, 3]]}}], 4422, "invalid_request", "next"),
        ([{"mode": "file"}, frame(1), frame(1, time_s=200)], 4422, "invalid_request", "sequence"),
        ([{"mode": "file"}, frame(1), frame(2, time_s=90)], 4422, "invalid_request", "timestamp_s"),
        ([{"mode": "file"}, frame(1), frame(2, time_s=NO_TIME)], 4422, "invalid_request", "timestamp_s"),
        ([{"mode": "file"}, frame(1, time_s=NO_TIME)], 4422, "invalid_request", "timestamp_s"),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_ends_the_stream(
    messages, code, name, field, service: serving.Service
) -> None:
    with opened(service) as socket:
        for message in messages:
            socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
        found, closed, reason = rest(socket)
    assert (closed, reason.partition(":")[0]) == (code, name)
    error = found[-1]["error"]
    assert "sequence" not in found[-1]
    assert (error["code"], error.get("field")) == (name, field)


def test_a_field_that_is_not_there_is_told_from_those_that_are(service: serving.Service) -> None:
    with opened(service, {"colour": "red"}) as socket:
        said = rest(socket)[0][-1]["error"]["message"]
    assert "resume_token" in said
    assert "render" not in said
    with opened(service, {}, {"next": {"colour": "red"}}) as socket:
        assert "known" not in rest(socket)[0][-1]["error"]["message"]


def test_pages_of_others_may_not_open_it(service: serving.Service, tiny_bundle_root: Path) -> None:
    with opened(service, {}, origin=service.url) as socket:
        assert "opened" in read(socket)
    for origin in ("https://evil.example", "null", f"{service.url}.evil.example", "http://["):
        with pytest.raises(InvalidStatus) as refused, opened(service, origin=origin):
            pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["error"]["code"] == "forbidden"
    allowed = {"REPPOSE_STREAMS__ORIGINS": "https://good.example, https://other.example"}
    with serving.running(tiny_bundle_root, **allowed) as open_to_two:
        with opened(open_to_two, {}, origin="https://other.example") as socket:
            assert "opened" in read(socket)
        with pytest.raises(InvalidStatus), opened(open_to_two, origin="https://good.example.evil.example"):
            pass


def test_a_message_beyond_the_limit_for_images_is_refused(tiny_bundle_root: Path) -> None:
    with (
        serving.running(tiny_bundle_root, REPPOSE_LIMITS__IMAGE_BYTES="100000") as small,
        opened(small, {"mode": "file"}, frame(0), frame(1, bytes(100_001)), frame(2)) as socket,
    ):
        kinds = [next(iter(read(socket).keys() - {"sequence"})) for _ in range(4)]
        assert kinds == ["opened", "tracked", "error", "tracked"]
        socket.send(frame(3, bytes(1_000_000)))
        _, code, _ = rest(socket)
        assert code == 1009


def test_a_stream_whose_server_stops_goes_on_elsewhere_to_the_last_bit(tiny_bundle_root: Path) -> None:
    keys = {"REPPOSE_SESSIONS__TOKEN_KEYS": "a key that both servers have"}
    with serving.running(tiny_bundle_root, **keys) as other:
        whole = file(other, map(frame, range(FRAMES)))
        service = serving.Service(tiny_bundle_root, **keys)
        try:
            service.wait_for("ready")
            with opened(service, {"session": "camera"}) as socket:
                read(socket)
                answers = []
                for number in range(15):
                    socket.send(frame(number))
                    answers.append(read(socket))
                service.terminate()
                found, code, _ = rest(socket)
            assert code == 1012
            assert found[-1]["error"]["code"] == "not_ready"
            closing = found[-2]
            assert closing["sequence"] == 14
            assert service.ended() == 0, service.text
        finally:
            service.process.kill()
            service.ended()
        again = file(
            other,
            map(frame, range(15, FRAMES)),
            session="camera",
            resume_token=closing["closing"]["resume_token"],
        )
        assert list(map(facts, answers + again)) == list(map(facts, whole))


VANISHES = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], compression=None, proxy=None) as socket:
    socket.send('{"session": "gone", "mode": "file"}')
    socket.recv()
    print("open", flush=True)
    sys.stdin.read()
"""


def test_who_vanishes_without_a_goodbye_is_forgotten(tiny_bundle_root: Path) -> None:
    """A client that is frozen: its kernel goes on acknowledging, as that of a machine that hangs may."""
    brief = {"REPPOSE_STREAMS__IDLE_S": "1.5", "REPPOSE_SESSIONS__IDLE_S": "1.5"}
    with serving.running(tiny_bundle_root, **brief) as service:
        url = service.url.replace("http", "ws", 1) + "/v1/stream"
        client = subprocess.Popen(
            [sys.executable, "-c", VANISHES, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert client.stdout.readline() == "open\n"
            os.kill(client.pid, signal.SIGSTOP)
            video.until(service, 'reppose_streams{transport="websocket"}', 1)
            video.until(service, 'reppose_streams{transport="websocket"}', 0)
            video.until(service, "reppose_sessions", 0)
        finally:
            client.kill()
            client.communicate()


def test_who_hangs_up_in_the_middle_leaves_a_session_to_continue(service: serving.Service) -> None:
    whole = file(service, map(frame, range(8)))
    with opened(service, {"session": "breaks", "mode": "file"}) as socket:
        read(socket)
        answers = []
        for number in range(4):
            socket.send(frame(number))
            answers.append(read(socket))
        socket.socket.close()  # no closing handshake
    again = file(service, map(frame, range(4, 8)), session="breaks")
    assert list(map(facts, answers + again)) == list(map(facts, whole))


def test_a_reader_that_reads_nothing_costs_little_and_is_cut_off(tiny_bundle_root: Path) -> None:
    brief = {"REPPOSE_STREAMS__IDLE_S": "2"}

    async def never_read(port: int) -> None:
        """A client of its own making, that sends frames with large answers and reads none."""
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(UPGRADE)
        writer.write(masked(1, b'{"mode": "file"}'))
        number = 0
        while not writer.is_closing():
            writer.write(masked(1, b'{"next": {"heatmaps": true}}') + masked(2, frame(number)))
            number += 1
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except (TimeoutError, OSError):
                break
        await asyncio.to_thread(video.until, service, 'reppose_streams{transport="websocket"}', 0)
        writer.close()

    with serving.running(tiny_bundle_root, **brief) as service:
        asyncio.run(never_read(service.wait_for("listening")["http_port"]))
        assert video.metrics(service)['reppose_stream_frames_total{outcome="ok"}'] < 500


PING = {"REPPOSE_HTTP__PING_S": "0.05"}


def test_a_sender_that_is_held_up_is_not_taken_for_gone(tiny_bundle_root: Path) -> None:
    """Its pongs wait behind its frames, which wait for its budget, for longer than a pong may take."""
    picture = tiny_model.encode(
        tiny_model.paint((260, 320), tiny_model.person((30, 40, 90, 160)), radius=8), "BMP"
    )
    count = 80  # 20 MB: more than what lies between the two
    held_up = {
        "REPPOSE_HTTP__PING_S": "0.5",  # a busy machine may leave somebody waiting for longer than PING
        "REPPOSE_RATES__BY_ADDRESS": "true",
        "REPPOSE_RATES__FRAMES_PER_S": "20",  # so that it is, however fast the machine
        "REPPOSE_RATES__FRAMES_BURST": "1",
    }
    with (
        serving.running(tiny_bundle_root, **held_up) as service,
        opened(service, {"mode": "file"}, ping_interval=None) as sending,
    ):
        sender = threading.Thread(
            target=lambda: [sending.send(frame(number, picture, number / 30)) for number in range(count)]
        )
        sender.start()
        assert "opened" in read(sending)
        found = [read(sending) for _ in range(count)]
        sender.join()
    assert [answer["sequence"] for answer in found] == list(range(count))
    assert all("tracked" in answer for answer in found)


def test_who_answers_no_ping_and_says_nothing_is_hung_up_on(tiny_bundle_root: Path) -> None:
    with (
        serving.running(tiny_bundle_root, **PING) as service,
        socket.create_connection(("127.0.0.1", service.wait_for("listening")["http_port"]), WAIT_S) as silent,
    ):
        silent.sendall(UPGRADE + masked(1, b"{}"))
        received = b""
        while more := silent.recv(65536):
            received += more
        assert b"keepalive ping timeout" in received
        video.until(service, 'reppose_streams{transport="websocket"}', 0)


UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(opcode: int, data: bytes) -> bytes:
    """A frame of the protocol (RFC 6455), masked with zeros."""
    short = len(data) < 126
    length = bytes([0x80 | len(data)]) if short else bytes([0x80 | 127]) + struct.pack(">Q", len(data))
    return bytes([0x80 | opcode]) + length + bytes(4) + data
