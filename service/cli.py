"""`reppose-serve`: start the service, answer images without one, or try it on a photograph."""

from __future__ import annotations

import typer

from service.commands import bench, config, demo, doctor, jitter, key, predict, serve, soak
from service.commands.common import ConfigOption

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,  # settings are among them, and secrets among the settings
    help="""Photographs in, poses out, over HTTP and gRPC.

Without a command, `serve` runs. Try it on a photograph from a second terminal:

    reppose-serve demo photo.jpg
""",
)


@cli.callback(invoke_without_command=True)
def _begin(context: typer.Context, file: ConfigOption = None) -> None:
    if context.invoked_subcommand is None:
        serve.serve(config=file)
    elif file is not None:
        context.default_map = {context.invoked_subcommand: {"config": str(file)}}


cli.command(help=serve.help_text())(serve.serve)
cli.command()(predict.predict)
cli.command()(demo.demo)
cli.command()(bench.bench)
cli.command()(jitter.jitter)
cli.command()(soak.soak)
cli.command()(config.config)
cli.command()(key.key)
cli.command()(doctor.doctor)


def main() -> None:
    """Entry point of the command."""
    cli()
