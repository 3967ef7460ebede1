"""The README's commands, run as written, in their order.

`sh` and `python` blocks run in a folder that holds what the text says the reader has (a photograph, annotated
people); `make` runs in the repository. `make serve` stays in the background until the end. `make test` is the command
that runs this very test, so it is only checked that CI runs it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(?P<kind>\w+)(?: file=(?P<file>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = (8000, 50051)
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ReaderWarning(UserWarning):
    """A block that was not run, and why."""


@dataclass(frozen=True)
class Reader:
    """Somebody who follows the README."""

    folder: Path
    environment: dict[str, str]

    def run(self, kind: str, text: str) -> str:
        """Run one block; its output on success, a failure with the output otherwise."""
        command = [sys.executable, "-"] if kind == "python" else ["bash", "-euo", "pipefail"]
        folder = ROOT if text.startswith("make ") else self.folder
        done = subprocess.run(
            command,
            input=text,
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, write_people: object) -> Reader:
    """A reader with a photograph, a clip, and annotated people."""
    import skimage

    folder = tmp_path_factory.mktemp("reader")
    photograph = Path(skimage.__file__).parent / "data" / "astronaut.png"
    _write_jpeg(photograph, folder / "photo.jpg")
    _write_clip(photograph, folder / "clip.mp4")
    write_people(folder / "my-data", count=80)
    return Reader(folder, os.environ | {"VENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"})


@pytest.fixture(scope="module")
def service(reader: Reader) -> Iterator[subprocess.Popen[bytes]]:
    """`make serve`, until the last block has run."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                if os.environ.get("CI"):
                    raise
                pytest.skip(f"port {port}, which the README uses, is taken on this machine")
    process = subprocess.Popen(["make", "serve"], cwd=ROOT, env=reader.environment, start_new_session=True)
    try:
        _wait_until_ready(process)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("default::tests.e2e.test_readme.ReaderWarning")
def test_every_command_works_as_written(reader: Reader, service: subprocess.Popen[bytes]) -> None:
    demo = ROOT / "demo.png"
    demo.unlink(missing_ok=True)
    outputs = {}
    for block in BLOCK.finditer(README):
        kind, text = block["kind"], block["text"]
        if block["file"]:
            (reader.folder / block["file"]).write_text(text, "utf-8")
        elif text.startswith("reppose-train synth") and (missing := _no_made_people()):
            warnings.warn(f"left out, {missing}: {text}", ReaderWarning, stacklevel=1)
        elif kind in {"sh", "python"} and text not in {"make serve\n", "make test\n"}:
            outputs[text] = reader.run(kind, text)
    everything = "\n".join(outputs.values())
    assert demo.read_bytes().startswith(b"\x89PNG")
    assert (reader.folder / "pose.png").read_bytes().startswith(b"\x89PNG")
    assert (reader.folder / "skeletons.mp4").stat().st_size > 0
    assert re.search(r'"box_source":"(found|image)"', everything.replace(" ", ""))
    assert re.search(r"^nose +\d", everything, re.MULTILINE)
    assert "my-pose" in everything
    assert "PCK@0.2" in everything


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "```sh\nmake test\n```" in README
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"REPPOSE_[A-Z]+__[A-Z_]+", README))))
def test_named_settings_exist(variable: str) -> None:
    from service.settings import names

    assert variable in {name for name, _, _ in names()}


def test_curl_and_make_are_there() -> None:
    assert shutil.which("curl")
    assert shutil.which("make")


def _no_made_people() -> str | None:
    """Why people cannot be made here."""
    from trainer.synth.render import Renderer, RenderingUnavailable

    if importlib.util.find_spec("anny") is None:
        return "the extra `synth` is not installed"

    try:
        Renderer(64, 64).close()
    except RenderingUnavailable as reason:
        return str(reason)
    return None


def _write_jpeg(source: Path, target: Path) -> None:
    from PIL import Image

    with Image.open(source) as picture:
        picture.convert("RGB").save(target, quality=92)


def _write_clip(source: Path, target: Path) -> None:
    import cv2

    picture = cv2.imread(str(source))
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), 25, (480, 480))
    for left in range(0, 20, 4):
        writer.write(picture[:480, left : left + 480])
    writer.release()


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, f"make serve ended with {process.returncode}"
        try:
            with DIRECT.open(f"http://127.0.0.1:{PORTS[0]}/healthz/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    pytest.fail("make serve was not ready in time")
