"""`reppose-serve`: predict without a service, demo with one, and help that teaches."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from service.cli import cli
from service.settings import names
from tests.service import serving
from tests.service.conftest import Scene


@pytest.fixture
def _tiny(tiny_bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("REPPOSE_MODELS__ROOTS", str(tiny_bundle_root))
    monkeypatch.setenv("REPPOSE_MODELS__DEFAULT", "tiny@1")
    monkeypatch.setenv("REPPOSE_BATCH__PIN", "off")
    yield
    logging.captureWarnings(False)


@pytest.fixture
def photo(tmp_path: Path, scene: Scene) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(scene.png)
    return path


def pixels(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image)


def ran(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


@pytest.mark.usefixtures("_tiny")
def test_predict_answers_as_the_service_does(photo: Path, scene: Scene, service: serving.Service) -> None:
    done = ran(
        "predict", photo, photo, "--boxes", json.dumps([scene.box]), "--decoder", "dark", "--model", "tiny"
    )
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    rest = serving.post(
        service, scene.png, boxes=json.dumps([scene.box]), decoder="dark", model="tiny"
    ).json()
    assert lines == [{"file": str(photo), **rest}] * 2


@pytest.mark.usefixtures("_tiny")
def test_predict_draws(photo: Path, tmp_path: Path, scene: Scene) -> None:
    out = tmp_path / "drawn.png"
    done = ran("predict", photo, "--render", out)
    assert done.exit_code == 0, done.output
    drawn = pixels(out)
    assert drawn.shape == scene.picture.shape
    assert (drawn != scene.picture).any()
    assert ran("predict", photo, photo, "--render", out).exit_code == 1


@pytest.mark.usefixtures("_tiny")
def test_predict_goes_on_after_an_image_that_fails(photo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"garbage")
    done = ran("predict", broken, tmp_path / "missing.jpg", photo)
    assert done.exit_code == 1
    first, second, third = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["error"]["code"] == "invalid_image"
    assert second["error"]["code"] == "unreadable"
    assert third["poses"]


@pytest.mark.usefixtures("_tiny")
def test_predict_refuses_wrong_options_in_words(photo: Path, tmp_path: Path) -> None:
    for options in (["--boxes", "nonsense"], ["--boxes", "[]"]):
        done = ran("predict", photo, *options)
        assert done.exit_code == 1
        assert "boxes" in done.output
    assert json.loads(ran("predict", photo, "--decoder", "x").stdout)["error"]["code"] == "unknown_decoder"
    assert json.loads(ran("predict", photo, "--model", "x").stdout)["error"]["code"] == "unknown_model"


def test_demo_writes_the_picture(photo: Path, tmp_path: Path, service: serving.Service, scene: Scene) -> None:
    out = tmp_path / "demo.png"
    done = ran("demo", photo, "--url", service.url, "--out", out)
    assert done.exit_code == 0, done.output
    assert "19 of 19 keypoints" in done.stdout
    assert pixels(out).shape == scene.picture.shape


@pytest.mark.usefixtures("_tiny")
def test_a_picture_that_cannot_be_written_is_an_error_in_words(
    photo: Path, tmp_path: Path, service: serving.Service
) -> None:
    missing = tmp_path / "missing" / "drawn.png"
    for arguments in (
        ("predict", photo, "--render", missing),
        ("demo", photo, "--url", service.url, "--out", missing),
    ):
        done = ran(*arguments)
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit)
        assert [line for line in done.stderr.splitlines() if "cannot write the picture" in line]
        assert str(missing) in done.stderr


def test_demo_has_a_photograph_of_its_own(tmp_path: Path, service: serving.Service) -> None:
    out = tmp_path / "demo.png"
    done = ran("demo", "--url", service.url, "--out", out)
    assert done.exit_code == 0, done.output
    with PIL.Image.open(out) as drawn:
        assert drawn.size == (512, 512)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "ftp://127.0.0.1:9"])
def test_demo_without_a_service_says_how_to_start_one(url: str, photo: Path) -> None:
    done = ran("demo", photo, "--url", url, "--wait", "0")
    assert done.exit_code == 1
    assert "reppose-serve" in done.output


def test_demo_at_a_port_that_speaks_no_http_says_so(photo: Path, service: serving.Service) -> None:
    done = ran("demo", photo, "--url", f"http://{service.target}", "--wait", "0")
    assert done.exit_code == 1
    assert done.stderr.startswith("reppose-serve: no service is ready at ")


@pytest.mark.parametrize("option", ["--seconds", "--rounds"])
def test_a_bench_of_no_time_is_refused_not_lengthened(option: str) -> None:
    done = ran("bench", option, "0")
    assert done.exit_code == 2
    assert option in done.stderr


def test_demo_with_a_file_that_is_no_photograph(tmp_path: Path, service: serving.Service) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"garbage")
    done = ran("demo", broken, "--url", service.url)
    assert done.exit_code == 1
    assert "invalid_image" in done.output


@pytest.mark.parametrize("command", [[], ["serve"], ["predict"], ["demo"]])
def test_help_teaches_by_example(command: list[str]) -> None:
    done = ran(*command, "--help")
    assert done.exit_code == 0
    assert "    reppose-serve " in done.stdout


def test_serve_refuses_wrong_settings_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPPOSE_HTTP__PORT", "http")
    monkeypatch.setenv("REPPOSE_BATCH__SIZES", "4")
    done = ran("serve")
    assert done.exit_code == 1
    assert "REPPOSE_HTTP__PORT: " in done.output
    assert "REPPOSE_BATCH__SIZES is not a setting; did you mean REPPOSE_BATCH__SIZE?" in done.output


def test_help_of_serve_names_every_setting() -> None:
    text = ran("serve", "--help").stdout
    assert all(name in text for name, _, _ in names())


def test_help_is_quick_to_come_by() -> None:
    """Neither ONNX Runtime nor the transports are imported for it."""
    code = "import sys, service.cli; print({'onnxruntime', 'grpc', 'fastapi', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
