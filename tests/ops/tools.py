"""Other people's programs that judge what this project ships; a test without its program is skipped, and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str, source: str) -> str:
    """Path of a program: beside this Python, where `make tools` puts it, in folders of REPPOSE_TOOLS, or in PATH."""
    beside = Path(sys.executable).parent
    places = [
        str(beside),
        str(beside.parent / "tools/bin"),
        os.environ.get("REPPOSE_TOOLS", ""),
        os.environ["PATH"],
    ]
    found = shutil.which(name, path=os.pathsep.join(filter(None, places)))
    if found is None:
        pytest.skip(f"{name} is not installed ({source}): make tools, or name its folder in REPPOSE_TOOLS")
    return found


def passes(*command: str | Path, stdin: bytes | None = None, cwd: Path = ROOT) -> str:
    """What a program that must exit with 0 wrote."""
    done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=120, check=False)
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{command}: {text[-3000:]}"
    return text
