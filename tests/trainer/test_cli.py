"""`reppose-train` as its user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from model_zoo import bundle
from tests.trainer import people_made
from trainer import cli
from trainer import config as configuration

COMMANDS = ("train", "configs", "compare", "bench", "evaluate", "export")


def run(*arguments: object) -> str:
    """What a command that succeeds prints."""
    done = CliRunner().invoke(cli.app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The one line that a command which fails as expected prints."""
    monkeypatch.setattr(sys, "argv", ["reppose-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_help_names_every_command() -> None:
    text = run("--help")
    assert all(each in text for each in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    text = run(command, "--help")
    if command != "configs":
        assert f"Example: reppose-train {command}" in " ".join(text.split())
        assert ("--data" in text) == (command != "compare")


def test_the_shipped_configurations_are_listed() -> None:
    lines = run("configs").splitlines()
    assert [line.split()[0] for line in lines] == configuration.shipped()
    description = configuration.load("body19-small").description
    assert any(line.endswith(description) for line in lines)


def test_a_run_from_configuration_to_bundle(tmp_path: Path) -> None:
    people_made.make(tmp_path / "data", count=16)
    document = people_made.run_document(phases=[{"epochs": 9, "height": 64, "width": 64}])
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(document), "utf-8")
    where = ["--data", tmp_path / "data"]
    out = ["--out", tmp_path / "run", "--set", "phases.0.epochs=1", "--accelerator", "cpu", "--processes", 1]
    run("train", tmp_path / "mini.yaml", *where, *out)
    table = run(
        "evaluate", tmp_path / "run", *where, "--on", "people.json", "--per-keypoint", "--decoder", "dsnt"
    )
    for word in ("PCK@0.2", "PCKh@0.5", "OKS-AP", "left_ankle", "dsnt", "people"):
        assert word in table
    text = run("export", tmp_path / "run", *where, "--out", tmp_path / "bundles", "--version", "2")
    written = bundle.find("mini", "2", [tmp_path / "bundles"])
    assert f"wrote {written.folder}" in text
    assert written.manifest.training.epochs == 1


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A configuration beside its data."""
    people_made.make(tmp_path, count=8)
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump(people_made.run_document()), "utf-8")
    return path


def test_mistakes_in_a_training_command_are_one_line(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*arguments: object) -> str:
        return refused(capsys, monkeypatch, "train", *arguments, "--out", configured.parent / "run")

    data = ("--data", configured.parent)
    assert "body19-small" in error("body19-smal", *data)
    assert "did you mean 'seed'" in error(configured, *data, "--set", "sed=1")
    assert "people.json" in error(configured, "--data", configured.parent / "elsewhere", "--processes", 1)
    assert "unknown accelerator" in error(configured, *data, "--accelerator", "abacus", "--processes", 1)
    cpu = ("--accelerator", "cpu", "--processes", 1)
    assert "mini.yaml is not JSON" in error(
        configured, *data, *cpu, "--set", "data.train.0.teacher=mini.yaml"
    )
    assert "nobody with 20" in error(configured, *data, *cpu, "--set", "data.train.0.keypoints_at_least=20")


def test_mistakes_in_other_commands_are_one_line(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*arguments: object) -> str:
        return refused(capsys, monkeypatch, *arguments)

    run_folder, data = trained.folder.path, ("--data", trained.root)
    on = ("--on", "people.json")
    assert "no bundle 'nobody'" in error("evaluate", "nobody", *data, *on)
    assert "neither a bundle folder nor a run" in error("evaluate", "no/where", *data, *on)
    assert "absent.json" in error("evaluate", run_folder, *data, "--on", "absent.json")
    assert "unknown decoder 'magic'" in error("evaluate", run_folder, *data, *on, "--decoder", "magic")
    assert "absent.tar" in error("evaluate", run_folder, *data, *on, "--images", "absent.tar")
    assert "no run folder" in error("export", tmp_path, *data)
    (tmp_path / "empty.json").write_text(
        json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "keypoints": ["nose"]}]})
    )
    assert "empty.json has nobody" in error("evaluate", run_folder, *data, "--on", tmp_path / "empty.json")


@pytest.mark.parametrize(
    "arguments", [["train"], ["train", "x", "--processes", "-1"], ["evaluate", "x"], ["fly"], ["export"]]
)
def test_a_command_that_is_not_understood_exits_with_two(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.app, arguments).exit_code == 2


def test_an_expected_error_of_the_real_command_has_no_traceback() -> None:
    command = [sys.executable, "-m", "trainer", "evaluate", "nobody", "--on", "people.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no bundle 'nobody'")


def test_listing_configurations_does_not_wait_for_lightning() -> None:
    code = "import sys; sys.modules['lightning'] = None; from trainer.cli import app; app(['configs'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "body19-small" in done.stdout
