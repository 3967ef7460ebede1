"""Every way into the service with every kind of credential, over real sockets.

What there is to ask is read from the objects that serve it, so that a path, a call or a layer that is added later is in
the matrix, or fails here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIRouter, APIWebSocketRoute
from prometheus_client import CollectorRegistry
from starlette.routing import Route
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service.auth import roles
from service.auth.guard import Guard
from service.auth.keys import Keys
from service.auth.roles import Role
from service.health import Readiness
from service.images import ImageLimits
from service.metrics import Metrics
from service.registry import Registry
from service.rest import app, pose
from service.rpc.access import Access
from service.server import Server
from service.settings import AdminSettings, GrpcSettings, HttpSettings, ModelSettings, Settings
from tests.service import serving
from tests.service.auth.credentials import Credentials, bearer

ADMIN_TOKEN = "a-token-of-the-operator"
BARE = {"_AroundRequests": {}, "PoseFirst": {pose.NAME: ("POST", pose.PATH)}, "FastAPI": {}}
"""The layers of the application, and the paths that each answers by itself. A layer that is not listed here must be."""
REFUSED = {"none": 401, "bad": 401, "unknown": 401, "expired": 401, "wrong role": 403, "good": None}
REFUSED_RPC = {
    case: {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED}.get(http)
    for case, http in REFUSED.items()
}


@dataclass(frozen=True)
class Ways:
    """Every way into a service with everything switched on."""

    http: frozenset[tuple[str, str, str]]
    """(name, method, path)."""
    websocket: frozenset[tuple[str, str]]
    rpc: frozenset[tuple[str, str]]
    """(service, call)."""
    layers: tuple[str, ...]


@pytest.fixture(scope="module")
def ways(tiny_bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    """Read from a server as `service.server` builds it."""
    credentials = Credentials(tmp_path_factory.mktemp("unused"))
    credentials.key("somebody")
    calls: set[tuple[str, str]] = set()

    register = grpc.aio._server.Server.add_registered_method_handlers

    def watched(self: Any, service_name: str, handlers: dict[str, Any]) -> None:
        calls.update((service_name, each) for each in handlers)
        register(self, service_name, handlers)

    async def read() -> Ways:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("grpc.aio._server.Server.add_registered_method_handlers", watched)
            server = Server(
                Settings(
                    http=HttpSettings(port=0, docs="on"),
                    grpc=GrpcSettings(port=0),
                    models=ModelSettings(roots=(tiny_bundle_root,), default="tiny"),
                    admin=AdminSettings(enabled=True, token=ADMIN_TOKEN),
                )
            )
        await server.start()
        layers = list(unwrapped(server.app))
        await server.stop()
        http = {(name, *found) for each in layers for name, found in BARE[type(each).__name__].items()}
        websocket = set()
        for route in flat(layers[-1].routes):
            if isinstance(route, APIWebSocketRoute):
                websocket.add((route.name, route.path))
            else:
                assert isinstance(route, (APIRoute, Route)), route
                http |= {(route.name, method, route.path) for method in route.methods - {"HEAD"}}
        names = tuple(type(each).__name__ for each in layers)
        return Ways(frozenset(http), frozenset(websocket), frozenset(calls), names)

    return asyncio.run(read())


def unwrapped(application: Any) -> Iterator[Any]:
    yield application
    if not isinstance(application, FastAPI):
        yield from unwrapped(application._app)


def flat(routes: list[Any]) -> Iterator[Any]:
    """Newer versions of FastAPI keep the routers that were included, older ones their routes."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else flat(inner.routes)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    made = Credentials(tmp_path_factory.mktemp("credentials"))
    made.key("somebody")
    return made


@pytest.fixture(scope="module")
def guarded(credentials: Credentials, tiny_bundle_root: Path) -> Iterator[serving.Service]:
    """A service that asks for credentials and has everything switched on."""
    more = {
        "REPPOSE_ADMIN__ENABLED": "true",
        "REPPOSE_ADMIN__TOKEN": ADMIN_TOKEN,
        "REPPOSE_HTTP__DOCS": "on",
    }
    with serving.running(tiny_bundle_root, **credentials.settings, **more) as service:
        yield service


@pytest.fixture(scope="module", params=["keys", "tokens"])
def cases(
    request: pytest.FixtureRequest, credentials: Credentials, guarded: serving.Service
) -> dict[Role, dict[str, str | None]]:
    """For each role every case of one kind of credentials; the service knows them by now."""
    make = credentials.of_keys if request.param == "keys" else credentials.of_tokens
    made = {role: make(role) for role in Role}
    url = f"{guarded.url}/metrics"
    while httpx.get(url, headers=bearer(made[Role.METRICS]["good"]), trust_env=False).status_code != 200:
        pass  # the file of keys is read again soon
    return made


def test_everything_there_is_has_a_role_and_nothing_else(ways: Ways) -> None:
    assert set(ways.layers) <= BARE.keys()
    names = {name for name, _, _ in ways.http} | {name for name, _ in ways.websocket}
    assert names == roles.HTTP.keys()
    assert {service for service, _ in ways.rpc} == roles.GRPC.keys()
    assert ("pose", "POST", "/v1/pose") in ways.http
    assert {call for service, call in ways.rpc if service == "reppose.v1.PoseService"} == {
        "Estimate",
        "EstimateStream",
    }


def test_who_is_let_in_over_http(
    ways: Ways, guarded: serving.Service, cases: dict[Role, dict[str, str | None]]
) -> None:
    wrong = []
    with httpx.Client(base_url=guarded.url, trust_env=False, timeout=60) as client:
        for name, method, path in sorted(ways.http):
            role = roles.HTTP[name]
            for case, credential in cases[role or Role.PREDICT].items():
                response = client.request(method, path.format(session="matrix"), headers=bearer(credential))
                refused = response.status_code if response.status_code in (401, 403) else None
                if role is roles.OPEN and response.status_code == 404:
                    wrong.append((method, path, "is not there"))
                if refused != (None if role is roles.OPEN else REFUSED[case]):
                    wrong.append((method, path, case, response.status_code, response.text[:100]))
                if refused is not None:
                    code = {401: "unauthenticated", 403: "permission_denied"}[refused]
                    assert response.json()["error"]["code"] == code
                    assert response.headers["www-authenticate"].startswith('Bearer realm="reppose"')
                    assert ("error=" in response.headers["www-authenticate"]) == (case != "none")
    assert wrong == []


@pytest.mark.parametrize("by", ["header", "subprotocol"])
def test_who_is_let_in_over_websockets(
    by: str, ways: Ways, guarded: serving.Service, cases: dict[Role, dict[str, str | None]]
) -> None:
    assert ways.websocket
    wrong = []
    for name, path in sorted(ways.websocket):
        for case, credential in cases[roles.HTTP[name]].items():
            sent: dict[str, Any] = {"additional_headers": bearer(credential)}
            if by == "subprotocol":
                offered = ["reppose.v1", *([] if credential is None else [f"reppose.bearer.{credential}"])]
                if case == "bad" and "!" in credential:
                    offered[-1] = offered[-1].replace("!", "~")
                sent = {"subprotocols": offered}
            try:
                with connect(guarded.url.replace("http", "ws", 1) + path, proxy=None, **sent) as socket:
                    refused = None
                    assert socket.subprotocol == ("reppose.v1" if by == "subprotocol" else None)
                    socket.send("{}")
                    assert "opened" in socket.recv(60)
            except InvalidStatus as error:
                refused = error.response.status_code
                if "www-authenticate" not in error.response.headers or b'"error"' not in error.response.body:
                    wrong.append((path, case, "in silence"))
            if refused != REFUSED[case]:
                wrong.append((path, case, refused))
    assert wrong == []


def test_who_is_let_in_over_grpc(
    ways: Ways, guarded: serving.Service, cases: dict[Role, dict[str, str | None]]
) -> None:
    wrong = []
    with grpc.insecure_channel(guarded.target) as channel:
        for service, call in sorted(ways.rpc):
            role = roles.GRPC[service]
            for case, credential in cases[role or Role.PREDICT].items():
                code, trailing = answered(channel, f"/{service}/{call}", credential)
                expected = None if role is roles.OPEN else REFUSED_RPC[case]
                refused = code if code in REFUSED_RPC.values() else None
                if refused is not expected:
                    wrong.append((service, call, case, code))
                if refused is not None:
                    assert trailing["reppose-code"] in ("unauthenticated", "permission_denied")
                    assert trailing["x-request-id"]
    assert wrong == []


def answered(
    channel: grpc.Channel, method: str, credential: str | None
) -> tuple[grpc.StatusCode | None, dict[str, str]]:
    """How a call with one empty message ends, and what trails it; None where it was answered."""
    call = channel.stream_stream(method)(
        iter([b""]),
        metadata=[(name.lower(), value) for name, value in bearer(credential).items()],
        timeout=20,
    )
    try:
        next(call, None)
    except grpc.RpcError:
        return call.code(), dict(call.trailing_metadata())
    finally:
        call.cancel()
    return None, {}


def test_the_token_of_the_operator_is_good_for_nothing_else(ways: Ways, guarded: serving.Service) -> None:
    allowed = {}
    with httpx.Client(base_url=guarded.url, trust_env=False, timeout=60) as client:
        for name, method, path in ways.http:
            if roles.HTTP[name] is not roles.OPEN:
                response = client.request(method, path.format(session="x"), headers=bearer(ADMIN_TOKEN))
                allowed[name] = response.status_code != 403
    assert {name for name, found in allowed.items() if found} == {"reload"}


def test_a_port_of_their_own_makes_the_metrics_no_more_public(
    credentials: Credentials, tiny_bundle_root: Path
) -> None:
    made = credentials.of_keys(Role.METRICS)
    with serving.running(tiny_bundle_root, **credentials.settings, REPPOSE_METRICS__PORT="0") as service:
        port = service.wait_for("listening")["metrics_port"]
        found = {
            case: httpx.get(
                f"http://127.0.0.1:{port}/metrics", headers=bearer(credential), trust_env=False
            ).status_code
            for case, credential in made.items()
        }
        moved = httpx.get(f"{service.url}/metrics", headers=bearer(made["good"]), trust_env=False)
    assert found == {case: http or 200 for case, http in REFUSED.items()}
    assert moved.status_code == 404


def test_no_secret_reaches_the_log(
    guarded: serving.Service, cases: dict[Role, dict[str, str | None]]
) -> None:
    for case in cases[Role.PREDICT].values():
        httpx.get(f"{guarded.url}/v1/models", headers=bearer(case), trust_env=False)
    with grpc.insecure_channel(guarded.target) as channel:
        for case in cases[Role.PREDICT].values():
            answered(channel, "/reppose.v1.PoseService/Estimate", case)
    written = guarded.text
    assert '"transport": "grpc", "method": "Estimate", "service"' in written
    assert '"client": "good"' in written or '"client": "somebody"' in written
    assert '"outcome": "unauthenticated"' in written
    assert ADMIN_TOKEN not in written
    for credential in [each for role in cases.values() for each in role.values() if each is not None]:
        assert credential not in written
        assert credential[-40:] not in written


def test_what_nobody_gave_a_role_is_answered_to_nobody(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    key = credentials.key("everything", *Role)
    guard = Guard([Keys(credentials.key_file.read_text())], open_to_all=frozenset())
    router = APIRouter()

    @router.get("/new", name="new")
    async def new() -> str:
        return "an answer"

    rest = app.build(
        None, Registry(), Readiness(None), Metrics(CollectorRegistry()), ImageLimits(1, 1, 1), guard=guard,
        further=[router],
    )  # fmt: skip

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(rest)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/new", headers=bearer(key))

    assert asyncio.run(ask()).status_code == 403

    refused: list[tuple[str, ...]] = []

    async def call(service: str) -> grpc.StatusCode:
        server = grpc.aio.server(interceptors=(Access(guard, lambda *told: refused.append(told)),))

        async def unary(request: bytes, context: Any) -> bytes:
            return b"an answer"

        handlers = {"Call": grpc.unary_unary_rpc_method_handler(unary)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("new.Service", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                metadata = (("authorization", f"Bearer {key}"),)
                asked = channel.unary_unary(f"/{service}/Call")(b"", metadata=metadata, timeout=20)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await asked
            return caught.value.code()
        finally:
            await server.stop(0)

    assert asyncio.run(call("new.Service")) is grpc.StatusCode.PERMISSION_DENIED
    assert asyncio.run(call("no.Service")) is grpc.StatusCode.UNIMPLEMENTED  # as clients of reflection expect
    assert refused == [("new.Service", "Call", "permission_denied")]
