"""`reppose-serve config`: what is in force, where it came from, and what all of it means."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from service.cli import cli
from service.settings import Settings, read
from service.settings.text import MASK, documentation, toml
from service.settings.tree import groups, known

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-that-nobody-may-read"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith("REPPOSE_"):
            monkeypatch.delenv(name)
    return


def ran(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments], env=environment)


@given(
    host=st.text(),
    ages=st.floats(0, exclude_min=True, allow_infinity=True),
    origins=st.lists(st.text()),
    paths=st.lists(st.text(min_size=1).filter(lambda text: "\0" not in text)),
    requests=st.booleans(),
)
def test_what_is_printed_can_be_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    host: str,
    ages: float,
    origins: list[str],
    paths: list[str],
    requests: bool,
) -> None:
    values = {
        ("http", "host"): host,
        ("streams", "frame_age_s"): ages,
        ("streams", "origins"): tuple(origins),
        ("models", "roots"): tuple(paths),
        ("log", "requests"): requests,
    }
    before = read({}, None, {key: ("--option", value) for key, value in values.items()})
    file = tmp_path_factory.getbasetemp() / "printed.toml"
    file.write_bytes(toml(before).encode())
    assert read({}, file).settings == before.settings


def test_it_prints_all_settings_with_their_places_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "reppose.toml"
    file.write_text(f'[sessions]\nstore_url = "redis://:{SECRET}@store"\n[batch]\nqueue = 7')
    done = ran("--config", file, "config", REPPOSE_HTTP__PORT="9000", REPPOSE_ADMIN__TOKEN=SECRET)
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    lines = {line.split(" = ")[0]: line for line in done.stdout.splitlines() if " = " in line}
    assert lines["# token"].endswith(f'"{MASK}"                      # REPPOSE_ADMIN__TOKEN')
    assert lines["queue"].split() == ["queue", "=", "7", "#", f"{file}:", "batch.queue"]
    assert "port = 9000                               # REPPOSE_HTTP__PORT" in done.stdout
    assert lines["keep_alive_s"].endswith("# default")
    document = tomllib.loads(done.stdout)
    assert set(document) == {group for group, _, _ in groups()}


def test_as_json_every_setting_is_there() -> None:
    done = ran("config", "--json", REPPOSE_HTTP__PORT="9000", REPPOSE_ADMIN__TOKEN=SECRET)
    assert SECRET not in done.output
    document = json.loads(done.stdout)
    assert {f"{group}.{name}" for group in document for name in document[group]} == {
        each.key for each in known()
    }
    assert document["http"]["port"] == {"value": 9000, "source": "environment", "place": "REPPOSE_HTTP__PORT"}
    assert document["admin"]["token"]["value"] == MASK
    assert document["sessions"]["token_keys"] == {"value": "", "source": "default", "place": ""}


def test_which_file_is_read(tmp_path: Path) -> None:
    files = []
    for size in (1, 2, 3):
        files.append(tmp_path / f"{size}.toml")
        files[-1].write_text(f"[batch]\nsize = {size}")

    def size(*arguments: object, **environment: str) -> int:
        return json.loads(ran(*arguments, "--json", **environment).stdout)["batch"]["size"]["value"]

    assert size("config") == Settings().batch.size
    assert size("config", REPPOSE_CONFIG=str(files[0])) == 1
    assert size("--config", files[1], "config", REPPOSE_CONFIG=str(files[0])) == 2
    assert size("--config", files[1], "config", "--config", files[2], REPPOSE_CONFIG=str(files[0])) == 3


@pytest.mark.parametrize("command", ["config", "serve", "predict", "bench", "jitter"])
def test_wrong_settings_end_every_command_with_all_problems(command: str, tmp_path: Path) -> None:
    file = tmp_path / "reppose.toml"
    file.write_text("[batch]\nsize = 0")
    extra = {"predict": ["x.jpg"], "jitter": ["--data", tmp_path]}.get(command, [])
    done = ran("--config", file, command, *extra, REPPOSE_HTTP__PORT="x")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert f"{file}: batch.size: " in done.stderr
    assert "REPPOSE_HTTP__PORT: " in done.stderr


def test_the_documentation_is_that_of_the_settings() -> None:
    kept = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert kept == documentation(), "docs/settings.md is older than the settings: make settings"
    assert ran("config", "--docs").stdout == kept
    for each in known():
        row = next(line for line in kept.splitlines() if f"| `{each.variable}` |" in line)
        assert row.count(" | ") == 4
        assert each.meaning.replace("|", "\\|") in row


def test_bounds_are_told_as_they_are_enforced() -> None:
    told = {each.key: each.kind for each in known()}
    assert told["http.port"] == "whole number from 0 to 65535"
    assert told["drain.timeout_s"] == "number above 0"
    assert told["log.level"] == "`debug`, `info`, `warning`, `error`"
    assert told["models.roots"] == "list of path"
    assert told["admin.token"] == "secret text"
