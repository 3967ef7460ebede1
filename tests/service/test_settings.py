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
