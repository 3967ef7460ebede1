"""`reppose-serve config`."""

from __future__ import annotations

from typing import Annotated

import typer

from service.commands.common import ConfigOption, read_effective


def config(
    docs: Annotated[
        bool, typer.Option("--docs", help="Print what every setting means, as Markdown, instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
    config: ConfigOption = None,
) -> None:
    """Print the settings that are in force, and where each came from; what is wrong is told all at once.

    The TOML can be kept as a file and read again: secrets are masked and left out of it.

    Examples:

        reppose-serve config
        REPPOSE_HTTP__PORT=9000 reppose-serve config > reppose.toml
        reppose-serve --config reppose.toml config --json
        reppose-serve config --docs
    """
    from service.settings import text

    if docs:
        typer.echo(text.documentation(), nl=False)
        return
    effective = read_effective(config)
    typer.echo(text.as_json(effective) if as_json else text.toml(effective), nl=as_json)
