"""A server that a command starts for itself has the settings of what it computes, and none of who may ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.bench import pictures
from service.settings import Settings, passing, read, tree

ROOT = Path(__file__).parents[2]

GUARDED = """
[auth]
key_file = "{keys}"
[rates]
frames_per_s = 1
by_address = true
[tls]
certificate = "no/such.pem"
key = "no/such.key"
[metrics]
port = 0
[http]
connections = 1
[models]
default = "tiny"
roots = ["{bundles}"]
[batch]
pin = "off"
"""
"""Settings under which nobody without a credential is answered, nor over plain HTTP."""


def test_every_setting_is_passed_or_left_at_its_default() -> None:
    sent = {
        "REPPOSE_MODELS__ROOTS": f"/a{os.pathsep}/b",
        "REPPOSE_MODELS__PRECISION": "int8",
        "REPPOSE_BATCH__SIZE": "3",
        "REPPOSE_BATCH__WINDOW_MS": "0.1",
        "REPPOSE_LOG__REQUESTS": "false",
        "REPPOSE_SESSIONS__TOKEN_KEYS": "ab" * 32,
        "REPPOSE_SESSIONS__STORE_URL": "redis://:secret@there/0",
        "REPPOSE_STREAMS__ORIGINS": "https://a.example,https://b.example",
        "REPPOSE_AUTH__KEY_FILE": "keys.toml",
        "REPPOSE_RATES__FRAMES_PER_S": "1",
        "REPPOSE_TLS__CERTIFICATE": "a.pem",
        "REPPOSE_TLS__KEY": "a.key",
        "REPPOSE_METRICS__PORT": "9000",
        "REPPOSE_ADMIN__ENABLED": "true",
        "REPPOSE_HTTP__HEADER_S": "0.001",
    }
    asked = read(sent).settings
    found = read(passing.environment(asked, sent)).settings
    for group, _, _ in tree.groups():
        source = asked if group in passing.PASSED else Settings()
        assert getattr(found, group) == getattr(source, group), group
    assert asked.models != Settings().models


def test_what_is_no_setting_is_inherited(tmp_path: Path) -> None:
    config = tmp_path / "reppose.toml"
    config.write_text("[batch]\nsize = 5\n[rates]\nframes_per_s = 1\n")
    kept = {"PATH": "/bin", "REPPOSE_CACHE": "/cache"}
    lost = {
        "REPPOSE_CONFIG": str(config),
        "reppose_http__port": "9",
        "REPPOSE_ADMIN__TOKEN_FILE": "/token",
        "REPPOSE_PORT": "tcp://10.0.0.1:80",
    }
    settings = read({}, config).settings
    assert passing.environment(settings, kept | lost) == kept | {"REPPOSE_BATCH__SIZE": "5"}


@pytest.mark.parametrize("where", ["option", "environment"])
def test_bench_runs_where_the_service_is_guarded(where: str, tiny_bundle_root: Path, tmp_path: Path) -> None:
    """It is asked without a credential, as often as can be, and for its metrics."""
    config = tmp_path / "reppose.toml"
    config.write_text(GUARDED.format(keys=tmp_path / "keys.toml", bundles=tiny_bundle_root))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REPPOSE_")}
    photo = tmp_path / "one.jpg"
    photo.write_bytes(pictures.standard()[1].data)
    given = ["--config", str(config)] if where == "option" else []
    done = subprocess.run(
        [
            sys.executable, "-m", "service", "bench", *given,
            "--quick", "--seconds", "0.3", "--concurrency", "2", "--routes", "rest", "--image", str(photo),
        ],
        env=clean | ({} if given else {"REPPOSE_CONFIG": str(config), "REPPOSE_AUTH__REREAD_S": "1"}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "one 192x256" in done.stdout
