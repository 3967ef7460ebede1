"""`reppose-serve serve`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from service.commands.common import ConfigOption, fail, read_settings
from service.errors import ServiceError
from service.settings import names
from service.settings.text import shown

_HELP = """Start the service; SIGTERM or Ctrl-C drains and stops it.

Examples:

    reppose-serve serve
    reppose-serve serve --http-port 9000 --grpc-port 0
    REPPOSE_HTTP__HOST=0.0.0.0 REPPOSE_MODELS__ROOTS=/models reppose-serve
    reppose-serve --config reppose.toml

Then:

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/pose

Documentation of the running service is at http://127.0.0.1:8000/docs. All settings, which the
environment or a TOML file changes, as `reppose-serve config` tells:

"""


def help_text() -> str:
    """What `serve --help` says: how to, and all settings."""
    return _HELP + "\n".join(
        f"    {name}{'' if default is None else f'={shown(default)}'}\n        {meaning}"
        for name, meaning, default in names()
    )


def serve(
    http_port: Annotated[
        int | None, typer.Option(help="Instead of REPPOSE_HTTP__PORT; 0 for any free one.")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="Instead of REPPOSE_GRPC__PORT; 0 for any free one.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Instead of REPPOSE_HTTP__HOST and REPPOSE_GRPC__HOST; 0.0.0.0 for all."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    # gRPC looks when it is imported. Left alone, it writes to stderr, past the log, about every stranger who knocks.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from service import server

    settings = read_settings(
        config,
        {
            ("http", "port"): ("--http-port", http_port),
            ("http", "host"): ("--host", host),
            ("grpc", "port"): ("--grpc-port", grpc_port),
            ("grpc", "host"): ("--host", host),
        },
    )
    try:
        finished = server.run(settings)
    except ServiceError as error:
        fail(str(error))
    raise typer.Exit(0 if finished else 1)
