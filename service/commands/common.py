"""What the commands share: settings, lists of names, and how they fail."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer
from pydantic import ValidationError

from service import logs
from service.settings import Settings, unknown_names


def read_settings(**overrides: dict[str, object]) -> Settings:
    """The environment's settings, changed by options of the command line; sets up the log as they say."""
    given = {
        group: {name: value for name, value in values.items() if value is not None}
        for group, values in overrides.items()
    }
    try:
        settings = Settings(**given)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        fail("wrong settings: " + "; ".join(lines))
    logs.configure(settings.log.level, settings.log.format)
    for warning in unknown_names(os.environ):
        logs.log.warning(warning)
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
