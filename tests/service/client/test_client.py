"""The client against real services that stop, die, and never were there."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from service.client import AsyncClient, Client, ClientError, Pace, Patience, Rates, Stream
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests.service import serving, video
from tests.service.conftest import Scene
from tests.service.video import FRAMES, GARBAGE, RATE_HZ, clip

ROOT = Path(__file__).parents[3]
KEYS = {"REPPOSE_SESSIONS__TOKEN_KEYS": "a key that both servers have"}


def send(stream: Stream, numbers: range) -> None:
    for number in numbers:
        stream.send(clip()[number], timestamp_s=100 + number / RATE_HZ)


def smoothed(answers) -> np.ndarray:
    """(N, K, 2) of the first person in each."""
    return np.array([each.poses.people[0].smoothed.points for each in answers])


@pytest.fixture(scope="module")
def expected(service: serving.Service) -> np.ndarray:
    """(N, K, 2) smoothed points of the whole clip, as plain gRPC gives them."""
    messages = [video.config(mode=pb.STREAM_MODE_FILE), *map(video.frame, range(FRAMES))]
    answers, _ = video.stream(service.target, messages)
    return np.array([video.points(each.tracked.tracks[0].keypoints) for each in answers[1:]])


def test_an_image_has_the_poses_that_plain_grpc_gives(
    service: serving.Service, stub: pose_pb2_grpc.PoseServiceStub, scene: Scene
) -> None:
    x, y, width, height = scene.box
    boxes = [pb.Box(x=x, y=y, width=width, height=height)]
    raw = stub.Estimate(pb.EstimateRequest(image=scene.png, boxes=boxes, decoder="argmax_shift"))

    async def ask():
        async with AsyncClient(service.target) as client:
            return await client.estimate(scene.png, boxes=[scene.box], decoder="argmax_shift")

    with Client(service.target, jpeg_quality=None) as client:
        found = [
            client.estimate(scene.png, boxes=[scene.box], decoder="argmax_shift"),
            client.estimate(scene.picture, boxes=[scene.box], decoder="argmax_shift"),
            asyncio.run(ask()),
        ]
    for poses in found:
        assert (poses.model, poses.decoder) == (f"{raw.model}@{raw.version}", "argmax_shift")
        assert poses.size == scene.picture.shape[:2]
        assert poses.keypoints == tuple(each.name for each in raw.poses[0].keypoints)
        (person,) = poses.people
        assert (person.box, person.box_source, person.score) == (scene.box, "request", raw.poses[0].score)
        np.testing.assert_array_equal(person.points, video.points(raw.poses[0].keypoints))
        np.testing.assert_array_equal(person.scores, [each.score for each in raw.poses[0].keypoints])


def test_an_array_travels_as_jpeg_unless_told_otherwise(service: serving.Service, scene: Scene) -> None:
    with Client(service.target) as client:
        (person,) = client.estimate(scene.picture, boxes=[scene.box]).people
        assert np.abs(person.points - scene.joints).max() < 10  # JPEG blurs the colours that it is found by
        with pytest.raises(ValueError, match="uint8"):
            client.estimate(scene.picture[..., :2])


def test_what_is_wrong_with_an_image_is_an_error_with_its_name(service: serving.Service) -> None:
    with Client(service.target) as client, pytest.raises(ClientError) as caught:
        client.estimate(GARBAGE)
    error = caught.value
    assert (error.code, error.field) == ("invalid_image", "image")
    assert error.status is grpc.StatusCode.INVALID_ARGUMENT


def test_where_one_server_is_not_there_the_next_is_asked(service: serving.Service, scene: Scene) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        nowhere = f"127.0.0.1:{nobody.getsockname()[1]}"
        with Client(nowhere, service.target) as client:
            assert len(client.estimate(scene.png).people) == 1
            with client.stream(live=False) as stream:
                send(stream, range(3))
                stream.finish()
                assert [answer.poses is None for answer in stream] == [False] * 3
        with Client(nowhere) as client:
            with pytest.raises(ClientError) as caught:
                client.estimate(scene.png)
            assert caught.value.code == "connection"
            with client.stream(live=False, patience=Patience(trouble_s=0)) as stream:
                with pytest.raises(ClientError):
                    next(iter(stream))
                with pytest.raises(ClientError):
                    send(stream, range(1))


def test_a_file_is_answered_in_order_as_plain_grpc_does(
    service: serving.Service, expected: np.ndarray
) -> None:
    async def ask():
        async with AsyncClient(service.target) as client, client.stream(live=False) as stream:

            async def feed() -> None:
                for number in range(FRAMES):
                    await stream.send(clip()[number], timestamp_s=100 + number / RATE_HZ)
                stream.finish()

            feeder = asyncio.create_task(feed())
            answers = [answer async for answer in stream]
            await feeder
            return answers

    with Client(service.target) as client, client.stream(live=False) as stream:
        send(stream, range(FRAMES))  # far more than may wait: room comes by itself
        stream.finish()
        answers = list(stream)
    for found in (answers, asyncio.run(ask())):
        assert [each.sequence for each in found] == list(range(FRAMES))
        np.testing.assert_array_equal(smoothed(found), expected)
        assert all(each.age_ms >= each.waited_ms >= 0 for each in found)


def test_an_error_of_one_frame_is_its_answer(service: serving.Service) -> None:
    with Client(service.target) as client, client.stream(live=False) as stream:
        for number, image in enumerate([clip()[0], GARBAGE, clip()[2]]):
            stream.send(image, timestamp_s=100 + number / RATE_HZ)
        stream.finish()
        first, second, third = stream
    assert second.error.code == "invalid_image"
    assert first.poses.people[0].smoothed.track_id == third.poses.people[0].smoothed.track_id == 1


def test_a_stream_that_the_service_refuses_says_why(service: serving.Service) -> None:
    with Client(service.target) as client:
        with client.stream(model="absent") as stream:
            with pytest.raises(ClientError) as caught:
                next(iter(stream))
            assert caught.value.code == "unknown_model"
        with client.stream(live=False) as stream, pytest.raises(ValueError, match="timestamps"):
            stream.send(clip()[0])
    with pytest.raises(ValueError, match="server"):
        Client()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_file_whose_server_goes_loses_nothing(number, expected, tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root, **KEYS) as other:
        one = serving.Service(tiny_bundle_root, **KEYS)
        try:
            one.wait_for("ready")
            with (
                Client(one.target, other.target) as client,
                client.stream(live=False, token_every=7) as stream,
            ):
                send(stream, range(20))
                answers = list(itertools.islice(stream, 12))
                one.terminate(number)
                one.ended()
                send(stream, range(20, FRAMES))
                stream.finish()
                answers += stream
                assert stream.connections == 2
                assert stream.opened.resumed
        finally:
            one.process.kill()
            one.ended()
    assert [each.sequence for each in answers] == list(range(FRAMES))
    np.testing.assert_array_equal(smoothed(answers), expected)


def test_a_camera_whose_server_dies_goes_on_as_the_same_person(tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root, **KEYS) as other:
        one = serving.Service(tiny_bundle_root, **KEYS)
        try:
            one.wait_for("ready")
            with Client(one.target, other.target) as client, client.stream() as stream:
                stream.send(clip()[0], timestamp_s=100)
                answers = [next(iter(stream))]
                one.process.kill()
                one.ended()
                while answers[-1].poses is None or len(answers) < 2:
                    number = stream.send(clip()[1], timestamp_s=100 + len(answers) / RATE_HZ)
                    answers.append(next(iter(stream)))
                    assert answers[-1].sequence == number
                assert stream.connections == 2
                assert stream.opened.resumed
        finally:
            one.process.kill()
            one.ended()
    assert {each.dropped for each in answers} <= {None, "lost"}
    assert answers[-1].poses.people[0].smoothed.track_id == 1


class Broken(pose_pb2_grpc.PoseServiceServicer):
    """Ends every stream as gRPC itself does when a server dies that is written to, or as a service, with a code."""

    def __init__(self, *told: tuple[str, str]) -> None:
        self.told, self.streams = told, 0

    def EstimateStream(self, request_iterator, context):  # noqa: N802 - named by the contract
        self.streams += 1
        assert next(request_iterator).WhichOneof("message") == "config"  # nobody writes when it is told
        context.set_trailing_metadata(self.told)
        context.abort(grpc.StatusCode.INTERNAL, "Internal error from Core")


class Restarted(pose_pb2_grpc.PoseServiceServicer):
    """Opens streams; the first ends after a second, as if for another server, the next hold."""

    def __init__(self) -> None:
        self.streams, self.over = 0, threading.Event()

    def EstimateStream(self, request_iterator, context):  # noqa: N802 - named by the contract
        self.streams += 1
        first = self.streams == 1
        yield pb.EstimateStreamResponse(opened=pb.Opened())
        self.over.wait(1 if first else 60)
        context.abort(grpc.StatusCode.UNAVAILABLE, "goes")


@contextmanager
def listening(servicer: pose_pb2_grpc.PoseServiceServicer) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    pose_pb2_grpc.add_PoseServiceServicer_to_server(servicer, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield target
    finally:
        server.stop(None)


def test_an_internal_error_of_the_connection_is_left_behind(service: serving.Service) -> None:
    broken = Broken()
    with listening(broken) as target:
        while not broken.streams:  # clients begin with any of their servers
            with Client(target, service.target) as client, client.stream() as stream:
                stream.send(clip()[0], timestamp_s=100)
                assert next(iter(stream)).poses is not None


def test_an_internal_error_of_the_service_ends_the_stream() -> None:
    with (
        listening(Broken(("reppose-code", "internal"))) as target,
        Client(target) as client,
        client.stream() as stream,
    ):
        stream.send(clip()[0], timestamp_s=100)
        with pytest.raises(ClientError, match="Internal error") as caught:
            list(stream)
        assert caught.value.code == "internal"


def test_a_live_stream_answers_every_frame_once_and_slows_down(service: serving.Service) -> None:
    pace = Pace(Rates(start_hz=50, waited_ms=0))  # so that every frame came too late
    with Client(service.target) as client, client.stream(pace=pace) as stream:
        found = []
        reader = threading.Thread(target=lambda: found.extend(stream))
        reader.start()
        for number in range(400):
            stream.send(clip()[number % FRAMES], timestamp_s=100 + number / RATE_HZ)
        stream.finish()
        reader.join()
    assert [each.sequence for each in found] == list(range(400))
    assert {each.dropped for each in found} <= {None, "superseded"}
    assert found[-1].poses is not None, "the newest frame is never dropped"
    assert stream.pace.rate_hz < 50


def test_a_session_goes_on_under_its_name(service: serving.Service, expected: np.ndarray) -> None:
    answers = []
    with Client(service.target) as client:
        for part in (range(20), range(20, FRAMES)):
            with client.stream(live=False, session="of-the-client") as stream:
                send(stream, part)
                stream.finish()
                answers += stream
    np.testing.assert_array_equal(smoothed(answers), expected)


def test_a_server_that_says_nothing_is_left(service: serving.Service) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # connections are taken, and that is all
        targets = f"127.0.0.1:{silent.getsockname()[1]}", service.target
        with (
            Client(*targets) as client,
            client.stream(live=False, patience=Patience(silence_s=0.5)) as stream,
        ):
            send(stream, range(3))
            stream.finish()
            assert [answer.poses is None for answer in stream] == [False] * 3


def test_a_camera_that_shows_nothing_for_long_outlives_its_server() -> None:
    servicer = Restarted()
    patience = Patience(silence_s=0.1, trouble_s=0.3)  # less than the first connection lasts
    with listening(servicer) as target, Client(target) as client, client.stream(patience=patience) as stream:
        ends_s = time.monotonic() + 30
        while stream.connections < 2 and time.monotonic() < ends_s:
            time.sleep(0.02)
        assert stream.connections == servicer.streams == 2
        assert stream.send(clip()[0], timestamp_s=100) == 0
        servicer.over.set()


def test_the_client_needs_no_server_and_no_runtime() -> None:
    code = """
import sys
absent = ["onnxruntime", "fastapi", "starlette", "uvicorn", "pydantic", "scipy", "prometheus_client", "PIL", "orjson",
          "simplejpeg", "websockets", "torch", "grpc_health", "grpc_reflection"]
sys.modules.update(dict.fromkeys(absent))  # None: an import of it fails
import service.client, service.client.cli
ours = {name for name in sys.modules if name.startswith("service.")}
print(*sorted(name for name in ours if not name.startswith(("service.client", "service.pb"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["service.render", "service.types"]
