"""Two servers over one Redis: sessions move between them, and neither overwrites the other."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest

from service.pb.reppose.v1 import pose_pb2 as pb
from tests.service import serving, test_sessions, video
from tests.service.video import Call, config, facts, frame

redis = pytest.importorskip("redis")
FILE = pb.STREAM_MODE_FILE


def shared(url: str, **more: str) -> dict[str, str]:
    return {"REPPOSE_SESSIONS__STORE_URL": url, "REPPOSE_STREAMS__SAVE_S": "0.2"} | more


def test_a_session_whose_server_was_killed_goes_on_from_what_was_saved(
    redis_server, tiny_bundle_root: Path
) -> None:
    with serving.running(tiny_bundle_root, **shared(redis_server.url)) as other:
        whole, _ = video.stream(other.target, [config(mode=FILE), *map(frame, range(20))])
        service = serving.Service(tiny_bundle_root, **shared(redis_server.url))
        try:
            service.wait_for("ready")
            with Call(service.target, config(mode=FILE, session="killed")) as call:
                call.read()
                begun = [call.ask(frame(number)) for number in range(8)]
                with redis.Redis.from_url(redis_server.url) as store:
                    while not store.keys("*:killed"):
                        time.sleep(0.02)
                service.process.kill()
        finally:
            service.process.kill()
            service.ended()
        with Call(other.target, config(mode=FILE, session="killed")) as call:
            last = call.read().opened.last_sequence
            assert 0 <= last < 8
            again = [call.ask(frame(number)) for number in range(last + 1, 20)]
        assert [facts(each) for each in begun[: last + 1] + again] == [facts(each) for each in whole[1:]]


def test_a_stream_ends_whose_session_was_continued_on_another_server(
    redis_server, tiny_bundle_root: Path
) -> None:
    settings = shared(redis_server.url)
    with (
        serving.running(tiny_bundle_root, **settings) as one,
        serving.running(tiny_bundle_root, **settings) as other,
    ):
        assert test_sessions.post(other, "moved", 0).status_code == 200
        with Call(one.target, config(mode=FILE, session="moved")) as call:
            assert call.read().opened.last_sequence == 0
            assert call.ask(frame(1)).HasField("tracked")
            answer = test_sessions.post(other, "moved", 10)
            while answer.status_code == 409:  # it was being saved at that moment
                answer = test_sessions.post(other, "moved", 10)
            assert answer.status_code == 200
            _, error = call.rest()
            assert error.code() is grpc.StatusCode.ABORTED
            assert dict(error.trailing_metadata())["reppose-code"] == "session_conflict"
        assert test_sessions.post(other, "moved", 11).json()["session"]["last_sequence"] == 10


def test_streams_go_on_without_the_store(own_redis, tiny_bundle_root: Path) -> None:
    settings = shared(own_redis.url, REPPOSE_SESSIONS__STORE_TIMEOUT_S="0.2")
    with (
        serving.running(tiny_bundle_root, **settings) as service,
        Call(service.target, config(mode=FILE, session="goes-on")) as call,
    ):
        call.read()
        assert call.ask(frame(0)).HasField("tracked")
        own_redis.stop()
        service.wait_for("sessions were not saved")
        assert call.ask(frame(1)).HasField("tracked")
        refused = test_sessions.post(service, "new")
        assert test_sessions.fault(refused) == (503, "store_unavailable", None)
        with Call(service.target, config(session="new")) as new:
            _, error = new.rest()
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        call.end()
        answers, error = call.rest()
        assert (answers, error) == ([], None)
