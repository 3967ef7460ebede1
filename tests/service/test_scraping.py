"""Metrics on a port of their own."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.service import serving, video


def ask(port: int, path: str = "/metrics", **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.get(f"http://127.0.0.1:{port}{path}", headers=headers)


def test_metrics_on_their_own_port_are_on_no_other(tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root, REPPOSE_METRICS__PORT="0") as service:
        ports = service.wait_for("listening")
        assert len({ports["http_port"], ports["metrics_port"], ports["grpc_port"]}) == 3
        assert serving.post(service, video.clip()[0]).status_code == 200
        assert 'reppose_requests_total{method="pose",outcome="ok"' in ask(ports["metrics_port"]).text
        rich = ask(ports["metrics_port"], accept="application/openmetrics-text; version=1.0.0")
        names = {family.name for family in text_string_to_metric_families(rich.text)}
        assert {"reppose_requests", "reppose_pose_score", "reppose_stage_seconds"} <= names
        assert ask(ports["http_port"]).status_code == 404
        for path in ("/v1/models", "/healthz/live", "/docs", "/openapi.json", "/"):
            assert ask(ports["metrics_port"], path).status_code == 404
    with socket.create_server(("127.0.0.1", ports["metrics_port"])):
        pass  # it was given back


def test_a_port_that_is_taken_ends_the_start_and_names_its_setting(tiny_bundle_root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        service = serving.Service(tiny_bundle_root, REPPOSE_METRICS__PORT=port)
        assert service.ended() != 0
    assert "REPPOSE_METRICS__PORT" in service.text
