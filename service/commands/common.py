"""What the commands share: settings, lists of names, and how they fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service import logs
from service.settings import CONFIG_VARIABLE, Effective, Settings, SettingsError, read

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings in TOML, instead of the file in REPPOSE_CONFIG."),
]
"""Every command that reads settings takes it; given before the command, it reaches the command as well."""


def read_effective(
    config: Path | None = None, options: dict[tuple[str, str], tuple[str, object]] | None = None
) -> Effective:
    """The settings of the file and the environment, and where each came from; what is wrong with them ends the program.

    Args:
        config: the file, or None for that which the environment names, if it does.
        options: values of options that are not None, with the names of the options.
    """
    given = {key: option for key, option in (options or {}).items() if option[1] is not None}
    try:
        return read(os.environ, config_file(config), given)
    except SettingsError as error:
        fail(str(error))


def config_file(config: Path | None) -> Path | None:
    """The file of an option, else that which the environment names, if it does."""
    name = os.environ.get(CONFIG_VARIABLE)
    return config or (Path(name) if name else None)


def read_settings(
    config: Path | None = None, options: dict[tuple[str, str], tuple[str, object]] | None = None
) -> Settings:
    """As `read_effective`, the settings alone; sets up the log as they say."""
    settings = read_effective(config, options).settings
    logs.configure(settings.log.level, settings.log.format)
    return settings


def listed(text: str, known: tuple[str, ...], option: str) -> list[str]:
    """Comma-separated names, each of which must be known."""
    names = [each.strip() for each in text.split(",") if each.strip()]
    if strange := set(names) - set(known):
        fail(f"{option} knows {', '.join(known)}; not {', '.join(sorted(strange))}")
    return names


def fail(message: str) -> NoReturn:
    """End the program with 1 and these words."""
    typer.echo(f"reppose-serve: {message}", err=True)
    sys.exit(1)
