"""reppose-zoo from the outside: output, exit codes, and never a traceback for what users cause."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from model_zoo import bundle
from model_zoo.cli import COMMANDS_GROUP, add_commands, app


@pytest.fixture
def root(tmp_path: Path, manifest_of) -> Path:
    """A folder with toy@1 and toy@2."""
    for version in ("1", "2"):
        bundle.write(
            tmp_path, manifest_of(version=version), {"model.onnx": b"the graph", "README.md": b"# Toy"}
        )
    return tmp_path


def run(*arguments: object) -> Result:
    """Call reppose-zoo; an exception that it did not handle itself is raised here."""
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def test_list(root):
    result = run("list", "--root", root)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["toy@1  body19  A toy model", "toy@2  body19  A toy model"]


def test_list_of_nothing_says_so(tmp_path):
    result = run("list", "--root", tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"no bundles under {tmp_path}\n")


def test_list_goes_on_after_a_broken_bundle(root):
    (root / "toy" / "1" / "model.onnx").unlink()
    result = run("list", "--root", root)
    assert result.exit_code == 0
    assert "UNUSABLE" in result.stdout.splitlines()[0]
    assert result.stdout.splitlines()[1].startswith("toy@2")


def test_show_takes_the_newest_or_the_named_version(root):
    assert "toy@2" in run("show", "toy", "--root", root).stdout
    shown = run("show", "toy@1", "--root", root)
    assert shown.exit_code == 0
    for fact in (
        "toy@1",
        "256 x 192",
        "32 x 24, stride 8",
        "126.0 MMACs",
        "PCK@0.2 61.5 on lsp_test",
        "dark",
    ):
        assert fact in shown.stdout


def test_show_tells_what_the_graphs_answer_and_which_there_are(tmp_path, manifest_of, document):
    accuracy = document()["accuracy"]
    manifest = manifest_of(
        outputs=[*document()["outputs"], {"kind": "keypoints", "name": "keypoints", "decoder": "dark"}],
        int8_file="model.int8.onnx",
        accuracy=[*accuracy, accuracy[0] | {"value": 61.1, "precision": "int8"}],
    )
    bundle.write(tmp_path, manifest, {"model.onnx": b"g" * 90_000, "model.int8.onnx": b"g" * 30_000})
    shown = run("show", "toy", "--root", tmp_path).stdout
    for fact in ("keypoints: by dark, in the graph", "0.09 MB, int8 0.03 MB"):
        assert fact in shown
    assert shown.splitlines()[-2:] == [
        "accuracy:  PCK@0.2 61.5 on lsp_test (459 people)",
        "accuracy:  PCK@0.2 61.1 on lsp_test (459 people), int8",
    ]


def test_show_tells_of_presence_classes_and_depth(tmp_path, manifest_of, document):
    more = [
        {"kind": "presence", "name": "presence", "of": "hand"},
        {"kind": "classes", "name": "gesture", "of": "gesture", "labels": ["fist", "thumb"]},
        {"kind": "depth", "name": "depth", "root": "nose"},
    ]
    calibrated = {
        "of": "gesture", "scale": 0.5, "event": "the class is right", "data": "val", "count": 9, "bins": 15,
        "error_before": 0.25, "error": 0.03, "command": "none",
    }  # fmt: skip
    manifest = manifest_of(
        outputs=[*document()["outputs"], *more], calibration=[calibrated], schema_version=2
    )
    bundle.write(tmp_path, manifest, {"model.onnx": b"graph"})
    shown = run("show", "toy", "--root", tmp_path).stdout.splitlines()
    for line in (
        "presence:  of a hand",
        "gesture:   fist, thumb",
        "depth:     z relative to nose",
        "gesture calibrated: error 0.250 to 0.030 on val",
    ):
        assert line in shown


def test_show_of_a_net_without_heatmaps(tmp_path, manifest_of):
    manifest = manifest_of(outputs=[{"kind": "keypoints", "name": "keypoints"}], codec=None)
    bundle.write(tmp_path, manifest, {"model.onnx": b"the graph"})
    shown = run("show", "toy", "--root", tmp_path).stdout
    assert "keypoints: by the net itself" in shown
    assert "heatmaps" not in shown


def test_show_json_is_the_manifest(root):
    shown = json.loads(run("show", "toy@1", "--json", "--root", root).stdout)
    assert shown == json.loads((root / "toy" / "1" / "manifest.json").read_text())


@pytest.mark.parametrize(
    "arguments", [(), ("toy",), ("toy@2",), ("{root}/toy/1",)], ids=["all", "newest", "version", "folder"]
)
def test_verify_of_whole_bundles(root, arguments):
    result = run("verify", *(each.format(root=root) for each in arguments), "--root", root)
    assert result.exit_code == 0
    assert all(line.startswith("ok  toy@") for line in result.stdout.splitlines())
    assert len(result.stdout.splitlines()) == (1 if arguments else 2)


def test_verify_takes_a_folder_here_without_a_slash(root, monkeypatch):
    monkeypatch.chdir(root / "toy")
    assert run("verify", "1").stdout == "ok  toy@1  1\n"


def test_verify_names_what_is_broken_and_still_checks_the_rest(root):
    path = root / "toy" / "1" / "model.onnx"
    path.write_bytes(b"the grapH")
    result = run("verify", "--root", root)
    assert result.exit_code == 1
    assert result.stdout.startswith("ok  toy@2")
    assert result.stderr.startswith(f"BROKEN  {path}: sha256")
    assert result.stderr.count("\n") == 1


def test_verify_notices_a_bundle_under_a_false_name(root):
    shutil.copytree(root / "toy" / "1", root / "toy" / "3")
    result = run("verify", "--root", root)
    assert result.exit_code == 1
    assert "calls itself toy@1" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("show", "tyo"), "error: no bundle 'tyo'; known: toy@1, toy@2"),
        (("show", "toy@3"), "error: no bundle 'toy@3'; known: toy@1, toy@2"),
        (("verify", "toy@3"), "BROKEN  no bundle 'toy@3'; known: toy@1, toy@2"),
        (("verify", "./absent"), "BROKEN  absent: there is no manifest.json"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_1(root, arguments, complaint):
    result = run(*arguments, "--root", root)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", complaint + "\n")


def test_a_check_of_nothing_does_not_pass(tmp_path):
    result = run("verify", "--root", tmp_path)
    assert (result.exit_code, result.stderr) == (1, f"error: no bundles under {tmp_path}\n")


def test_other_distributions_add_commands(root, monkeypatch):
    monkeypatch.setattr(app, "registered_commands", list(app.registered_commands))
    offers = [
        ("twice", "math:nothing_of_this_name"),
        ("list", "math:pi"),
        ("absent", "no_such_module:command"),
    ]
    add_commands(EntryPoint(name, value, COMMANDS_GROUP) for name, value in offers)
    assert "toy@1" in run("list", "--root", root).stdout  # its own commands stay
    for name, value in (offers[0], offers[2]):
        result = run(name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: {name} cannot be loaded from {value}: ")
        assert result.stderr.count("\n") == 1


def test_an_added_command_runs(root, monkeypatch):
    monkeypatch.setattr(app, "registered_commands", list(app.registered_commands))
    add_commands([EntryPoint("also", "model_zoo.cli:list_bundles", COMMANDS_GROUP)])
    assert run("also", "--root", root).stdout == run("list", "--root", root).stdout != ""


@pytest.mark.parametrize("command", [(), ("list",), ("show",), ("verify",)])
def test_help_teaches_with_an_example(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "  reppose-zoo " in result.stdout or ": reppose-zoo " in result.stdout
