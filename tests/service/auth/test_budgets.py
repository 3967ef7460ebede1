"""What one client may ask for over time, over every transport: refused, or held up where nothing may be lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from service.auth.guard import Guard, network
from service.auth.rates import Limits
from service.auth.roles import Role
from service.auth.visit import Visit
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from service.types import Frame
from tests.service import serving, test_websocket, video
from tests.service.auth.credentials import Credentials, bearer
from tests.service.video import config, frame

NEVER = 1e-6
"""Tokens per second: none comes back while a test runs."""
PIXELS = 320 * 260
"""Of a frame of the clip."""


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    made = Credentials(tmp_path_factory.mktemp("credentials"))
    made.key("watcher", Role.METRICS)
    return made


@pytest.fixture(scope="module")
def limited(credentials: Credentials, tiny_bundle_root: Path) -> Iterator[serving.Service]:
    with serving.running(tiny_bundle_root, **credentials.settings) as service:
        yield service


@pytest.fixture
def client(credentials: Credentials, limited: serving.Service, request: pytest.FixtureRequest):
    """Makes a key with limits, which the service knows."""

    def make(*roles: Role, **limits: float) -> str:
        key = credentials.key(request.node.name.translate(str.maketrans("[]", "..")), *roles, **limits)
        while True:  # a WebSocket that sends no config counts nowhere
            answer = httpx.get(f"{limited.url}/metrics", headers=bearer(key), trust_env=False)
            if answer.status_code != 401:
                return key

    return make


def post(service: serving.Service, key: str, path: str = "/v1/pose", data: bytes = b"", **query: Any):
    headers = {"Content-Type": "image/png"} | bearer(key)
    content = data or video.clip()[0]
    return httpx.post(
        f"{service.url}{path}", content=content, params=query, headers=headers, trust_env=False, timeout=60
    )


def estimate(service: serving.Service, key: str) -> tuple[grpc.StatusCode, dict[str, str]]:
    with grpc.insecure_channel(service.target) as channel:
        stub, metadata = pose_pb2_grpc.PoseServiceStub(channel), [("authorization", f"Bearer {key}")]
        try:
            _, call = stub.Estimate.with_call(
                pb.EstimateRequest(image=video.clip()[0]), metadata=metadata, timeout=60
            )
        except grpc.RpcError as error:
            return error.code(), dict(error.trailing_metadata())
        return call.code(), {}


def test_one_budget_of_frames_over_all_transports(limited: serving.Service, client) -> None:
    key = client(frames_per_s=NEVER, frames_burst=5)
    assert post(limited, key).status_code == 200
    assert estimate(limited, key)[0] is grpc.StatusCode.OK
    assert post(limited, key, "/v1/sessions/budget/frames").status_code == 200
    assert httpx.get(f"{limited.url}/v1/models", headers=bearer(key), trust_env=False).status_code == 200
    with test_websocket.opened(limited, {"mode": "live"}, additional_headers=bearer(key)) as socket:
        assert "opened" in test_websocket.read(socket)
        socket.send(test_websocket.frame(0))
        assert "tracked" in test_websocket.read(socket)
        socket.send(test_websocket.frame(1))
        refused = test_websocket.read(socket)
        assert (refused["sequence"], refused["error"]["code"]) == (1, "rate_limited")
    with video.Call(limited.target, config(), metadata=[("authorization", f"Bearer {key}")]) as call:
        call.read()
        assert call.ask(frame(0)).error.code == "rate_limited"
        assert call.ask(frame(1)).error.code == "rate_limited"  # it goes on
    answer = post(limited, key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) > 1000
    code, trailing = estimate(limited, key)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert trailing["reppose-code"] == "rate_limited"
    assert float(trailing["retry-after"]) > 1000


def test_pixels_are_refused_before_they_are_decoded(limited: serving.Service, client) -> None:
    key = client(pixels_per_s=NEVER, pixels_burst=2 * PIXELS)
    broken = video.clip()[0][:-2000]  # its header is well
    assert post(limited, key).status_code == 200
    assert post(limited, key, data=broken).json()["error"]["code"] == "invalid_image"
    answer = post(limited, key, data=broken)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) > 1000
    assert estimate(limited, key)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert post(limited, key, "/v1/sessions/budget/frames").status_code == 429
    bare = {"Content-Type": "application/x-raw-rgb; width=20; height=20"} | bearer(key)
    url = f"{limited.url}/v1/pose"
    assert httpx.post(url, content=bytes(1200), headers=bare, trust_env=False).status_code == 429
    with test_websocket.opened(limited, {"mode": "live"}, additional_headers=bearer(key)) as socket:
        test_websocket.read(socket)
        socket.send(test_websocket.frame(0))
        assert test_websocket.read(socket)["error"]["code"] == "rate_limited"
    assert post(limited, key, data=b"no image").json()["error"]["code"] == "invalid_image"


@pytest.mark.parametrize("limits", [{"frames_per_s": 20, "frames_burst": 1}, {"pixels_per_s": 20 * PIXELS}])
def test_files_are_held_up_and_lose_nothing(
    limits: dict[str, float], limited: serving.Service, client
) -> None:
    key = client(**limits, **({"pixels_burst": PIXELS} if "pixels_per_s" in limits else {}))
    # Of what is unanswered when the last frame comes, the pixels may be unknown yet: whoever asks next waits for them.
    frames, unpaid = 20, 16 if "pixels_per_s" in limits else 3
    began_s = time.monotonic()
    with test_websocket.opened(
        limited, {"mode": "file"}, *map(test_websocket.frame, range(frames)), {"end": True},
        additional_headers=bearer(key),
    ) as socket:  # fmt: skip
        answers, code, _ = test_websocket.rest(socket)
    assert code == 1000
    assert ["tracked" in answer for answer in answers[1:]] == [True] * frames
    metadata = [("authorization", f"Bearer {key}")]
    with video.Call(limited.target, *map(frame, range(frames)), metadata=metadata) as call:
        call.end()
        plain, error = call.rest()
    assert error is None
    assert [each.WhichOneof("outcome") for each in plain] == ["prediction"] * frames
    # The rate is a promise to everybody else, so that sooner than this would be wrong on any machine.
    assert time.monotonic() - began_s >= (2 * frames - 1 - unpaid) / 20


def test_streams_have_a_limit_of_their_own(limited: serving.Service, client) -> None:
    key = client(streams=1)
    metadata = [("authorization", f"Bearer {key}")]
    with test_websocket.opened(limited, {}, additional_headers=bearer(key)) as socket:
        assert "opened" in test_websocket.read(socket)
        with test_websocket.opened(limited, {}, additional_headers=bearer(key)) as other:
            found, code, _ = test_websocket.rest(other)
            assert (found[-1]["error"]["code"], code) == ("rate_limited", 4429)
        for first in (config(), frame(0)):
            with video.Call(limited.target, first, metadata=metadata) as call:
                _, error = call.rest()
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert dict(error.trailing_metadata())["retry-after"] == "1.000"
        assert post(limited, key).status_code == 200
    # However a stream ends, its place is free soon, and not before.
    for first in (config(), frame(0)):
        with until_opened(lambda first=first: video.Call(limited.target, first, metadata=metadata)) as call:
            with test_websocket.opened(limited, {}, additional_headers=bearer(key)) as other:
                assert test_websocket.read(other)["error"]["code"] == "rate_limited"
            call.call.cancel()
    until_opened(lambda: video.Call(limited.target, config(), metadata=metadata)).channel.close()


def until_opened(call: Callable[[], video.Call]) -> video.Call:
    """The first of these calls that is answered."""
    deadline_s = time.monotonic() + 20
    while True:
        found = call()
        try:
            found.read()
            return found
        except grpc.RpcError:
            found.channel.close()
        assert time.monotonic() < deadline_s


def test_refusals_are_counted_by_reason(limited: serving.Service, client) -> None:
    def counted() -> dict[str, float]:
        text = httpx.get(f"{limited.url}/metrics", headers=bearer(watcher), trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith("reppose_access_refused_total")]
        return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}

    key = client(Role.PREDICT, Role.METRICS, frames_per_s=NEVER, frames_burst=1)
    watcher = key
    before = counted()
    assert [post(limited, key).status_code for _ in range(3)] == [200, 429, 429]
    assert post(limited, "nonsense").status_code == 401
    reload = httpx.get(f"{limited.url}/v1/models", trust_env=False)
    assert reload.status_code == 401
    after = counted()
    risen = {reason: after[reason] - before[reason] for reason in after if after[reason] != before[reason]}
    assert risen == {"frames_per_s": 2, "bad_credential": 1, "no_credential": 1}


def test_where_everybody_may_ask_an_address_can_be_a_client(tiny_bundle_root: Path) -> None:
    rates = {
        "REPPOSE_RATES__BY_ADDRESS": "true",
        "REPPOSE_RATES__FRAMES_PER_S": str(NEVER),
        "REPPOSE_RATES__FRAMES_BURST": "2",
    }
    with serving.running(tiny_bundle_root, **rates) as service:
        assert [post(service, "").status_code, estimate(service, "")[0]] == [200, grpc.StatusCode.OK]
        assert [post(service, "").status_code, estimate(service, "")[0]] == [
            429,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ]
        assert serving.get(service, "/metrics").status_code == 200
    with serving.running(tiny_bundle_root, **rates | {"REPPOSE_RATES__BY_ADDRESS": "false"}) as service:
        assert [post(service, "").status_code for _ in range(4)] == [200] * 4


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "unix", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) == same
    guard = Guard(limits=Limits(frames_per_s=1), by_address=True)
    accounts = [guard.admit(None, Role.PREDICT, each).account for each in (one, other)]
    assert (accounts[0] is accounts[1]) == same


def test_a_visit_without_limits_costs_a_frame_nothing() -> None:
    guard = Guard()
    visit = Visit(lambda: guard.admit(None, Role.PREDICT))
    given = Frame(b"data")
    asyncio.run(visit.turn())
    assert visit.metered(given) is given
