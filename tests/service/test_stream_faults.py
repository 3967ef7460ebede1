"""What goes wrong around a video, over every way in, on a made clip and on filmed ones with the model that comes along.

The rules of the contract have their own tests (`test_stream`, `test_websocket`, `test_sessions`). Here a stream is
disturbed as networks, clients and operators do, and what it was answered must be what it would have been answered
undisturbed, to the last bit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

import model_zoo
from service.pb.reppose.v1 import pose_pb2 as pb
from service.soak import frames
from tests.service import serving, test_sessions, test_websocket, video

DATA = os.environ.get("POSE_TEST_DATA")
CLIPS = ("one_by_one_person", "sign_walk", "corridor_2people")
FRAMES = 36
FILE, LIVE = pb.STREAM_MODE_FILE, pb.STREAM_MODE_LIVE
KEYS = {"REPPOSE_SESSIONS__TOKEN_KEYS": "a key that all servers have"}


@dataclass(frozen=True)
class Film:
    """A clip, and the model that looks at it."""

    folder: Path
    pictures: list[bytes]
    root: Path
    model: str

    @contextmanager
    def served(self, **environment: str) -> Iterator[serving.Service]:
        """A service that may be stopped or killed meanwhile."""
        service = serving.Service(
            self.root,
            REPPOSE_MODELS__DEFAULT=self.model,
            REPPOSE_LOG__REQUESTS="false",
            **KEYS,
            **environment,
        )
        try:
            service.wait_for("ready")
            yield service
        finally:
            service.process.kill()
            service.ended()

    def frame(self, number: int, data: bytes | None = None, **fields: object) -> pb.EstimateStreamRequest:
        """For gRPC."""
        return video.frame(number, self.pictures[number % FRAMES] if data is None else data, **fields)

    def message(self, number: int, data: bytes | None = None, time_s: float | None = None) -> bytes:
        """For the WebSocket."""
        picture = self.pictures[number % FRAMES] if data is None else data
        return test_websocket.frame(number, picture, time_s)


@pytest.fixture(scope="module", params=["made", *CLIPS])
def film(
    request: pytest.FixtureRequest, tiny_bundle_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Film:
    folder = tmp_path_factory.mktemp("film")
    if request.param == "made":
        pictures = list(video.clip(FRAMES))
        root, model = tiny_bundle_root, "tiny"
    else:
        if not DATA:
            pytest.skip("POSE_TEST_DATA does not name the folder that has the clips in video/")
        (folder / "clip").mkdir()
        source = folder / "clip" / "filmed.mp4"
        source.symlink_to(Path(DATA) / "video" / f"{request.param}.mp4")
        (shown,) = frames.write(folder, folder / "clip")
        pictures = frames.read(shown)[:FRAMES]
        root, model = Path(model_zoo.__file__).parent / "bundles", "body19-small"
    assert len(pictures) == FRAMES
    for number, picture in enumerate(pictures):
        (folder / f"{number:04}").write_bytes(picture)
    return Film(folder, pictures, root, model)


@pytest.fixture(scope="module")
def service(film: Film) -> Iterator[serving.Service]:
    """One that nobody harms."""
    with film.served(REPPOSE_STREAMS__IDLE_S="3", REPPOSE_SESSIONS__IDLE_S="3") as running:
        yield running


@pytest.fixture(scope="module")
def whole(film: Film, service: serving.Service) -> list[bytes]:
    """What the undisturbed stream is answered."""
    answers, error = video.stream(service.target, [video.config(mode=FILE), *map(film.frame, range(FRAMES))])
    assert error is None
    return [video.facts(each) for each in answers[1:]]


@pytest.fixture(scope="module")
def whole_json(film: Film, service: serving.Service) -> list[str]:
    """The same over the WebSocket."""
    answers = test_websocket.file(service, map(film.message, range(FRAMES)))
    return [test_websocket.facts(each) for each in answers]


def test_people_are_followed(film: Film, whole: list[bytes]) -> None:
    """Or nothing of what follows would say much."""
    followed = [pb.EstimateStreamResponse.FromString(each).tracked.tracks for each in whole]
    assert sum(any(track.id for track in tracks) for tracks in followed) > FRAMES // 2


def broken(picture: bytes, kind: str) -> bytes:
    return {
        "garbage": video.GARBAGE,
        "empty": b"",
        "half": picture[: len(picture) // 2],
        "text": b'{"end": true}',
    }[kind]


KINDS = ("garbage", "empty", "half", "text")


def test_garbage_in_the_middle_is_its_own_error(
    film: Film, service: serving.Service, whole: list[bytes]
) -> None:
    messages = [video.config(mode=FILE)]
    wrong = {}
    for number in range(FRAMES):
        place = 2 * number
        messages.append(film.frame(place, film.pictures[number], timestamp_s=100 + number / video.RATE_HZ))
        if number % 5 == 2:
            kind = KINDS[number // 5 % len(KINDS)]
            data = broken(film.pictures[number], kind)
            wrong[place + 1] = kind
            messages.append(film.frame(place + 1, data, timestamp_s=100 + (number + 0.5) / video.RATE_HZ))
    answers, error = video.stream(service.target, messages)
    assert error is None
    failed = {each.sequence: each.error.code for each in answers if each.HasField("error")}
    assert failed == dict.fromkeys(wrong, "invalid_image")
    good = [each for each in answers[1:] if each.HasField("tracked")]
    for number, each in enumerate(good):
        each.sequence = number
    assert [video.facts(each) for each in good] == whole


def test_times_that_go_back_are_errors_of_their_frames(
    film: Film, service: serving.Service, whole_json: list[str]
) -> None:
    def sent() -> Iterator[bytes]:
        for number in range(FRAMES):
            yield film.message(2 * number, film.pictures[number], 100 + number / video.RATE_HZ)
            if number % 7 == 3:
                yield film.message(2 * number + 1, film.pictures[number], 99.5 + number / video.RATE_HZ)

    answers = test_websocket.file(service, sent())
    errors = [each["error"] for each in answers if "error" in each]
    assert len(errors) == len([number for number in range(FRAMES) if number % 7 == 3])
    assert {(each["code"], each["field"]) for each in errors} == {("invalid_request", "timestamp_s")}
    good = [each | {"sequence": each["sequence"] // 2} for each in answers if "tracked" in each]
    assert [test_websocket.facts(each) for each in good] == whole_json


def test_a_clock_that_is_set_back_ends_the_stream_and_leaves_what_was(
    film: Film, service: serving.Service, whole: list[bytes]
) -> None:
    config = video.config(mode=FILE, session="set-back")
    answers, error = video.stream(
        service.target, [config, *map(film.frame, range(10)), film.frame(10, timestamp_s=1.0)]
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    again, error = video.stream(service.target, [config, *map(film.frame, range(10, FRAMES))])
    assert error is None
    assert [video.facts(each) for each in answers[1:] + again[1:]] == whole


@pytest.mark.parametrize("mode", [FILE, LIVE])
def test_a_server_that_is_stopped(
    mode: int, film: Film, service: serving.Service, whole: list[bytes]
) -> None:
    with film.served() as victim:
        with video.Call(victim.target, video.config(mode=mode)) as call:
            call.read()
            begun = [call.ask(film.frame(number)) for number in range(12)]
            victim.terminate()
            answers, error = call.rest()
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert victim.ended() == 0
    assert answers[-1].sequence == 11
    token = answers[-1].closing.resume_token
    again, error = video.stream(
        service.target,
        [video.config(mode=FILE, resume_token=token), *map(film.frame, range(12, FRAMES))],
    )
    assert error is None
    assert [video.facts(each) for each in begun + again[1:]] == whole


def test_a_server_that_is_killed(film: Film, service: serving.Service, whole: list[bytes]) -> None:
    with film.served() as victim, video.Call(victim.target, video.config(mode=FILE)) as call:
        call.read()
        begun = [call.ask(film.frame(number, want_token=number == 8)) for number in range(12)]
        victim.process.kill()
        _, error = call.rest()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    token = begun[8].tracked.resume_token
    again, error = video.stream(
        service.target,
        [video.config(mode=FILE, resume_token=token), *map(film.frame, range(9, FRAMES))],
    )
    assert error is None
    assert [video.facts(each) for each in begun[:9] + again[1:]] == whole


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_browser_whose_server_ends(
    end: signal.Signals, film: Film, service: serving.Service, whole_json: list[str]
) -> None:
    """It goes on by its last token, as one HTTP request after the other."""
    with film.served() as victim, test_websocket.opened(victim, {"mode": "live"}) as socket:
        test_websocket.read(socket)
        begun, token = [], ""
        for number in range(9):
            socket.send(json.dumps({"next": {"want_token": True}}))
            socket.send(film.message(number))
            begun.append(test_websocket.read(socket))
            token = begun[-1]["tracked"].pop("resume_token")
        victim.process.send_signal(end)
        if end is signal.SIGTERM:
            found, code, _ = test_websocket.rest(socket)
            assert code == 1012
            token = found[-2]["closing"]["resume_token"]
    answers = list(map(test_websocket.facts, begun))
    for number in range(9, 16):
        query = {"token": token} if number == 9 else {}
        response = test_sessions.post(
            service, f"browser-{end.name}", number, film.pictures[number], media="image/jpeg", **query
        )
        answer = response.json()
        answers.append(test_websocket.facts({"sequence": answer["sequence"], "tracked": answer}))
    assert answers == whole_json[:16]


FROZEN = """
import sys
from pathlib import Path
from tests.service import video
target, session, folder, count = sys.argv[1:]
pictures = [path.read_bytes() for path in sorted(Path(folder).glob("[0-9]*"))]
with video.Call(target, video.config(session=session, mode=2)) as call:
    call.read()
    for number in range(int(count)):
        call.ask(video.frame(number, pictures[number]))
    for number in range(int(count), len(pictures)):
        call.send(video.frame(number, pictures[number]))
    print("open", flush=True)
    sys.stdin.read()
"""


@contextmanager
def frozen(film: Film, service: serving.Service, session: str, count: int) -> Iterator[None]:
    """A client that hangs, with frames under way: its kernel goes on, and nobody says goodbye."""
    command = [sys.executable, "-c", FROZEN, service.target, session, str(film.folder), str(count)]
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert client.stdout.readline() == "open\n"
        os.kill(client.pid, signal.SIGSTOP)
        yield
    finally:
        client.kill()
        client.communicate()


def test_who_hangs_is_forgotten(film: Film, service: serving.Service) -> None:
    assert pb.STREAM_MODE_FILE == 2
    with frozen(film, service, "hangs", 4):
        video.until(service, 'reppose_streams{transport="grpc"}', 1)
        video.until(service, 'reppose_streams{transport="grpc"}', 0)
        video.until(service, "reppose_sessions", 0)


def test_who_hangs_and_comes_back_goes_on(film: Film, service: serving.Service, whole: list[bytes]) -> None:
    """Without waiting until the service has noticed."""
    with (
        frozen(film, service, "comes-back", 6),
        video.Call(service.target, video.config(session="comes-back", mode=FILE)) as call,
    ):
        last = call.read().opened.last_sequence
        assert last >= 5
        again = [video.facts(call.ask(film.frame(number))) for number in range(last + 1, FRAMES)]
    assert again == whole[last + 1 :]


def _slow_grpc(film: Film, service: serving.Service, count: int) -> list[tuple[int, bool]]:
    with video.Call(service.target, video.config(), *map(film.frame, range(count))) as call:
        call.end()
        call.read()
        found = []
        for answer in call.call:
            found.append((answer.sequence, answer.HasField("tracked")))
            time.sleep(0.01)
        return found


def _slow_websocket(film: Film, service: serving.Service, count: int) -> list[tuple[int, bool]]:
    sent = *map(film.message, range(count)), {"end": True}
    with test_websocket.opened(service, {}, *sent) as socket:
        test_websocket.read(socket)
        found = []
        while len(found) < count:
            answer = test_websocket.read(socket)
            found.append((answer["sequence"], "tracked" in answer))
            time.sleep(0.01)
        return found


@pytest.mark.parametrize("ask", [_slow_grpc, _slow_websocket])
def test_who_reads_slowly_hears_of_every_frame(
    ask: Callable[[Film, serving.Service, int], list[tuple[int, bool]]], film: Film, service: serving.Service
) -> None:
    count = 2 * FRAMES
    found = ask(film, service, count)
    assert [sequence for sequence, _ in found] == list(range(count))
    assert any(answered for _, answered in found)
