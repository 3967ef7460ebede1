"""What a real service writes about requests, and what it never writes."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests.service import serving, video

SECRET = "s3cr3t-Xq9-only-here"
TOKEN = "an-operators-t0ken-of-enough-characters"
SIGNING = "a-signing-key-0f-enough-characters"


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines(service: serving.Service, message: str = "request") -> list[dict[str, Any]]:
    return [line for line in service.lines if isinstance(line, dict) and line["message"] == message]


def ask(service: serving.Service, method: str, path: str, **options: Any) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.request(method, f"{service.url}{path}", **options)


def test_neither_pixels_nor_secrets_nor_queries_are_written(tiny_bundle_root: Path) -> None:
    marked = video.clip()[0] + SECRET.encode()  # after the end of a PNG
    settings = {
        "REPPOSE_LOG__LEVEL": "debug",
        "REPPOSE_ADMIN__ENABLED": "true",
        "REPPOSE_ADMIN__TOKEN": TOKEN,
        "REPPOSE_SESSIONS__TOKEN_KEYS": SIGNING,
    }
    with serving.running(tiny_bundle_root, **settings) as service:
        bearer = {"Authorization": f"Bearer {SECRET}", "Cookie": f"id={SECRET}", "X-Api-Key": SECRET}
        answers = [
            ask(service, "POST", "/v1/pose", content=marked, headers=bearer),
            ask(service, "POST", f"/v1/pose?decoder={SECRET}", content=marked),
            ask(service, "POST", f"/v1/pose?key={SECRET}", content=marked),
            ask(service, "POST", f"/v1/pose?model={SECRET}", content=marked),
            ask(service, "POST", "/v1/pose", content=SECRET.encode() * 100),
            ask(service, "POST", "/v1/pose", data={"decoder": SECRET}, files={"image": (SECRET, marked)}),
            ask(service, "POST", f"/v1/sessions/{SECRET}/frames?sequence=1&timestamp_s=0", content=marked),
            ask(service, "DELETE", f"/v1/sessions/{SECRET}"),
            ask(service, "POST", "/v1/admin/reload", headers=bearer),
            ask(service, "POST", "/v1/admin/reload", headers={"Authorization": f"Bearer {TOKEN}"}),
            ask(service, "GET", f"/nowhere?key={SECRET}"),
        ]
        with grpc.insecure_channel(service.target) as channel:
            poses = pose_pb2_grpc.PoseServiceStub(channel)
            metadata = (("authorization", f"Bearer {SECRET}"), ("x-key", SECRET))
            poses.Estimate(pb.EstimateRequest(image=marked), metadata=metadata, timeout=60)
            with pytest.raises(grpc.RpcError):
                poses.Estimate(pb.EstimateRequest(image=marked, decoder=SECRET), timeout=60)
            config = video.config(mode=pb.STREAM_MODE_FILE, session=SECRET)
            told = list(poses.EstimateStream(iter([config, video.frame(0, marked)]), timeout=60))
            assert len(told) == 2
        statuses = [each.status_code for each in answers]
        assert statuses == [200, 422, 422, 422, 422, 422, 200, 204, 401, 200, 404]
        wanted = {each.headers["x-request-id"] for each in answers}
        until(lambda: wanted <= {line["request_id"] for line in service.lines if "request_id" in line})
        until(lambda: lines(service, "stream"))
    for hidden in (
        SECRET,
        TOKEN,
        SIGNING,
        "PNG",
        base64.b64encode(marked)[:40].decode(),
        marked[50:90].hex(),
    ):
        assert hidden not in service.text
    assert all(isinstance(line, dict) for line in service.lines)
    assert [line["path"] for line in lines(service) if line.get("status") == 404] == ["/nowhere"]
    assert "/v1/sessions/{session}/frames" in [line.get("path") for line in lines(service)]


def test_of_successful_requests_a_share_is_logged_and_of_others_all(tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root, REPPOSE_LOG__SHARE="0") as service:
        for _ in range(5):
            assert ask(service, "POST", "/v1/pose", content=video.clip()[0]).status_code == 200
        for _ in range(3):
            assert ask(service, "POST", "/v1/pose", content=b"garbage").status_code == 422
        with grpc.insecure_channel(service.target) as channel:
            poses = pose_pb2_grpc.PoseServiceStub(channel)
            poses.Estimate(pb.EstimateRequest(image=video.clip()[0]), timeout=60)
            with pytest.raises(grpc.RpcError):
                poses.Estimate(pb.EstimateRequest(image=b"garbage"), timeout=60)
        until(lambda: len(lines(service)) == 4)
    assert [(line["transport"], line["outcome"]) for line in lines(service)] == [
        *[("http", "invalid_image")] * 3,
        ("grpc", "invalid_image"),
    ]


def test_pages_of_others_are_refused_without_alarm(tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root) as service:
        url = service.url.replace("http", "ws", 1) + "/v1/stream"
        for _ in range(3):
            with pytest.raises(InvalidStatus), connect(url, proxy=None, origin="https://elsewhere.example"):
                pass
        until(lambda: len(lines(service)) == 3)
    assert {line["level"] for line in service.lines if isinstance(line, dict)} == {"info"}
    assert {(line["transport"], line["outcome"]) for line in lines(service)} == {("websocket", "forbidden")}
