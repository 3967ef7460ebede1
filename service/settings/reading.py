"""Where settings come from: a TOML file, over it the environment, over both the options of the command line.

All that is wrong is told at once, each problem with the place that it came from.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from service.settings.group import FILE_SUFFIX
from service.settings.tree import ENV_PREFIX, Settings, groups, known, variable

CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"
OTHERS = {
    CONFIG_VARIABLE,
    *(f"{ENV_PREFIX}{name}" for name in ("CACHE", "CLIENT_KEY", "DOCKER_BASE", "DOCKER_TESTS", "TOOLS")),
}
"""Variables that are no settings of the service and are read by other parts of the project."""
_OF_KUBERNETES = re.compile(
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)
"""Ends of the variables in which Kubernetes tells pods of services, such as one by the name of reppose."""

Key = tuple[str, str]
Source = Literal["default", "file", "environment", "option"]


class SettingsError(ValueError):
    """Settings that cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("wrong settings:\n" + "\n".join(f"  {each}" for each in self.problems))


@dataclass(frozen=True)
class Origin:
    """Where a value came from; `place` is its name there, and that of the file if it is from one."""

    source: Source
    place: str = ""


DEFAULT = Origin("default")


@dataclass(frozen=True)
class Effective:
    """The settings, and where those that are not defaults came from."""

    settings: Settings
    origins: Mapping[Key, Origin]


@dataclass(frozen=True)
class _Given:
    value: object
    origin: Origin
    is_path: bool = False
    """Whether the value is the path of the file that holds the secret."""


def read(
    environment: Mapping[str, str],
    file: Path | None = None,
    options: Mapping[Key, tuple[str, object]] | None = None,
) -> Effective:
    """Read the settings.

    Args:
        environment: variables; those that begin with REPPOSE_ must be settings.
        file: a TOML file with a table for each group.
        options: values with the names of the options that gave them.

    Raises:
        SettingsError: anything is wrong; has all of it.
    """
    problems: list[str] = []
    given: dict[Key, _Given] = {}
    for source in (_from_file(file, problems), _from_environment(environment, problems)):
        given.update(_without_pairs(source, problems))
    for key, (option, value) in (options or {}).items():
        given[key] = _Given(value, Origin("option", option))
    values: dict[str, dict[str, object]] = {}
    for (group, name), each in given.items():
        try:
            values.setdefault(group, {})[name] = _secret(each.value) if each.is_path else each.value
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            problems.append(f"{each.origin.place}: cannot read {each.value}: {reason}")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += _told(error, given)
    if problems:
        raise SettingsError(problems)
    return Effective(settings, {key: each.origin for key, each in given.items()})


def _secret(path: object) -> str:
    """A newline at the end is no part of a secret."""
    return Path(str(path)).read_text("utf-8").rstrip("\r\n")


def _from_file(path: Path | None, problems: list[str]) -> Iterator[tuple[Key, _Given]]:
    if path is None:
        return
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path}: {getattr(error, 'strerror', None) or error}")
        return
    accepted = _accepted()
    tables = {group for group, _ in accepted.values()}
    for group, table in document.items():
        if group not in tables:
            near = _near(group, [*tables, *accepted]) if isinstance(table, dict) else _near(group, accepted)
            problems.append(f"{path}: {group} is not a {_noun(table)}{near}")
        elif not isinstance(table, dict):
            problems.append(f"{path}: {group} must be a table: [{group}]")
        else:
            for name, value in table.items():
                key = f"{group}.{name}"
                if key in accepted:
                    origin = Origin("file", f"{path}: {key}")
                    yield accepted[key], _Given(value, origin, _is_path(key, accepted))
                else:
                    problems.append(f"{path}: {key} is not a setting{_near(key, accepted)}")


def _noun(value: object) -> str:
    return "group of settings" if isinstance(value, dict) else "setting"


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> Iterator[tuple[Key, _Given]]:
    accepted = _accepted()
    keys = {variable(*key.split(".")): key for key in accepted}
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if upper in keys:
            key = keys[upper]
            yield accepted[key], _Given(value, Origin("environment", name), _is_path(key, accepted))
        elif upper.startswith(ENV_PREFIX) and upper not in OTHERS and not _of_kubernetes(upper, value):
            problems.append(f"{name} is not a setting{_near(upper, keys)}")


def _of_kubernetes(name: str, value: str) -> bool:
    return _OF_KUBERNETES.search(name) is not None or (
        name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value) is not None
    )


def _accepted() -> dict[str, Key]:
    """Which setting each key means; NAME_file means NAME where that is secret."""
    keys = {each.key: (each.group, each.name) for each in known()}
    files = {
        f"{group}.{name}{FILE_SUFFIX}": (group, name)
        for group, model, _ in groups()
        for name in model.secrets()
    }
    return files | keys


def _is_path(key: str, accepted: Mapping[str, Key]) -> bool:
    return key != ".".join(accepted[key])


def _without_pairs(source: Iterator[tuple[Key, _Given]], problems: list[str]) -> dict[Key, _Given]:
    """A secret and the file that holds it exclude each other, within one source; an empty path is none."""
    found: dict[Key, _Given] = {}
    for key, each in source:
        if each.is_path and not each.value:
            continue
        if key in found and found[key].is_path != each.is_path:
            problems.append(f"{found[key].origin.place} and {each.origin.place} exclude each other")
        found[key] = each
    return found


def _near(name: str, candidates: Iterable[str]) -> str:
    """The question whether the nearest of the candidates is meant, if one is near."""
    plain = {re.sub(r"[._]+", "_", each.removeprefix(ENV_PREFIX)).lower(): each for each in candidates}
    asked = re.sub(r"[._]+", "_", name.removeprefix(ENV_PREFIX)).lower()
    found = difflib.get_close_matches(asked, plain, n=1, cutoff=0.6)
    return f"; did you mean {plain[found[0]]}?" if found else ""


def _told(error: ValidationError, given: Mapping[Key, _Given]) -> Iterator[str]:
    """What pydantic found, with the places; never with a value, which could be secret."""
    for each in error.errors(include_input=False, include_url=False):
        parts = [str(part) for part in each["loc"]]
        message = each["msg"].removeprefix("Value error, ")
        key = tuple(parts[:2])
        if key in given:
            yield f"{given[key].origin.place}: {message}"
        else:  # a rule about several settings
            places = [one.origin.place for (group, _), one in given.items() if [group] == parts[:1]]
            yield f"{', '.join(places) or 'settings'}: {'.'.join([*parts, ''])[:-1] + ': ' if parts else ''}{message}"
