"""The client shows its key, waits where it is told to, and shows another one when the first has expired."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli import cli
from service.client import Client, ClientError
from tests.service import serving
from tests.service.auth.credentials import Credentials, token
from tests.service.client.test_video import client as command
from tests.service.conftest import Scene
from tests.service.video import RATE_HZ, clip


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Credentials(tmp_path_factory.mktemp("credentials"))


@pytest.fixture(scope="module")
def keys(credentials: Credentials) -> dict[str, str]:
    return {
        "good": credentials.key("good"),
        "slow": credentials.key("slow", frames_per_s=1e-3, frames_burst=1),
    }


@pytest.fixture(scope="module")
def guarded(
    credentials: Credentials, keys: dict[str, str], tiny_bundle_root: Path
) -> Iterator[serving.Service]:
    with serving.running(tiny_bundle_root, **credentials.settings) as service:
        yield service


def test_a_key_opens_calls_and_streams(guarded: serving.Service, keys: dict[str, str], scene: Scene) -> None:
    with Client(guarded.target, key=keys["good"]) as client:
        assert client.estimate(scene.png).people
        with client.stream(live=False, session="mine") as stream:
            for number in range(3):
                stream.send(clip()[number], timestamp_s=number / RATE_HZ)
            stream.finish()
            assert [answer.error for answer in stream] == [None] * 3
    with Client(guarded.target) as client:
        with pytest.raises(ClientError, match="Authorization") as caught:
            client.estimate(scene.png)
        assert (caught.value.code, caught.value.status) == (
            "unauthenticated",
            grpc.StatusCode.UNAUTHENTICATED,
        )
        with client.stream(live=False) as stream, pytest.raises(ClientError, match="Authorization"):
            next(iter(stream))


def test_who_asks_too_often_is_told_when_to_come_back(
    guarded: serving.Service, keys: dict[str, str], scene: Scene
) -> None:
    with Client(guarded.target, key=keys["slow"]) as client:
        client.estimate(scene.png)
        with pytest.raises(ClientError) as caught:
            client.estimate(scene.png)
        assert caught.value.code == "rate_limited"
        assert 900 < caught.value.retry_after_s <= 1000


def test_a_camera_that_is_refused_slows_down(guarded: serving.Service, keys: dict[str, str]) -> None:
    with Client(guarded.target, key=keys["slow"]) as client, client.stream() as stream:
        before = stream.pace.rate_hz
        stream.send(clip()[0])
        answer = next(iter(stream))
        assert answer.error.code == "rate_limited"
        assert stream.pace.rate_hz < before


def test_a_stream_outlives_its_token(guarded: serving.Service) -> None:
    given = []

    def present() -> str:
        given.append(token("camera", exp=int(time.time()) + 2))
        return given[-1]

    with Client(guarded.target, key=present) as client, client.stream(live=False) as stream:
        answers = iter(stream)
        sent = 0
        deadline_s = time.monotonic() + 60
        while stream.connections < 2:
            assert time.monotonic() < deadline_s
            stream.send(clip()[sent % len(clip())], timestamp_s=sent / RATE_HZ)
            answer = next(answers)
            assert (answer.sequence, answer.error) == (sent, None)
            sent += 1
            time.sleep(0.05)
    assert len(given) >= 2


def test_the_command_reads_its_key(
    guarded: serving.Service, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    film = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"mp4v"), 30, (320, 260))
    for data in clip()[:3]:
        writer.write(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    asked = (film, "--points", tmp_path / "points.jsonl", "--server", guarded.target, "--no-progress")
    monkeypatch.delenv("REPPOSE_CLIENT_KEY", raising=False)
    refused = command(*asked)
    assert refused.returncode == 1
    assert "Authorization" in refused.stderr
    (tmp_path / "key").write_text(keys["good"] + "\n")
    let_in = command(*asked, "--key-file", tmp_path / "key")
    assert let_in.returncode == 0, let_in.stderr
    assert len((tmp_path / "points.jsonl").read_text().splitlines()) == 3
    monkeypatch.setenv("REPPOSE_CLIENT_KEY", keys["good"])
    let_in = command(*asked)
    assert let_in.returncode == 0, let_in.stderr
    (tmp_path / "key").write_bytes(b"\xff")
    wrong = command(*asked, "--key-file", tmp_path / "key")
    assert (wrong.returncode, "holds no key" in wrong.stderr) == (1, True)


def test_the_demo_reads_its_key(
    guarded: serving.Service, keys: dict[str, str], tmp_path: Path, scene: Scene
) -> None:
    (tmp_path / "photo.png").write_bytes(scene.png)
    (tmp_path / "key").write_text(keys["good"])
    asked = ["demo", str(tmp_path / "photo.png"), "--url", guarded.url, "--out", str(tmp_path / "pose.png")]
    refused = CliRunner().invoke(cli, asked)
    assert (refused.exit_code, "answered 401" in refused.stderr) == (1, True)
    assert CliRunner().invoke(cli, [*asked, "--key-file", str(tmp_path / "key")]).exit_code == 0
    assert (tmp_path / "pose.png").read_bytes().startswith(b"\x89PNG")
