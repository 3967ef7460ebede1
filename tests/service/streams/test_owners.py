"""A session belongs to the client that opened it, over every transport, in every store, in every token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from service.auth.roles import Role
from service.pb.reppose.v1 import pose_pb2_grpc
from tests.service import serving, test_websocket, video
from tests.service.auth.credentials import Credentials, bearer, token
from tests.service.test_sessions import fault

NAME = "lobby"
KEYS = {"REPPOSE_SESSIONS__TOKEN_KEYS": "a key that both servers have"}


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Credentials(tmp_path_factory.mktemp("credentials"))


@pytest.fixture(scope="module")
def clients(credentials: Credentials) -> dict[str, str]:
    """Anna by two keys and a token; Bert; and a token whose subject has the name of Anna's key."""
    return {
        "anna": credentials.key("anna"),
        "anna again": credentials.key("anna", Role.PREDICT, Role.METRICS),
        "bert": credentials.key("bert"),
        "token anna": token("anna"),
        "token carl": token("carl"),
    }


@pytest.fixture(scope="module", params=["memory", "redis"])
def services(
    request: pytest.FixtureRequest,
    tiny_bundle_root: Path,
    credentials: Credentials,
    clients: dict[str, str],
) -> Iterator[tuple[serving.Service, serving.Service]]:
    """Two services, the same one twice without a store that they share."""
    settings = credentials.settings | KEYS
    if request.param == "memory":
        with serving.running(tiny_bundle_root, **settings) as service:
            yield service, service
        return
    server = request.getfixturevalue("redis_server")
    settings |= {"REPPOSE_SESSIONS__STORE_URL": server.url}
    with (
        serving.running(tiny_bundle_root, **settings) as one,
        serving.running(tiny_bundle_root, **settings) as other,
    ):
        yield one, other


def post(service: serving.Service, key: str, session: str, number: int, **query: Any) -> httpx.Response:
    headers = {"Content-Type": "image/png"} | bearer(key)
    if "token" in query:
        headers["X-Resume-Token"] = query.pop("token")
    return httpx.post(
        f"{service.url}/v1/sessions/{session}/frames",
        content=video.clip()[number],
        params={"sequence": number, "timestamp_s": 100 + number / video.RATE_HZ} | query,
        headers=headers,
        trust_env=False,
        timeout=60,
    )


def delete(service: serving.Service, key: str, session: str) -> httpx.Response:
    url = f"{service.url}/v1/sessions/{session}"
    return httpx.delete(url, headers=bearer(key), trust_env=False, timeout=60)


def opened_by_grpc(service: serving.Service, key: str, **config: Any) -> tuple[bool, int, str]:
    """Whether the stream went on from something, its last sequence, and the code of its error."""
    with grpc.insecure_channel(service.target) as channel:
        stub = pose_pb2_grpc.PoseServiceStub(channel)
        metadata = [("authorization", f"Bearer {key}")]
        call = stub.EstimateStream(iter([video.config(**config)]), metadata=metadata, timeout=60)
        try:
            opened = next(call).opened
        except grpc.RpcError:
            return False, 0, dict(call.trailing_metadata())["reppose-code"]
        list(call)
        return opened.resumed, opened.last_sequence, ""


def opened_by_websocket(service: serving.Service, key: str, **config: Any) -> tuple[bool, int, str]:
    with test_websocket.opened(service, config, additional_headers=bearer(key)) as socket:
        first = test_websocket.read(socket)
        if "error" in first:
            return False, 0, first["error"]["code"]
        return first["opened"]["resumed"], first["opened"]["last_sequence"] or 0, ""


WAYS = {"grpc": opened_by_grpc, "websocket": opened_by_websocket}


def begin(services: tuple[serving.Service, serving.Service], key: str, session: str) -> str:
    """Three frames of a session; a resume token of it."""
    answers = [post(services[0], key, session, number, want_token=number == 2) for number in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    return answers[-1].json()["resume_token"]


def test_by_its_name_it_is_found_by_its_owner_only(services, clients: dict[str, str]) -> None:
    one, other = services
    for name in (NAME, *WAYS):
        begin(services, clients["anna"], name)
    for stranger in ("bert", "token anna", "token carl"):
        assert post(other, clients[stranger], NAME, 0).json()["session"]["resumed"] is False
        for name, open_stream in WAYS.items():
            assert open_stream(other, clients[stranger], session=name) == (False, 0, "")
        assert fault(delete(one, clients[stranger], f"{NAME}-3")) == (404, "unknown_session", "session")
    for same in ("anna", "anna again"):
        for name, open_stream in WAYS.items():
            assert open_stream(other, clients[same], session=name) == (True, 2, "")
    assert post(other, clients["anna again"], NAME, 3).json()["session"]["last_sequence"] == 2
    assert delete(one, clients["bert"], NAME).status_code == 204  # his own, of the same name
    assert post(one, clients["anna"], NAME, 4).json()["session"]["last_sequence"] == 3
    assert delete(other, clients["anna"], NAME).status_code == 204
    assert delete(other, clients["anna"], NAME).status_code == 404


def test_nobody_can_tell_a_strangers_session_from_none(services, clients: dict[str, str]) -> None:
    begin(services, clients["anna"], "secret")
    for service in services:
        there, missing = (delete(service, clients["bert"], name) for name in ("secret", "missing"))
        assert there.status_code == missing.status_code == 404
        assert there.json() == missing.json()
    assert delete(services[0], clients["anna"], "secret").status_code == 204


def test_a_resume_token_is_good_for_its_owner_only(services, clients: dict[str, str]) -> None:
    one, other = services
    resume = begin(services, clients["anna"], "original")
    for stranger in ("bert", "token anna", "token carl"):
        refused = post(other, clients[stranger], "stolen", 3, token=resume)
        assert fault(refused) == (422, "invalid_token", "resume_token")
        for open_stream in WAYS.values():
            assert open_stream(other, clients[stranger], resume_token=resume) == (False, 0, "invalid_token")
        assert delete(one, clients[stranger], "stolen").status_code == 404
    for open_stream in WAYS.values():
        assert open_stream(other, clients["anna again"], resume_token=resume) == (True, 2, "")


def test_a_stream_is_not_taken_by_a_stranger_of_the_same_name(services, clients: dict[str, str]) -> None:
    service = services[0]
    with test_websocket.opened(
        service, {"mode": "file", "session": "held"}, additional_headers=bearer(clients["anna"])
    ) as socket:
        assert "opened" in test_websocket.read(socket)
        assert opened_by_grpc(service, clients["bert"], session="held") == (False, 0, "")
        assert post(service, clients["bert"], "held", 0).status_code == 200
        socket.send(test_websocket.frame(0))
        assert "tracked" in test_websocket.read(socket)
        assert opened_by_grpc(service, clients["anna again"], session="held")[0] is True
        _, code, _ = test_websocket.rest(socket)
        assert code == 4409


@pytest.mark.parametrize("services", ["redis"], indirect=True)
def test_redis_holds_no_credential(services, clients: dict[str, str], request) -> None:
    redis = pytest.importorskip("redis")
    begin(services, clients["anna"], "kept")
    begin(services, clients["token carl"], "kept")
    with redis.Redis.from_url(request.getfixturevalue("redis_server").url) as store:
        held = b"".join(key + b"".join(store.hgetall(key).values()) for key in store.keys("reppose:*kept"))
    assert held
    for secret in [*clients.values(), "anna", "carl"]:
        assert secret.encode() not in held
    for client in ("anna", "token carl"):
        assert delete(services[1], clients[client], "kept").status_code == 204
