"""`reppose-serve key`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from service.auth.roles import Role
from service.commands.common import ConfigOption, fail, read_effective

_STDOUT = Path("-")


def key(
    name: Annotated[
        str,
        typer.Argument(
            help="Whose it is; several keys of one name are one client, with one set of sessions."
        ),
    ],
    role: Annotated[list[Role], typer.Option(help="What it is good for; several are given one by one.")],
    file: Annotated[
        Path | None,
        typer.Option(
            help="Where to add it, instead of REPPOSE_AUTH__KEY_FILE; - writes the entry to stdout."
        ),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, help="How long it is good for; for ever if not said.")
    ] = None,
    frames_per_s: Annotated[
        float | None, typer.Option(min=0, help="Instead of REPPOSE_RATES__FRAMES_PER_S.")
    ] = None,
    frames_burst: Annotated[
        float | None, typer.Option(min=0, help="Instead of REPPOSE_RATES__FRAMES_BURST.")
    ] = None,
    pixels_per_s: Annotated[
        float | None, typer.Option(min=0, help="Instead of REPPOSE_RATES__PIXELS_PER_S.")
    ] = None,
    pixels_burst: Annotated[
        float | None, typer.Option(min=0, help="Instead of REPPOSE_RATES__PIXELS_BURST.")
    ] = None,
    streams: Annotated[int | None, typer.Option(min=0, help="Instead of REPPOSE_RATES__STREAMS.")] = None,
    config: ConfigOption = None,
) -> None:
    """Make an API key: add its entry to the file of keys, and print the key itself, which is kept nowhere.

    A running service takes the new key within seconds. To change a key make a second one of the same name, hand it out,
    and delete the entry of the first. The second one has the limits of the first, if it is given none.

    Examples:

        reppose-serve key camera-1 --role predict --file keys.toml
        reppose-serve key prometheus --role metrics --file keys.toml --days 365
        reppose-serve key trial --role predict --file keys.toml --frames-per-s 5 --pixels-per-s 5e6
    """
    from service.auth import keys
    from service.errors import BadCredentialFile

    file = file or read_effective(config).settings.auth.key_file
    if file is None:
        fail("say where to add the key: --file keys.toml, or set REPPOSE_AUTH__KEY_FILE")
    limits = {
        "frames_per_s": frames_per_s,
        "frames_burst": frames_burst,
        "pixels_per_s": pixels_per_s,
        "pixels_burst": pixels_burst,
        "streams": streams,
    }
    try:
        own = {field: value for field, value in limits.items() if value is not None}
        if not own and file != _STDOUT:
            own = keys.own_limits(keys.read(file), name)
        expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
        secret, entry = keys.make(name, role, expires, own)
        if file == _STDOUT:
            typer.echo(entry, nl=False)
            typer.echo(secret, err=True)
            return
        keys.add(file, entry)
    except (BadCredentialFile, OSError, OverflowError) as error:
        fail(f"no key was made: {error}")
    typer.echo(secret)
