"""API keys and their file: what is believed, and what is refused with which words."""

from __future__ import annotations

import contextlib
import stat
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from service.auth import keys
from service.auth.keys import Keys
from service.auth.rates import NO_LIMITS, Limits
from service.auth.roles import Role
from service.cli import cli
from service.errors import BadCredentialFile

NAMES = st.text(string.ascii_letters + string.digits + "._@-", min_size=1, max_size=64)
ROLES = st.lists(st.sampled_from(list(Role)), min_size=1, max_size=3, unique=True)
WHEN = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(name=NAMES, roles=ROLES, expires=st.none() | WHEN, rate=st.none() | st.floats(0, 1e12))
def test_a_key_is_known_by_its_entry(
    name: str, roles: list[Role], expires: datetime | None, rate: float | None
) -> None:
    limits = {} if rate is None else {"frames_per_s": rate}
    key, entry = keys.make(name, roles, expires, limits)
    assert key not in entry
    assert key[16:] not in entry
    found = Keys(entry, Limits(frames_per_s=7, streams=2)).verify(key)
    assert (found.owner, found.name, found.roles) == (f"key:{name}", name, frozenset(roles))
    assert found.limits == Limits(frames_per_s=7 if rate is None else rate, streams=2)
    if expires is None:
        assert found.expires_s == float("inf")
    else:
        assert 0 <= expires.timestamp() - found.expires_s < 1
    assert keys.own_limits(entry, name) == limits


KEY, ENTRY = keys.make("somebody", [Role.PREDICT])
OTHER, OTHER_ENTRY = keys.make("other", [Role.PREDICT])
KNOWN = Keys(f"{ENTRY}\n{OTHER_ENTRY}")


@given(st.integers(0, len(KEY) - 1), st.characters())
def test_one_other_character_makes_it_another_key(at: int, character: str) -> None:
    changed = KEY[:at] + character + KEY[at + 1 :]
    assert (KNOWN.verify(changed) is not None) == (changed == KEY)


@given(st.text(max_size=80) | st.text(string.ascii_letters + string.digits + "_-", min_size=40, max_size=80))
def test_nothing_else_is_a_key(text: str) -> None:
    assert KNOWN.verify(text) is None
    assert KNOWN.verify(f"{KEY}{text or ' '}") is None
    assert KNOWN.verify(f"{KEY[:16]}{OTHER[16:]}") is None


def test_keys_of_one_name_are_one_client() -> None:
    key, entry = keys.make("somebody", [Role.ADMIN])
    both = Keys(f"{ENTRY}\n{entry}")
    assert both.verify(KEY).owner == both.verify(key).owner
    assert both.verify(KEY).roles != both.verify(key).roles


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[key]", "no TOML"),
        ("keys = 1", "keys: Extra inputs"),
        ("[[key]]\nname = 'a'", "key.0.id: Field required"),
        (ENTRY.replace('"predict"', '"boss"'), "key.0.roles.0"),
        (ENTRY.replace('["predict"]', "[]"), "key.0.roles"),
        (ENTRY.replace('name = "', 'name = "a b'), "key.0.name"),
        (ENTRY + "expires = 2027-01-01T00:00:00\n", "timezone"),
        (ENTRY + "frames_per_s = -1\n", "greater than or equal to 0"),
        (ENTRY + "frames_per_s = nan\n", "key.0.frames_per_s"),
        (ENTRY + "pixel_per_s = 1\n", "Extra inputs"),
        (f"{ENTRY}\n{ENTRY}", "two keys have the id"),
        (ENTRY + f"frames_per_s = {'1' * 5000}\n", "no TOML"),
        (f"key = {'[' * 5000}", "no TOML"),
        (f"{ENTRY}\n{keys.make('somebody', [Role.PREDICT], None, {'streams': 1})[1]}", "different limits"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(BadCredentialFile, match=says) as caught:
        Keys(text)
    assert "sha256 =" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_file_or_a_fault(text: str) -> None:
    with contextlib.suppress(BadCredentialFile):
        Keys(text)


def test_an_entry_is_added_to_a_file_that_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    keys.add(path, ENTRY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(path.read_text().rstrip("\n") + "\n# a comment without an end of line")
    keys.add(path, OTHER_ENTRY)
    assert {Keys(path.read_text()).verify(each).name for each in (KEY, OTHER)} == {"somebody", "other"}
    before = path.read_bytes()
    with pytest.raises(BadCredentialFile, match="two keys"):
        keys.add(path, ENTRY)
    assert path.read_bytes() == before


def made(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["key", *arguments])
    return done.exit_code, done.stdout.strip(), done.stderr


def test_the_command_makes_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPPOSE_AUTH__KEY_FILE", str(tmp_path / "keys.toml"))
    code, first, _ = made("camera", "--role", "predict", "--days", "1", "--pixels-per-s", "2.5e6")
    assert code == 0
    code, second, _ = made("camera", "--role", "predict", "--role", "metrics")
    assert code == 0
    found = Keys((tmp_path / "keys.toml").read_text(), NO_LIMITS)
    assert found.verify(first).limits == found.verify(second).limits == Limits(pixels_per_s=2.5e6)
    in_s = found.verify(first).expires_s - datetime.now(UTC).timestamp()
    assert 0.99 < timedelta(seconds=in_s) / timedelta(days=1) <= 1
    assert found.verify(second).roles == {Role.PREDICT, Role.METRICS}
    code, _, says = made("camera", "--role", "predict", "--streams", "1")
    assert (code, "different limits" in says) == (1, True)
    code, _, says = made('a"b', "--role", "predict")
    assert (code, "a name has" in says) == (1, True)
    assert len(found) == len(Keys((tmp_path / "keys.toml").read_text())) == 2


def test_the_command_needs_to_know_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPPOSE_AUTH__KEY_FILE", raising=False)
    code, _, says = made("camera", "--role", "predict")
    assert (code, "--file" in says) == (1, True)
    code, entry, key = made("camera", "--role", "predict", "--file", "-")
    assert code == 0
    assert Keys(entry).verify(key.strip()).name == "camera"
