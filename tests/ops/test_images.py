"""What the images are made of, and the health check that they run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.service import serving

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def pins(name: str) -> dict[str, str]:
    """Versions by canonical name."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and line[0] not in "#-"]
    return {canonicalize_name(each): version for each, version in pairs}


def test_the_image_installs_versions_that_the_tests_passed_with() -> None:
    assert pins("docker/requirements.txt").items() <= pins("constraints.txt").items()


def test_the_image_installs_all_that_the_default_install_and_replicas_need_and_no_more() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docker" / "pin.py"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert (ROOT / "docker/requirements.txt").read_text() == made, "run `make requirements`"
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["redis"]
    names = {canonicalize_name(Requirement(each).name) for each in wanted}
    assert names < set(pins("docker/requirements.txt"))
    assert not {"torch", "lightning", "onnx", "pytest"} & set(pins("docker/requirements.txt"))


def test_the_images_say_the_version_of_the_project() -> None:
    assert len(DOCKERFILES) == 3
    for path in DOCKERFILES:
        said = re.search(r'image\.version="([^"]+)"', path.read_text())
        assert said is not None, path.name
        assert said[1] == PROJECT["version"], path.name


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_built_by_either_builder_and_runs_as_nobody(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"^(RUN|COPY|ADD) --(mount|link|chmod|checksum|network)", text, re.M)
    assert "<<" not in text  # here-documents are BuildKit's
    users = re.findall(r"^USER (\S+)$", text, re.M)
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert re.search(r'^ENTRYPOINT \["', text, re.M)
    assert all(re.search(r":[\w.-]*\d", name) for name in re.findall(r"^FROM ([^\s:]+:\S+)", text, re.M))


def probe(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the health check of an image."""
    return subprocess.run(
        [sys.executable, "-m", "service.probe"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_health_check_says_whether_the_service_is_ready(tiny_bundle_root: Path, tmp_path: Path) -> None:
    with serving.running(tiny_bundle_root) as service:
        port = service.url.rpartition(":")[2]
        file = tmp_path / "reppose.toml"
        file.write_text(f'[http]\nhost = "0.0.0.0"\nport = {port}')
        assert probe(REPPOSE_CONFIG=str(file)).returncode == 0
        asked = probe(REPPOSE_HTTP__HOST="0.0.0.0", REPPOSE_HTTP__PORT=port)
        assert (asked.returncode, asked.stdout, asked.stderr) == (0, "", "")
    asked = probe(REPPOSE_HTTP__HOST="0.0.0.0", REPPOSE_HTTP__PORT=port)
    assert asked.returncode == 1
    assert "no answer from 127.0.0.1" in asked.stdout


def test_the_health_check_repeats_why_the_service_is_not_ready(tiny_bundle_root: Path) -> None:
    with serving.running(tiny_bundle_root, REPPOSE_DRAIN__NOTICE_S="4") as service:
        port = service.url.rpartition(":")[2]
        service.terminate()
        while serving.get(service, "/healthz/ready").status_code == 200:
            time.sleep(0.02)
        asked = probe(REPPOSE_HTTP__PORT=port)
        assert asked.returncode == 1
        assert asked.stdout.startswith("503 ")
        assert "stopping" in asked.stdout
        service.ended()


def test_the_health_check_gives_up_on_a_service_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = probe(REPPOSE_HTTP__HOST="127.0.0.1", REPPOSE_HTTP__PORT=str(silent.getsockname()[1]))
    assert asked.returncode == 1
    assert "timed out" in asked.stdout


def test_the_health_check_imports_nothing_that_must_be_installed() -> None:
    code = "import sys, service.probe; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "service" in loaded.stdout.split()
    assert not {"numpy", "pydantic", "cv2", "fastapi", "typer"} & set(loaded.stdout.split())


def test_no_image_installs_cuda_by_pip_or_another_torch_than_the_cpu_build() -> None:
    for path in DOCKERFILES:
        installs = [line for line in path.read_text().splitlines() if not line.startswith(("#", "FROM"))]
        text = re.sub(r"-iname '[^']*'", "", "\n".join(installs))
        assert not re.search(r"\b(nvidia|triton|torchvision|torchaudio|timm)\b|\[cuda|cudnn", text), path.name
    trainer = (ROOT / "docker/trainer.Dockerfile").read_text()
    assert f"'torch=={pins('constraints.txt')['torch']}+cpu'" in trainer
