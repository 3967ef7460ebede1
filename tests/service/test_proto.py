"""The generated code is what the compiler makes of the contract, and asks for no more than the distribution does."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = "proto/reppose/v1/pose.proto"
GENERATED = ROOT / "service" / "pb" / "reppose" / "v1"
GRPC_CODE = (GENERATED / "pose_pb2_grpc.py").read_text("utf-8")
GRPC_VERSION = re.search(r"GRPC_GENERATED_VERSION = '([0-9.]+)'", GRPC_CODE)[1]
PROTOBUF_VERSION = re.search(
    r"Protobuf Python Version: ([0-9.]+)", (GENERATED / "pose_pb2.py").read_text("utf-8")
)[1]


def test_the_committed_code_is_what_the_compiler_makes(tmp_path: Path) -> None:
    installed = importlib.metadata.version("grpcio-tools")
    if installed != GRPC_VERSION:
        pytest.skip(f"the code was made by grpcio-tools {GRPC_VERSION}, installed is {installed}")
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iservice/pb=proto", *out, PROTO]
    subprocess.run(command, cwd=ROOT, check=True)
    made = sorted((tmp_path / "service" / "pb" / "reppose" / "v1").iterdir())
    assert [path.name for path in made] == ["pose_pb2.py", "pose_pb2.pyi", "pose_pb2_grpc.py"]
    for path in made:
        assert path.read_text("utf-8") == (GENERATED / path.name).read_text("utf-8"), (
            f"{path.name}: make it again"
        )


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("grpcio", GRPC_VERSION),
        ("grpcio-health-checking", GRPC_VERSION),
        ("grpcio-reflection", GRPC_VERSION),
        ("protobuf", PROTOBUF_VERSION),
    ],
)
def test_the_lowest_version_allowed_can_run_it(package: str, version: str) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert f"{package}>={version}" in dependencies


def test_every_method_of_the_contract_is_explained() -> None:
    lines = (ROOT / PROTO).read_text("utf-8").splitlines()
    for above, line in itertools.pairwise(lines):
        if re.match(r"\s*rpc ", line):
            assert above.strip().startswith("//"), line
