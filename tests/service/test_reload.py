"""SIGHUP reads the bundles again: models come and go, and no request notices."""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from model_zoo.bundle import Bundle
from service import runner
from service.batcher import Batcher
from service.core import build_core
from service.errors import StartupError
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.registry import Registry, ServedModel
from service.rest.schemas import ErrorResponse
from service.settings import BatchSettings, ModelSettings, Settings
from service.types import Frame, Options
from tests import tiny_model
from tests.service import serving
from tests.service.conftest import Scene


def opened(bundle: Bundle) -> ServedModel:
    return ServedModel(bundle, batcher=None)  # nobody asks it anything here


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that a test may change: `tiny` in versions 1 and 2."""
    for version in ("1", "2"):
        tiny_model.write(tmp_path, version=version)
    return tmp_path


def test_what_is_unchanged_stays_and_what_changed_is_opened_again(root: Path) -> None:
    registry = Registry()
    registry.load([root], "tiny", opened)
    before = {each.reference: each for each in registry}
    shutil.rmtree(root / "tiny" / "2")
    tiny_model.write(root, version="2", description="another")
    tiny_model.write(root, version="3")
    lineup = registry.prepare([root], "tiny", opened)
    assert registry.default is before["tiny@2"]  # until the swap
    assert registry.swap(lineup) == [before["tiny@2"]]
    assert registry.get("tiny@1") is before["tiny@1"]
    assert registry.get("tiny@2").manifest.description == "another"
    assert registry.default.reference == "tiny@3"


def test_a_failure_changes_nothing(root: Path) -> None:
    registry = Registry()
    registry.load([root], "tiny@2", opened)
    before = list(registry)
    shutil.rmtree(root / "tiny" / "2")
    with pytest.raises(StartupError, match="default model is missing"):
        registry.load([root], "tiny@2", opened)
    (root / "tiny" / "1" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(StartupError):
        registry.load([root], "tiny", opened)
    assert list(registry) == before
    assert registry.default.reference == "tiny@2"


def test_a_version_that_comes_while_others_load_waits_for_the_next_time(root: Path) -> None:
    """Or a name would mean a model that nobody serves."""

    def installs(found: Bundle) -> ServedModel:
        if not (root / "tiny" / "3").exists():
            tiny_model.write(root, version="3")
        return opened(found)

    registry = Registry()
    registry.load([root], "tiny", installs)
    assert registry.get("tiny").reference == "tiny@2"
    registry.load([root], "tiny", opened)
    assert registry.get("tiny").reference == "tiny@3"


@pytest.mark.parametrize("mode", ["fused", "pipelined"])
def test_a_model_that_does_not_start_leaves_no_thread_of_the_others(
    mode: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it fails when it is loaded or when its workers are opened."""

    async def load() -> None:
        core = build_core(Settings())
        settings = Settings(
            models=ModelSettings(roots=(root,), default="tiny"), batch=BatchSettings(workers=2, mode=mode)
        )
        before = set(threading.enumerate())
        for broken, place in ((runner, "load"), (Batcher, "start")):
            real, calls = getattr(broken, place), []

            def fails(*given: Any, real: Any = real, calls: list[Any] = calls, **named: Any) -> Any:
                calls.append(given)
                if len(calls) == 2:
                    raise StartupError("the second cannot")
                return real(*given, **named)

            with monkeypatch.context() as patched:
                patched.setattr(broken, place, fails)
                with pytest.raises(StartupError, match="the second cannot"):
                    await core.load(settings)
            assert len(calls) == 2
            assert not list(core.registry)
            deadline = time.monotonic() + 30
            while left := {each for each in threading.enumerate() if each.name.startswith("tiny")} - before:
                assert time.monotonic() < deadline, left
                await asyncio.sleep(0.01)
        await core.load(settings)
        assert {each for each in threading.enumerate() if each.name.startswith("tiny")}
        await core.stop(30)

    asyncio.run(load())


def versions(service: serving.Service) -> list[str]:
    return [each["version"] for each in serving.get(service, "/v1/models").json()["models"]]


class Clients:
    """One thread that posts and one that streams, until they are told to stop."""

    def __init__(self, service: serving.Service, data: bytes) -> None:
        self._service, self._data = service, data
        self._stop = threading.Event()
        self.answers: list[str] = []
        self._threads = [threading.Thread(target=each) for each in (self._post, self._stream)]
        for thread in self._threads:
            thread.start()

    def _post(self) -> None:
        while not self._stop.is_set():
            response = serving.post(self._service, self._data)
            if response.status_code != 429:  # the stream fills the small queue; who is refused asks again
                self.answers.append(response.json()["version"] if response.is_success else response.text)

    def _stream(self) -> None:
        def frames() -> Iterator[pb.EstimateStreamRequest]:
            while not self._stop.is_set():
                yield pb.EstimateStreamRequest(frame=pb.EstimateRequest(image=self._data))

        with grpc.insecure_channel(self._service.target) as channel:
            for answer in pose_pb2_grpc.PoseServiceStub(channel).EstimateStream(frames()):
                self.answers.append(answer.prediction.version or str(answer.error))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("mode", ["fused", "pipelined"])
def test_a_model_that_left_gives_its_memory_back_at_once(
    mode: str, root: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph may hold hundreds of megabytes; nobody should have to wait for a collection of circles."""
    load, graphs = runner.load, []

    def remembered(*arguments: Any) -> runner.Runner:
        loaded = load(*arguments)
        graphs.append(weakref.ref(loaded))
        return loaded

    async def test() -> None:
        models = ModelSettings(roots=(root,), default="tiny@1")
        chosen = Settings(models=models, batch=BatchSettings(mode=mode, workers=2, pin="off"))
        core = build_core(chosen)
        await core.load(chosen)
        await core.predictor.predict(Frame(scene.png), Options())
        shutil.rmtree(root / "tiny" / "1")
        tiny_model.write(root, description="another")
        await core.load(chosen)
        async with asyncio.timeout(20):
            while [each() is None for each in graphs] != [True, False, False]:
                await asyncio.sleep(0.01)  # threads that had it may be on their last lines
        assert await core.stop(20)

    monkeypatch.setattr(runner, "load", remembered)
    gc.collect()
    gc.disable()
    try:
        asyncio.run(test())
    finally:
        gc.enable()


TOKEN = "a-token-that-nobody-guesses"
ADMIN = {"REPPOSE_ADMIN__ENABLED": "true", "REPPOSE_ADMIN__TOKEN": TOKEN}


def ask_to_reload(service: serving.Service, authorization: str | None = f"Bearer {TOKEN}") -> httpx.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    url = f"{service.url}/v1/admin/reload"
    return httpx.post(url, headers=headers, trust_env=False, timeout=60)


@pytest.mark.parametrize("by", ["signal", "request"])
def test_models_are_swapped_under_load(by: str, root: Path, scene: Scene) -> None:
    quiet = {"REPPOSE_BATCH__QUEUE": "4", "REPPOSE_LOG__REQUESTS": "false"}
    with serving.running(root, **quiet, **ADMIN) as service:
        clients = Clients(service, scene.png)
        try:
            shutil.rmtree(root / "tiny" / "2")
            tiny_model.write(root, version="3")
            if by == "signal":
                service.terminate(signal.SIGHUP)
            else:
                answer = ask_to_reload(service)
                assert answer.json() == serving.get(service, "/v1/models").json()
                assert [each["version"] for each in answer.json()["models"]] == ["1", "3"]
            service.wait_for("reloaded")
        finally:
            clients.stop()
        assert set(clients.answers) <= {"2", "3"}, clients.answers
        assert versions(service) == ["1", "3"]
        assert serving.post(service, scene.png).json()["version"] == "3"
        assert serving.post(service, scene.png, model="tiny@2").json()["error"]["code"] == "unknown_model"
        metrics = serving.get(service, "/metrics").text
        assert 'reppose_reloads_total{outcome="ok"} 1.0' in metrics
        assert 'reppose_model_info{default="true",model="tiny",skeleton="body19",version="3"} 1.0' in metrics
        for name in ("queue_depth", "model_load_seconds", "model_memory_bytes"):
            assert f'reppose_{name}{{model="tiny@3"}}' in metrics
            assert f'reppose_{name}{{model="tiny@2"}}' not in metrics


def test_a_broken_bundle_leaves_the_old_models_at_work(root: Path, scene: Scene) -> None:
    with serving.running(root, **ADMIN) as service:
        (root / "tiny" / "2" / "model.onnx").write_bytes(b"broken")
        service.terminate(signal.SIGHUP)
        service.wait_for("not reloaded, the models stay as they are")
        answer = ask_to_reload(service)
        error = ErrorResponse.model_validate_json(answer.content).error
        assert (answer.status_code, error.code) == (409, "reload_failed")
        assert "model.onnx: 6 bytes instead of" in error.message
        assert serving.post(service, scene.png).json()["version"] == "2"
        assert versions(service) == ["1", "2"]
        assert 'reppose_reloads_total{outcome="failed"} 2.0' in serving.get(service, "/metrics").text
        assert serving.get(service, "/healthz/ready").status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "B\u00e9",
    ],
)
def test_only_who_has_the_token_may_reload(admin: serving.Service, authorization: str | None) -> None:
    encoded = authorization and authorization.encode("latin-1")
    answer = ask_to_reload(admin, encoded)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="reppose"')
    assert ErrorResponse.model_validate_json(answer.content).error.code == "unauthenticated"
    assert "reloaded" not in admin.text


@pytest.fixture(scope="module")
def admin(tiny_bundle_root: Path) -> Iterator[serving.Service]:
    """A service with the routes of an operator."""
    with serving.running(tiny_bundle_root, **ADMIN) as service:
        yield service


def test_the_token_is_never_written(admin: serving.Service) -> None:
    ask_to_reload(admin, "Bearer wrong")
    assert TOKEN not in admin.text
    assert TOKEN not in serving.get(admin, "/openapi.json").text


def test_without_leave_nobody_may_reload(service: serving.Service) -> None:
    answer = ask_to_reload(service)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "/v1/admin/reload" not in serving.get(service, "/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    "token", ["", "short", "has spaces in its middle", "not ascii \u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"]
)
def test_a_token_that_protects_nothing_ends_the_start(token: str, root: Path) -> None:
    service = serving.Service(root, **ADMIN | {"REPPOSE_ADMIN__TOKEN": token})
    assert service.ended() == 1
    assert ("token must hold 16 or more" if token else "enabled needs a token") in service.text
    assert not token or token not in service.text
