"""ONNX Runtime reports nothing to anybody, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUPPRESSED_BY = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
"""With any of these ONNX Runtime is silent by itself; then the test would prove nothing."""


@pytest.mark.parametrize("module", ["service.runner", "trainer.export", "trainer.quantise"])
def test_whoever_runs_models_leaves_no_trace_of_telemetry(module: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SUPPRESSED_BY}
    code = f"import {module}, os, onnxruntime; onnxruntime.SessionOptions(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=ROOT,
        env=environment | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "1\n"
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in str(path).lower()]
