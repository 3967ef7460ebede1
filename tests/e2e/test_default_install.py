"""The default install, as a user makes it: no torch, and it serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HEAVY = ("torch", "torchvision", "torchaudio", "timm", "nvidia", "triton", "lightning")


def test_torch_is_pinned_exactly_and_only_in_the_trainer() -> None:
    extras = PROJECT["optional-dependencies"]
    assert not [each for each in PROJECT["dependencies"] if each.startswith(HEAVY)]
    assert [each for each in extras["trainer"] if each.startswith("torch")] == ["torch==2.13.0"]
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    everything = [each for extra in extras.values() for each in extra]
    assert not [each for each in everything if each.startswith(("torchvision", "torchaudio", "timm"))]


def test_nothing_here_pulled_in_torchvision_or_timm() -> None:
    installed = {each.metadata["Name"].lower() for each in distributions()}
    assert not installed & {"torchvision", "torchaudio", "timm"}


@pytest.mark.timeout(900)
def test_a_plain_install_serves_without_torch(tmp_path: Path) -> None:
    """A new virtual environment, `pip install .` from a copy of the sources, one prediction."""
    sources = tmp_path / "sources"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("the sources are not a git checkout, so what belongs to them is unknown")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", sources)
    installed = {
        each["name"].lower() for each in json.loads(run(python, "-m", "pip", "list", "--format=json"))
    }
    assert not [name for name in installed if name.startswith(HEAVY)]

    photograph = tmp_path / "grey.png"
    run(
        python, "-c", f"from PIL import Image; Image.new('RGB', (320, 240), 'gray').save({str(photograph)!r})"
    )
    run(tmp_path / "venv" / "bin" / "reppose-zoo", "verify", "body19-small")
    answer = json.loads(run(tmp_path / "venv" / "bin" / "reppose-serve", "predict", photograph))
    assert "body19-small" in json.dumps(answer)
