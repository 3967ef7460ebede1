"""`reppose-serve doctor`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from service import logs
from service.commands.common import ConfigOption, config_file
from service.settings import SettingsError, read


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    config: ConfigOption = None,
) -> None:
    """Look whether the service can start here, and do well: settings, models, processors, memory, ports, files, store.

    Nothing is changed and nobody is served. The exit code is 1 where something keeps the service from starting.

    Examples:

        reppose-serve doctor
        reppose-serve --config reppose.toml doctor --json
        docker run --rm reppose:0.1.0 doctor
    """
    from service.doctor import checks, findings

    try:
        effective = read(os.environ, config_file(config))
    except SettingsError as error:
        found = [findings.Finding("settings", "failed", each) for each in error.problems]
    else:
        logs.configure("error", effective.settings.log.format)
        found = checks.run(effective)
    typer.echo(findings.as_json(found) if as_json else findings.table(found))
    raise typer.Exit(1 if findings.failed(found) else 0)
