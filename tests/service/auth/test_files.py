"""Credentials that change while the service runs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest

from service.auth.files import Files
from service.auth.guard import Guard
from service.auth.keys import Keys
from service.auth.roles import Role
from service.errors import BadCredentialFile, Unauthenticated
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests.service import serving, test_websocket, video
from tests.service.auth.credentials import STRANGER, Credentials, bearer, jwk, key_set, token

WAIT_S = 20


def knows(guard: Guard, key: str) -> bool:
    try:
        guard.admit(key, Role.PREDICT)
    except Unauthenticated:
        return False
    return True


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def status(service: serving.Service, credential: str | None) -> int:
    return httpx.get(f"{service.url}/v1/models", headers=bearer(credential), trust_env=False).status_code


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path)


def test_a_file_behind_a_link_that_is_turned(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted secret."""
    guard, outcomes = Guard(open_to_all=frozenset()), []
    made = []
    for number in range(2):
        (tmp_path / f"data-{number}").mkdir()
        each = Credentials(tmp_path / f"data-{number}")
        made.append(each.key("somebody"))
    (tmp_path / "now").symlink_to("data-0")

    async def test() -> None:
        files = Files(guard, {tmp_path / "now" / "keys.toml": Keys}, (), 0.01, outcomes.append)
        files.start()
        assert [knows(guard, key) for key in made] == [True, False]
        (tmp_path / "next").symlink_to("data-1")
        os.replace(tmp_path / "next", tmp_path / "now")
        while not knows(guard, made[1]):
            await asyncio.sleep(0.01)
        assert [knows(guard, key) for key in made] == [False, True]
        await files.stop()

    asyncio.run(asyncio.wait_for(test(), WAIT_S))
    assert outcomes == ["ok"]


@pytest.mark.parametrize("broken", [b"[[key", b"\xff", None, b"#" * (16 * 1024 * 1024 + 1)])
def test_a_broken_file_ends_the_start_and_changes_nothing_later(
    broken: bytes | None, credentials: Credentials, caplog: pytest.LogCaptureFixture
) -> None:
    key = credentials.key("somebody")
    guard, outcomes = Guard(open_to_all=frozenset()), []
    files = Files(guard, {credentials.key_file: Keys}, (), 1, outcomes.append)
    good = credentials.key_file.read_bytes()
    if broken is None:
        credentials.key_file.unlink()
    else:
        credentials.key_file.write_bytes(broken)
    files.reread()
    assert knows(guard, key)
    assert "credentials not read" in caplog.text
    with pytest.raises(BadCredentialFile, match=r"keys\.toml"):
        Files(Guard(), {credentials.key_file: Keys})
    credentials.key_file.write_bytes(good)
    files.reread()
    assert outcomes == ["failed", "ok"]


def test_keys_come_and_go_while_the_service_runs(credentials: Credentials, tiny_bundle_root: Path) -> None:
    first = credentials.key("first")
    with serving.running(tiny_bundle_root, **credentials.settings) as service:
        assert status(service, first) == 200
        assert status(service, token()) == 200
        second = credentials.key("second")
        wait_until(lambda: status(service, second) == 200)
        text = credentials.key_file.read_text()
        credentials.key_file.write_text("broken")
        service.wait_for("credentials not read, those before stay")
        assert [status(service, each) for each in (first, second)] == [200, 200]
        credentials.key_file.write_text(text[text.index("[[key]]", 1) :])  # the first is revoked
        wait_until(lambda: status(service, first) == 401)
        assert status(service, second) == 200
        credentials.jwks_file.write_text(key_set(jwk(STRANGER)))
        wait_until(lambda: status(service, token()) == 401)
        assert status(service, token(by=STRANGER)) == 200
        metrics = serving.get(service, "/metrics")
        assert metrics.status_code == 401
        watcher = credentials.key("watcher", Role.METRICS)
        service.terminate(signal.SIGHUP)
        service.wait_for("reloaded")
        counted = httpx.get(f"{service.url}/metrics", headers=bearer(watcher), trust_env=False).text
        assert 'reppose_credential_rereads_total{outcome="failed"}' in counted
        assert 'reppose_access_refused_total{reason="no_credential"} 1.0' in counted


def test_streams_end_when_their_key_is_revoked(credentials: Credentials, tiny_bundle_root: Path) -> None:
    key = credentials.key("camera")
    credentials.key("other")
    text = credentials.key_file.read_text()
    with serving.running(tiny_bundle_root, **credentials.settings) as service:
        metadata = [("authorization", f"Bearer {key}")]
        with (
            test_websocket.opened(service, {"mode": "file"}, additional_headers=bearer(key)) as socket,
            grpc.insecure_channel(service.target) as channel,
        ):
            assert "opened" in test_websocket.read(socket)
            socket.send(test_websocket.frame(0))
            assert "tracked" in test_websocket.read(socket)
            stub = pose_pb2_grpc.PoseServiceStub(channel)
            messages: list[pb.EstimateStreamRequest] = [video.config(mode=pb.STREAM_MODE_FILE)]
            sent = iter_of(messages)
            call = stub.EstimateStream(sent, metadata=metadata, timeout=60)
            assert next(call).HasField("opened")
            messages.append(video.frame(0))
            assert next(call).HasField("tracked")
            credentials.key_file.write_text(text[text.index("[[key]]", 1) :])
            wait_until(lambda: status(service, key) == 401)
            socket.send(test_websocket.frame(1))
            answers, code, _ = test_websocket.rest(socket)
            assert code == 4401
            assert answers[-1]["error"]["code"] == "unauthenticated"
            messages.append(video.frame(1))
            with pytest.raises(grpc.RpcError):
                next(call)
            assert call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert dict(call.trailing_metadata())["reppose-code"] == "unauthenticated"


def iter_of(messages: list[pb.EstimateStreamRequest]):
    """What is put into the list, for as long as anybody asks."""
    given = 0
    while True:
        if given < len(messages):
            yield messages[given]
            given += 1
        else:
            time.sleep(0.01)


def test_without_the_extra_tokens_are_no_choice(
    credentials: Credentials, tiny_bundle_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "jwt").mkdir()
    (tmp_path / "jwt" / "__init__.py").write_text("raise ImportError('not installed')")
    credentials.key("somebody")
    service = serving.Service(tiny_bundle_root, **credentials.settings, PYTHONPATH=str(tmp_path))
    assert service.ended() == 1
    assert "pip install 'reppose[auth]'" in service.text
