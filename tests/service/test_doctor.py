"""`reppose-serve doctor`: what would keep the service from starting, found without starting it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import cli
from service.doctor import checks, machine
from service.doctor.findings import Finding, as_json, failed, table
from service.settings import Settings, read
from tests.service import serving
from tests.service.certificates import Authority


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith("REPPOSE_"):
            monkeypatch.delenv(name)
    return


@pytest.fixture
def good(tiny_bundle_root: Path) -> dict[str, str]:
    """An environment in which the service starts."""
    return {
        "REPPOSE_MODELS__ROOTS": str(tiny_bundle_root),
        "REPPOSE_MODELS__DEFAULT": "tiny@1",
        "REPPOSE_HTTP__PORT": "0",
        "REPPOSE_GRPC__PORT": "0",
    }


def ran(environment: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments], env=environment)


def findings(environment: dict[str, str], verdict: str) -> dict[str, str]:
    """What has this verdict, by check; the exit code agrees."""
    done = ran(environment, "--json")
    document = json.loads(done.stdout)
    verdicts = {each["verdict"] for each in document["findings"]}
    assert document["ok"] == ("failed" not in verdicts) == (done.exit_code == 0)
    return {each["check"]: each["found"] for each in document["findings"] if each["verdict"] == verdict}


def test_a_machine_that_will_do(good: dict[str, str]) -> None:
    done = ran(good)
    assert done.exit_code == 0, done.output
    assert "tiny@1: checksums right, runs in fp32 on cpu" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("0 failed")
    assert {"models", "threads", "memory", "limits", "http port", "grpc port"} <= findings(good, "ok").keys()


def test_it_runs_beside_the_service_and_sees_its_port(good: dict[str, str], service: serving.Service) -> None:
    """Nothing is taken away from a service that runs; and what doctor fails on, a second service fails on too."""
    port = service.url.rpartition(":")[2]
    failures = findings({**good, "REPPOSE_HTTP__PORT": port}, "failed")
    assert failures == {"http port": f"127.0.0.1:{port}: Address already in use"}
    assert serving.get(service, "/healthz/ready").status_code == 200
    refused = subprocess.run(
        [sys.executable, "-m", "service"],
        env=os.environ | good | {"REPPOSE_HTTP__PORT": port},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert "in use" in refused.stderr


def test_a_corrupt_bundle(good: dict[str, str], tiny_bundle_root: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle_root, tmp_path / "models")
    graph = next((tmp_path / "models" / "tiny" / "1").glob("*.onnx"))
    held = bytearray(graph.read_bytes())
    held[len(held) // 2] ^= 1
    graph.write_bytes(held)
    done = ran({**good, "REPPOSE_MODELS__ROOTS": str(tmp_path / "models")})
    assert done.exit_code == 1
    assert "sha256" in done.stdout
    assert "the default model tiny@1 is not among" in done.stdout


def test_folders_models_and_files_that_are_not_there(good: dict[str, str], tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert f"{nowhere} is no folder" in ran({**good, "REPPOSE_MODELS__ROOTS": nowhere}).stdout
    assert "x@1 is not among tiny" in findings({**good, "REPPOSE_MODELS__DEFAULT": "x@1"}, "failed")["models"]
    assert findings({**good, "REPPOSE_AUTH__KEY_FILE": nowhere}, "failed")["files"] == (
        f"auth.key_file: {nowhere}: No such file or directory"
    )


def test_a_provider_that_is_not_there(good: dict[str, str]) -> None:
    assert (
        "cannot run models by openvino"
        in findings({**good, "REPPOSE_MODELS__PROVIDER": "openvino"}, "failed")["models"]
    )


def test_wrong_settings_are_the_only_findings() -> None:
    done = ran({"REPPOSE_HTTP__PORT": "x", "REPPOSE_BATCH__SIZES": "1"}, "--json")
    assert done.exit_code == 1
    assert [each["found"].partition(":")[0] for each in json.loads(done.stdout)["findings"]] == [
        "REPPOSE_BATCH__SIZES is not a setting; did you mean REPPOSE_BATCH__SIZE?",
        "REPPOSE_HTTP__PORT",
    ]


def test_a_store_that_does_not_answer(good: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://:a-password@127.0.0.1:{silent.getsockname()[1]}"
        environment = {**good, "REPPOSE_SESSIONS__STORE_URL": url, "REPPOSE_SESSIONS__STORE_TIMEOUT_S": "0.1"}
        done = ran(environment)
    assert done.exit_code == 1
    assert "store does not answer" in done.stdout
    assert "REPPOSE_SESSIONS__TOKEN_KEYS" in done.stdout
    assert "a-password" not in done.output


def test_a_store_that_answers(good: dict[str, str], tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: redis-server)")
    path = tmp_path / "redis.sock"
    with subprocess.Popen(
        [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", tmp_path],
        stdout=subprocess.PIPE,
    ) as redis:
        try:
            assert redis.stdout is not None
            assert any(
                b"Ready to accept connections" in line or b"ready to accept" in line for line in redis.stdout
            )
            answered = findings({**good, "REPPOSE_SESSIONS__STORE_URL": f"unix://{path}"}, "ok")
        finally:
            redis.terminate()
            redis.stdout.read()
    assert answered["store"].startswith("answers in")


@pytest.mark.parametrize(
    ("environment", "check", "words"),
    [
        ({"REPPOSE_BATCH__WORKERS": "999"}, "threads", "999 workers"),
        ({"REPPOSE_LIMITS__IMAGE_PIXELS": str(10**13)}, "memory", "TiB"),
        ({"REPPOSE_HTTP__CONNECTIONS": str(10**12)}, "limits", "open files"),
        ({"REPPOSE_STREAMS__SAVE_S": "50"}, "settings", "every 50 s"),
    ],
)
def test_what_would_do_badly(
    environment: dict[str, str], check: str, words: str, good: dict[str, str]
) -> None:
    assert words in findings({**good, **environment}, "warning")[check]


def tls(folder: Path, name: str, ends: datetime) -> dict[str, str]:
    """Settings of a certificate of its own."""
    certificate, key = Authority().issue(ends=ends).write(folder, name)
    return {"REPPOSE_TLS__CERTIFICATE": str(certificate), "REPPOSE_TLS__KEY": str(key)}


@pytest.mark.parametrize(
    ("days", "verdict", "words"),
    [(30.5, "ok", "is good for 30."), (3.5, "warning", "expires in 3."), (-0.5, "failed", "expired on")],
)
def test_when_certificates_expire(
    days: float, verdict: str, words: str, good: dict[str, str], tmp_path: Path
) -> None:
    ends = datetime.now(UTC) + timedelta(days=days)
    environment = tls(tmp_path, "service", ends)
    assert words in findings({**good, **environment}, verdict)["certificate"]
    environment["REPPOSE_TLS__KEY"] = tls(tmp_path, "other", ends)["REPPOSE_TLS__KEY"]
    assert "no certificate and its key" in findings({**good, **environment}, "failed")["certificate"]


def test_files_of_keys(good: dict[str, str], tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text("")
    environment = {**good, "REPPOSE_AUTH__KEY_FILE": str(keys)}
    assert findings(environment, "warning")["credentials"] == f"keys in {keys}: 0"
    made = CliRunner().invoke(cli, ["key", "somebody", "--role", "predict", "--file", str(keys)])
    assert made.exit_code == 0, made.output
    assert findings(environment, "ok")["credentials"] == f"keys in {keys}: 1"
    assert made.stdout.strip() not in ran(environment).output
    keys.write_text(keys.read_text() * 2)
    assert "two keys have the id" in findings(environment, "failed")["credentials"]


def test_a_check_that_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch, good: dict[str, str]) -> None:
    def broken(effective):
        raise ValueError("of a bug")
        yield

    monkeypatch.setattr(checks, "CHECKS", (broken, checks.limits))
    found = checks.run(read(good))
    assert found[0] == Finding("broken", "failed", "ValueError: of a bug")
    assert [each.check for each in found[1:]] == ["limits"]


def test_every_listener_is_looked_at() -> None:
    told = list(checks.listeners(Settings()))
    assert ("http", "127.0.0.1", 8000) in told
    assert ("grpc", "127.0.0.1", 50051) in told
    assert "metrics" not in {group for group, _, _ in told}
    own = Settings(metrics={"host": "127.0.0.2", "port": 9100})
    assert ("metrics", "127.0.0.2", 9100) in checks.listeners(own)


def test_memory_is_that_of_the_container_where_it_is_less(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemFree: 1 kB\nMemTotal:       2048 kB\n")
    assert machine.memory_limit(tmp_path, meminfo) == 2048 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_limit(tmp_path, meminfo) == 2048 * 1024
    (tmp_path / "memory.max").write_text("4096\n")
    assert machine.memory_limit(tmp_path, meminfo) == 4096
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1024\n")
    assert machine.memory_limit(tmp_path, meminfo) == 1024
    assert machine.memory_limit(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("flags\t\t: fpu avx512_vnni sse\nflags\t\t: fpu\n", ["avx512_vnni"]),
        ("Features\t: fp asimd asimddp\n", ["asimddp"]),
        ("flags\t\t: fpu avx2\n", []),
        ("", []),
    ],
)
def test_instructions_for_8_bits(text: str, units: list[str], tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.integer_units(tmp_path / "cpuinfo") == units
    assert machine.integer_units(tmp_path / "none") == []


def test_findings_as_text() -> None:
    found = [Finding("a", "ok", "fine"), Finding("long", "failed", "broken", "mend it")]
    assert failed(found)
    assert not failed(found[:1])
    assert table(found).splitlines() == [
        "ok       a     fine",
        "failed   long  broken",
        "               -> mend it",
        "",
        "1 failed, 0 warnings",
    ]
    assert json.loads(as_json(found))["findings"][1] == {
        "check": "long",
        "verdict": "failed",
        "found": "broken",
        "advice": "mend it",
    }
