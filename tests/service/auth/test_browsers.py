"""What browsers are told with every answer, whose pages may read answers, and what nobody is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.service import serving
from tests.service.auth.credentials import Credentials, bearer
from tests.service.conftest import Scene

PAGE = "https://page.example.org"
DOCS = ("/docs", "/redoc", "/openapi.json")


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    made = Credentials(tmp_path_factory.mktemp("credentials"))
    made.key("somebody")
    return made


@pytest.fixture(scope="module")
def guarded(credentials: Credentials, tiny_bundle_root: Path) -> Iterator[serving.Service]:
    """Asks for credentials, and lets the scripts of one page read."""
    settings = credentials.settings | {"REPPOSE_HTTP__CORS_ORIGINS": PAGE}
    with serving.running(tiny_bundle_root, **settings) as service:
        yield service


def ask(service: serving.Service, method: str, path: str, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, service.url + path, headers=names, trust_env=False, timeout=60)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/pose", "/metrics", "/nothing", "/docs", "/healthz/live"])
def test_every_answer_is_shielded(path: str, service: serving.Service) -> None:
    answer = ask(service, "GET", path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert ("default-src 'none'" in answer.headers["content-security-policy"]) == (path != "/docs")
    assert "server" not in answer.headers
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_pose_is_shielded_too(service: serving.Service, scene: Scene) -> None:
    answer = serving.post(service, scene.png, render=True)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_websockets_have_no_banner(service: serving.Service, guarded: serving.Service) -> None:
    with connect(service.url.replace("http", "ws", 1) + "/v1/stream", proxy=None) as opened:
        assert "server" not in {name.lower() for name, _ in opened.response.headers.raw_items()}
    with pytest.raises(InvalidStatus) as refused:
        connect(guarded.url.replace("http", "ws", 1) + "/v1/stream", proxy=None)
    headers = refused.value.response.headers
    assert "server" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert len(headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    "sent", [b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G\xff / HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_learns_nothing(sent: bytes, service: serving.Service) -> None:
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: raw.recv(4096), b"")).lower()
    assert b"uvicorn" not in answer
    assert b"server:" not in answer
    assert b"python" not in answer


def test_scripts_of_a_listed_page_may_ask_and_read(
    guarded: serving.Service, credentials: Credentials
) -> None:
    preflight = ask(
        guarded, "OPTIONS", "/v1/sessions/x/frames", Origin=PAGE, Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type,x-resume-token,traceparent",
    )  # fmt: skip
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in preflight.headers
    refused = ask(guarded, "GET", "/v1/models", Origin=PAGE)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE  # so that the page can read why
    assert "X-Request-ID" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["https://other.example.org", "null", PAGE + ".example.net", PAGE.upper()])
def test_others_may_not(origin: str, guarded: serving.Service) -> None:
    preflight = ask(guarded, "OPTIONS", "/v1/pose", Origin=origin, Access_Control_Request_Method="POST")
    assert preflight.status_code == 400
    answer = ask(guarded, "GET", "/healthz/live", Origin=origin)
    assert "access-control-allow-origin" not in {**preflight.headers, **answer.headers}


def test_without_a_list_there_is_no_preflight(service: serving.Service) -> None:
    preflight = ask(service, "OPTIONS", "/v1/pose", Origin=PAGE, Access_Control_Request_Method="POST")
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers


def test_the_documentation_can_be_taken_away(
    service: serving.Service, guarded: serving.Service, tiny_bundle_root: Path
) -> None:
    assert [ask(service, "GET", path).status_code for path in DOCS] == [200] * 3
    assert [ask(guarded, "GET", path).status_code for path in DOCS] == [404] * 3  # unless wanted: test_matrix
    with serving.running(tiny_bundle_root, REPPOSE_HTTP__DOCS="off") as bare:
        assert [ask(bare, "GET", path).status_code for path in DOCS] == [404] * 3


def test_the_subprotocol_with_the_key_is_never_the_one_that_is_picked(
    guarded: serving.Service, credentials: Credentials
) -> None:
    key = credentials.key("browser")
    url = guarded.url.replace("http", "ws", 1) + "/v1/stream"
    while ask(guarded, "GET", "/v1/models", **bearer(key)).status_code == 401:
        pass  # the file is read again soon
    for offered in (["reppose.v1", f"reppose.bearer.{key}"], [f"reppose.bearer.{key}", "reppose.v1"]):
        with connect(url, subprotocols=offered, proxy=None) as opened:
            assert opened.subprotocol == "reppose.v1"
            assert key not in str(opened.response.headers)
    assert key not in guarded.text
