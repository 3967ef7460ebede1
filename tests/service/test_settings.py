"""Settings: names, defaults, refusals, and which of file, environment and options decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo import bundle
from service.settings import Settings, SettingsError, names, read
from service.settings.tree import groups, known


def problems(
    environment: dict[str, str] | None = None, file: Path | None = None, **options: object
) -> list[str]:
    """What is told of settings that must be refused."""
    given_options = {("http", name): (f"--{name}", value) for name, value in options.items()}
    with pytest.raises(SettingsError) as caught:
        read(environment or {}, file, given_options)
    return list(caught.value.problems)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "reppose.toml"


def test_defaults() -> None:
    effective = read({"PATH": "/bin"})
    assert effective.settings == Settings()
    assert effective.origins == {}
    assert effective.settings.http.port == 8000
    assert effective.settings.grpc.port == 50051
    assert effective.settings.models.roots == (bundle.BUILTIN,)


def test_options_go_over_the_environment_and_that_over_the_file(file: Path) -> None:
    file.write_text('[http]\nhost = "file"\nport = 1\nkeep_alive_s = 5\n[models]\nroots = ["/c", "/d"]')
    environment = {"REPPOSE_HTTP__HOST": "environment", "REPPOSE_HTTP__PORT": "2"}
    effective = read(environment, file, {("http", "port"): ("--http-port", 3)})
    http = effective.settings.http
    assert (http.host, http.port, http.keep_alive_s) == ("environment", 3, 5)
    assert effective.settings.models.roots == (Path("/c"), Path("/d"))
    told = {".".join(key): (each.source, each.place) for key, each in effective.origins.items()}
    assert told == {
        "http.port": ("option", "--http-port"),
        "http.host": ("environment", "REPPOSE_HTTP__HOST"),
        "http.keep_alive_s": ("file", f"{file}: http.keep_alive_s"),
        "models.roots": ("file", f"{file}: models.roots"),
    }


def test_lists_in_the_environment(file: Path) -> None:
    settings = read(
        {"REPPOSE_MODELS__ROOTS": "/a:/b", "REPPOSE_STREAMS__ORIGINS": "https://a, https://b,"}
    ).settings
    assert settings.models.roots == (Path("/a"), Path("/b"))
    assert settings.streams.origins == ("https://a", "https://b")


WRONG = [
    ("http.port", "65536"),
    ("http.port", "many"),
    ("batch.size", "0"),
    ("batch.pin", "perhaps"),
    ("limits.image_side", "40000"),
    ("drain.timeout_s", "0"),
    ("sessions.idle_s", "0"),
    ("drain.notice_s", "inf"),
    ("rates.pixels_per_s", "Infinity"),
    ("auth.key_file", ""),
    ("tls.probe_certificate", ""),
    ("sessions.token_keys", "only-15-letters"),
    ("sessions.token_keys", "0123456789abcdef,"),
    ("sessions.store_prefix", "a:b"),
    ("admin.token", "with a space in it"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_told_by_its_place_and_never_shown(key: str, value: str, file: Path) -> None:
    group, name = key.split(".")
    variable = f"REPPOSE_{group}__{name}".upper()
    (told,) = problems({variable: value})
    assert told.startswith(f"{variable}: ")
    assert len(value) < 3 or value not in told
    file.write_text(f'[{group}]\n{name} = "{value}"')
    (told,) = problems({}, file)
    assert told.startswith(f"{file}: {key}: ")
    assert len(value) < 3 or value not in told.removeprefix(str(file))


def test_all_that_is_wrong_is_told_at_once(file: Path) -> None:
    file.write_text('[http]\nprot = 1\nport = "x"\n[htpp]\nhost = "a"\n[batch]\nqueue = -1')
    told = problems(
        {
            "REPPOSE_HTTP_PORT": "1",
            "REPPOSE_BATCH__SIZE": "0",
            "REPPOSE_ADMIN__TOKEN_FILE": "/nowhere/at/all",
        },
        file,
        keep_alive_s=0,
    )
    assert sorted(told) == sorted(
        [
            f"{file}: http.prot is not a setting; did you mean http.port?",
            f"{file}: htpp is not a group of settings; did you mean http?",
            f"{file}: http.port: Input should be a valid integer, unable to parse string as an integer",
            f"{file}: batch.queue: Input should be greater than 0",
            "REPPOSE_HTTP_PORT is not a setting; did you mean REPPOSE_HTTP__PORT?",
            "REPPOSE_BATCH__SIZE: Input should be greater than 0",
            "REPPOSE_ADMIN__TOKEN_FILE: cannot read /nowhere/at/all: No such file or directory",
            "--keep_alive_s: Input should be greater than 0",
        ]
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http = 1", "http must be a table: [http]"),
        ("port = 1", "port is not a setting; did you mean http.port?"),
        ("[http]\nhttp_port = 1", "http.http_port is not a setting; did you mean http.port?"),
        ("[xyzzy]", "xyzzy is not a group of settings"),
        ("[http", "Expected ']' at the end of a table declaration (at end of document)"),
    ],
)
def test_a_file_that_is_not_understood(text: str, told: str, file: Path) -> None:
    file.write_text(text)
    assert problems({}, file) == [f"{file}: {told}"]


def test_a_file_that_cannot_be_read(file: Path) -> None:
    assert problems({}, file) == [f"{file}: No such file or directory"]
    file.write_bytes(b"\xff")
    assert len(problems({}, file)) == 1


def settled(*sources: object) -> tuple[Settings | None, list[str]]:
    """What is read, or what is told."""
    try:
        return read(*sources).settings, []
    except SettingsError as error:
        return None, list(error.problems)


@given(st.text() | st.binary())
def test_whatever_is_in_the_file_is_settings_or_told(
    tmp_path_factory: pytest.TempPathFactory, held: str | bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(held if isinstance(held, bytes) else held.encode(errors="surrogatepass"))
    settings, told = settled({}, file)
    assert settings == Settings() or told
    assert all(each.startswith(str(file)) for each in told)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([(each.group, each.name) for each in known()]), VALUES, max_size=4))
def test_values_of_any_type_are_settings_or_told_with_their_place(
    values: dict[tuple[str, str], object],
) -> None:
    settings, told = settled({}, None, {key: (".".join(key), value) for key, value in values.items()})
    assert (settings is None) == bool(told)
    assert all(each.startswith((*map(".".join, values), "settings: ")) for each in told)


def test_unknown_variables_are_refused_with_the_nearest_name() -> None:
    assert problems({"REPPOSE_HTTP__PROT": "1"}) == [
        "REPPOSE_HTTP__PROT is not a setting; did you mean REPPOSE_HTTP__PORT?"
    ]
    assert problems({"REPPOSE_XYZZY_PLUGH": ""}) == ["REPPOSE_XYZZY_PLUGH is not a setting"]
    assert problems({"REPPOSE_HTTP": "{}"}) == [
        "REPPOSE_HTTP is not a setting; did you mean REPPOSE_HTTP__PORT?"
    ]


def test_variables_of_others_are_left_alone() -> None:
    """Kubernetes tells every pod of services; one by the name of reppose must not keep the service from starting."""
    of_kubernetes = {
        "REPPOSE_SERVICE_HOST": "10.0.0.1",
        "REPPOSE_SERVICE_PORT": "8000",
        "REPPOSE_SERVICE_PORT_GRPC": "50051",
        "REPPOSE_PORT": "tcp://10.0.0.1:8000",
        "REPPOSE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "REPPOSE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "REPPOSE_REDIS_PORT": "tcp://10.0.0.2:6379",
        "REPPOSE_REDIS_SERVICE_HOST": "10.0.0.2",
    }
    assert (
        read(
            {**of_kubernetes, "REPPOSE_CONFIG": "x", "REPPOSE_CACHE": "/tmp", "REPPOSE_CLIENT_KEY": "rp_"}
        ).settings
        == Settings()
    )


@pytest.mark.parametrize("each", [*groups()], ids=lambda each: each[0])
def test_every_group_is_explained(each: tuple[str, type, str]) -> None:
    _, model, meaning = each
    assert model.__doc__
    assert meaning.endswith(".")


@pytest.mark.parametrize("setting", [*known()], ids=lambda each: each.key)
def test_every_setting_is_explained(setting) -> None:
    assert setting.meaning.endswith(".")
    assert setting.kind
    assert setting.variable in {name for name, _, _ in names()}


def test_keys_of_resume_tokens() -> None:
    assert Settings().sessions.keys == ()
    settings = read({KEYS: "the-new-key-of-today, the-old-key-still-out"}).settings
    assert settings.sessions.keys == (b"the-new-key-of-today", b"the-old-key-still-out")
    assert "the-new" not in repr(settings)


KEYS = "REPPOSE_SESSIONS__TOKEN_KEYS"


def test_a_secret_may_stand_in_a_file(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "keys"
    secret.write_text("the-new-key-of-today,the-old-key-still-out\r\n")
    settings = read({f"{KEYS}_FILE": str(secret), "REPPOSE_SESSIONS__IDLE_S": "7"}).settings
    assert settings.sessions.keys == (b"the-new-key-of-today", b"the-old-key-still-out")
    assert settings.sessions.idle_s == 7
    file.write_text(f'[sessions]\ntoken_keys_file = "{secret}"')
    assert read({}, file).settings.sessions.keys == settings.sessions.keys
    assert read({KEYS: "a-key-that-goes-over-it"}, file).settings.sessions.keys == (
        b"a-key-that-goes-over-it",
    )


@pytest.mark.parametrize("held", [None, b"\xff" * 20, b"short"])
def test_a_file_without_a_usable_secret_is_an_error_that_hides_it(held: bytes | None, tmp_path: Path) -> None:
    if held is not None:
        (tmp_path / "keys").write_bytes(held)
    (told,) = problems({f"{KEYS}_FILE": str(tmp_path / "keys")})
    assert told.startswith(f"{KEYS}_FILE: ")
    assert "short" not in told


def test_a_secret_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef")
    assert problems({f"{KEYS}_FILE": str(tmp_path / "keys"), KEYS: "0123456789abcdef"}) == [
        f"{KEYS} and {KEYS}_FILE exclude each other"
    ]
    assert read({f"{KEYS}_FILE": "", KEYS: "0123456789abcdef"}).settings.sessions.keys


def test_only_secrets_are_read_from_files() -> None:
    assert problems({"REPPOSE_HTTP__PORT_FILE": "/etc/hostname"}) == [
        "REPPOSE_HTTP__PORT_FILE is not a setting; did you mean REPPOSE_HTTP__PORT?"
    ]
