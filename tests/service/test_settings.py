"""The environment, read once: names, defaults, refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from model_zoo import bundle
from service.settings import Settings, names, unknown_names


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("REPPOSE_"):
            monkeypatch.delenv(name)


def test_defaults() -> None:
    settings = Settings()
    assert settings.http.port == 8000
    assert settings.grpc.port == 50051
    assert settings.models.roots == (bundle.BUILTIN,)


def test_the_environment_changes_one_value_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPPOSE_HTTP__PORT", "0")
    monkeypatch.setenv("REPPOSE_MODELS__ROOTS", "/a:/b")
    settings = Settings(http={"host": "0.0.0.0"})
    assert (settings.http.port, settings.http.host) == (0, "0.0.0.0")
    assert settings.models.roots == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REPPOSE_HTTP__PORT", "65536"),
        ("REPPOSE_HTTP__PORT", "many"),
        ("REPPOSE_HTTP__PROT", "8000"),
        ("REPPOSE_BATCH__SIZE", "0"),
        ("REPPOSE_BATCH__PIN", "perhaps"),
        ("REPPOSE_LIMITS__IMAGE_SIDE", "40000"),
        ("REPPOSE_DRAIN__TIMEOUT_S", "0"),
        ("REPPOSE_SESSIONS__IDLE_S", "0"),
        ("REPPOSE_SESSIONS__TOKEN_KEYS", "only-15-letters"),
        ("REPPOSE_SESSIONS__TOKEN_KEYS", "0123456789abcdef,"),
        ("REPPOSE_SESSIONS__STORE_PREFIX", "a:b"),
    ],
)
def test_wrong_values_and_names_are_errors(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_a_name_that_no_setting_reads_is_warned_of() -> None:
    environment = {"REPPOSE_HTTP_PORT": "1", "REPPOSE_HTTP__PORT": "1", "REPPOSE_HTTP": "{}", "PATH": "/bin"}
    assert unknown_names(environment) == [
        "REPPOSE_HTTP_PORT is not a setting; did you mean REPPOSE_HTTP__PORT?"
    ]
    assert unknown_names({"REPPOSE_XYZZY_PLUGH": ""}) == ["REPPOSE_XYZZY_PLUGH is not a setting"]


@pytest.mark.parametrize(("name", "meaning"), [(name, meaning) for name, meaning, _ in names()])
def test_every_setting_is_explained(name: str, meaning: str) -> None:
    assert meaning.strip().endswith(".")


def test_keys_of_resume_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().sessions.keys == ()
    monkeypatch.setenv("REPPOSE_SESSIONS__TOKEN_KEYS", "the-new-key-of-today, the-old-key-still-out")
    settings = Settings()
    assert settings.sessions.keys == (b"the-new-key-of-today", b"the-old-key-still-out")
    assert "the-new" not in repr(settings)


KEYS = "REPPOSE_SESSIONS__TOKEN_KEYS"


def test_a_secret_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "keys"
    secret.write_text("the-new-key-of-today,the-old-key-still-out\r\n")
    monkeypatch.setenv(f"{KEYS}_FILE", str(secret))
    monkeypatch.setenv("REPPOSE_SESSIONS__IDLE_S", "7")
    settings = Settings()
    assert settings.sessions.keys == (b"the-new-key-of-today", b"the-old-key-still-out")
    assert settings.sessions.idle_s == 7
    assert unknown_names(os.environ) == []


@pytest.mark.parametrize("held", [None, b"\xff" * 20, b"short"])
def test_a_file_without_a_usable_secret_is_an_error_that_hides_it(
    held: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if held is not None:
        (tmp_path / "keys").write_bytes(held)
    monkeypatch.setenv(f"{KEYS}_FILE", str(tmp_path / "keys"))
    with pytest.raises(ValidationError, match="token_keys") as caught:
        Settings()
    assert "short" not in str(caught.value)


def test_a_secret_and_its_file_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef")
    monkeypatch.setenv(f"{KEYS}_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv(KEYS, "0123456789abcdef")
    with pytest.raises(ValidationError, match="exclude each other"):
        Settings()


def test_only_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPPOSE_HTTP__PORT_FILE", "/etc/hostname")
    with pytest.raises(ValidationError):
        Settings()
    assert unknown_names(os.environ) == [
        "REPPOSE_HTTP__PORT_FILE is not a setting; did you mean REPPOSE_HTTP__PORT?"
    ]
