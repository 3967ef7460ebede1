"""The edges when something goes wrong inside: both transports over predictors that fail on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry

from service.errors import NotReady, Overloaded, StartupError
from service.health import Readiness
from service.images import ImageLimits
from service.metrics import Metrics
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.registry import Registry
from service.rest import app
from service.rest.schemas import ErrorBody, ErrorResponse
from service.rpc.server import RpcServer
from service.server import Server
from service.settings import (
    BatchSettings,
    DrainSettings,
    GrpcSettings,
    HttpSettings,
    ModelSettings,
    Settings,
)
from service.streams.hub import Hub
from service.streams.store import MemoryStore
from service.streams.token import Signer
from service.watching import Watch

LIMITS = ImageLimits(bytes=1000, pixels=1000, side=100)


class Failing:
    """A predictor whose every answer is this error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def predict(self, *_: Any, **__: Any) -> None:
        raise self._error


def over_http(error: Exception, path: str = "/v1/pose", method: str = "POST") -> httpx.Response:
    metrics = Metrics(CollectorRegistry())
    application = app.build(Failing(error), Registry(), Readiness("loading"), metrics, LIMITS)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(application), base_url="http://test"
        ) as client:
            return await client.request(method, path, content=b"x" if method == "POST" else None)

    return asyncio.run(ask())


def over_grpc(error: Exception, ask: Callable[[pose_pb2_grpc.PoseServiceStub], Any]) -> Any:
    async def test() -> Any:
        failing, metrics = Failing(error), Metrics(CollectorRegistry())
        store, signer = MemoryStore(1, 60), Signer([b"a key for one test"], 60)
        server = RpcServer(
            failing, Hub(failing.predict, Registry(), store, signer, metrics.streams),
            Watch(metrics, log_requests=False), LIMITS, host="127.0.0.1", port=0, stream_frames=2,
        )  # fmt: skip
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                return await ask(pose_pb2_grpc.PoseServiceStub(channel))
        finally:
            await server.stop(1)

    return asyncio.run(test())


def test_a_fault_of_the_service_is_logged_once_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    response = over_http(RuntimeError("secret"))
    assert response.status_code == 500
    error = ErrorResponse.model_validate_json(response.content).error
    assert error.code == "internal"
    assert "secret" not in response.text
    assert len(response.headers["x-request-id"]) == 32
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert [str(record.exc_info[1]) for record in tracebacks] == ["secret"]


@pytest.mark.parametrize(
    ("error", "http", "code"),
    [(Overloaded("later"), 429, "overloaded"), (NotReady("later"), 503, "not_ready")],
)
def test_where_trying_again_helps_the_answer_says_when(error: Exception, http: int, code: str) -> None:
    response = over_http(error)
    assert response.status_code == http
    assert response.headers["retry-after"] == "1"
    assert ErrorResponse.model_validate_json(response.content).error == ErrorBody(code=code, message="later")


def test_before_the_models_are_loaded() -> None:
    ready = over_http(NotReady("unused"), "/healthz/ready", "GET")
    assert (ready.status_code, ready.json()) == (503, {"status": "not_ready", "reason": "loading"})
    assert over_http(NotReady("unused"), "/healthz/live", "GET").status_code == 200
    models = over_http(NotReady("unused"), "/v1/models", "GET")
    assert (models.status_code, models.json()["error"]["code"]) == (503, "not_ready")


def test_a_fault_over_grpc_is_internal(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(stub: pose_pb2_grpc.PoseServiceStub) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Estimate(pb.EstimateRequest(image=b"x"), timeout=30)
        return error.value

    error = over_grpc(RuntimeError("secret"), ask)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["secret"]


def test_a_fault_is_the_answer_to_its_frame_of_a_stream() -> None:
    async def ask(stub: pose_pb2_grpc.PoseServiceStub) -> list[pb.EstimateStreamResponse]:
        requests = (pb.EstimateStreamRequest(sequence=n, frame=pb.EstimateRequest()) for n in range(5))
        return [answer async for answer in stub.EstimateStream(requests, timeout=30)]

    answers = over_grpc(RuntimeError("secret"), ask)
    assert [answer.sequence for answer in answers] == [0, 1, 2, 3, 4]
    assert {(answer.error.status, answer.error.code) for answer in answers} == {(13, "internal")}


def test_the_server_can_be_run_from_code_and_tells_its_ports(tiny_bundle_root: Any) -> None:
    settings = Settings(
        http=HttpSettings(port=0),
        grpc=GrpcSettings(port=0),
        models=ModelSettings(roots=(tiny_bundle_root,), default="tiny"),
        batch=BatchSettings(pin="off"),
    )

    async def test() -> None:
        server = Server(settings)
        assert server.http_port
        assert server.grpc_port
        await server.start()
        async with httpx.AsyncClient(trust_env=False) as client:
            ready = await client.get(f"http://127.0.0.1:{server.http_port}/healthz/ready")
        assert ready.status_code == 200
        assert await server.stop()
        with pytest.raises(StartupError, match="stopping"):
            await server.reload()  # whose models nobody would stop

    asyncio.run(test())


def test_all_that_is_drained_shares_one_time(tiny_bundle_root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that take all they are given leave to the calls what is left, not as much again."""
    given: list[float] = []

    async def slow(_: Hub, timeout_s: float) -> bool:
        given.append(timeout_s)
        await asyncio.sleep(timeout_s)
        return False

    async def stop(server: RpcServer, grace_s: float) -> None:
        given.append(grace_s)
        await stopped(server, grace_s)

    stopped = RpcServer.stop
    monkeypatch.setattr(Hub, "drain", slow)
    monkeypatch.setattr(RpcServer, "stop", stop)
    settings = Settings(
        http=HttpSettings(port=0),
        grpc=GrpcSettings(port=0),
        models=ModelSettings(roots=(tiny_bundle_root,), default="tiny"),
        batch=BatchSettings(pin="off"),
        drain=DrainSettings(timeout_s=1.0),
    )

    async def test() -> None:
        server = Server(settings)
        await server.start()
        assert not await server.stop()

    asyncio.run(test())
    assert len(given) == 2
    assert sum(given) < 1.01
