"""Settings as text: effective ones as a TOML file that can be read again, and the documentation of all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from model_zoo import bundle
from service.settings.reading import DEFAULT, Effective, Origin
from service.settings.tree import Setting, groups, known

MASK = "********"

_HEAD = """\
# Settings

Made by `reppose-serve config --docs`. Each setting has a name in the environment, and in a TOML file that
`reppose-serve --config FILE` or `REPPOSE_CONFIG` names: `port` of the group `http` is

```toml
[http]
port = 9000
```

or `REPPOSE_HTTP__PORT=9000`, which goes over the file; options of the command line go over both. Lists are arrays in
TOML, and separated by commas in the environment (paths by colons). For what is secret, `<name>_file` and
`REPPOSE_<GROUP>__<NAME>_FILE` are the path of a file that holds it. Names that are no settings are refused. Paths are
relative to the working directory.

`reppose-serve config` prints what is in force and where it came from, `reppose-serve doctor` whether it will do here.
"""
_COLUMNS = "| name | in the environment | takes | default | meaning |\n| --- | --- | --- | --- | --- |\n"


def toml(effective: Effective) -> str:
    """All settings as a TOML file, each with where it came from. Secrets are masked, and commented out with what is not
    set: read again it gives the same settings, but for the secrets."""
    lines: list[str] = []
    for group, _, meaning in groups():
        lines += [*([""] if lines else []), f"# {meaning}", f"[{group}]"]
        lines += [_line(each, effective) for each in known() if each.group == group]
    return "\n".join(lines) + "\n"


def as_json(effective: Effective) -> str:
    """The same as one JSON object: group, name, then `value`, `source` and `place`."""
    document: dict[str, dict[str, object]] = {}
    for setting in known():
        origin = _origin(setting, effective)
        document.setdefault(setting.group, {})[setting.name] = {
            "value": _plain(_value(setting, effective)),
            "source": origin.source,
            "place": origin.place,
        }
    return json.dumps(document, indent=2)


def documentation() -> str:
    """A Markdown document with a table for each group."""
    return _HEAD + "".join(_table(group, meaning) for group, _, meaning in groups())


def shown(value: object) -> str:
    """A value as the environment would have it."""
    if isinstance(value, tuple):
        return (os.pathsep if any(isinstance(each, Path) for each in value) else ",").join(map(shown, value))
    if value is None or isinstance(value, SecretStr):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _line(setting: Setting, effective: Effective) -> str:
    value = _value(setting, effective)
    origin = _origin(setting, effective)
    unset = value is None or (isinstance(value, SecretStr) and value.get_secret_value())
    text = f"{'# ' if unset else ''}{setting.name} = {_literal(_plain(value))}"
    return f"{text:40}  # {' '.join(origin.place.split()) or origin.source}"


def _table(group: str, meaning: str) -> str:
    rows = "".join(f"| {' | '.join(_cells(each))} |\n" for each in known() if each.group == group)
    return f"\n## [{group}]\n\n{meaning}\n\n{_COLUMNS}{rows}"


def _cells(setting: Setting) -> Iterator[str]:
    yield f"`{setting.name}`"
    yield f"`{setting.variable}`"
    yield setting.kind
    if setting.default == (bundle.BUILTIN,):
        yield "those of the package"
    else:
        default = shown(setting.default)
        yield f"`{default}`" if default else ""
    yield setting.meaning.replace("|", "\\|")


def _value(setting: Setting, effective: Effective) -> object:
    return getattr(getattr(effective.settings, setting.group), setting.name)


def _origin(setting: Setting, effective: Effective) -> Origin:
    return effective.origins.get((setting.group, setting.name), DEFAULT)


def _plain(value: object) -> object:
    """Of the types that JSON has; a secret that is set is masked."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, Path):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _literal(value: object) -> str:
    """A plain value in TOML, which has no null."""
    if value is None:
        return '""'
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
