"""`reppose-train`: train, evaluate and export pose models."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer.errors import TrainerError

app = typer.Typer(
    name="reppose-train", no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__, rich_markup_mode=None
)

DataRoot = Annotated[
    Path, typer.Option("--data", envvar="REPPOSE_DATA", help="Folder that the configuration's paths start at.")
]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped one (`configs` lists them).")],
    data: DataRoot = Path("data"),
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/NAME. An interrupted run goes on.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=value, changes one setting.")] = None,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    processes: Annotated[int, typer.Option(help="Processes that share each batch; 0 = one per core or GPU.")] = 0,
) -> None:
    """Train a model, or go on where the same run was interrupted.

    Example: reppose-train train body19-small --data ../data --out runs/first --set seed=2
    """
    from trainer import config as configuration
    from trainer import loop
    from trainer.checkpoint import RunFolder

    resolved = configuration.load(config, overrides)
    folder = RunFolder(out or Path("runs") / resolved.name)
    count = processes or loop.default_processes(accelerator)
    loop.train(resolved, data, folder, cache=folder.path.parent / "cache", accelerator=accelerator, processes=count)


@app.command()
def configs() -> None:
    """List the configurations that come with the package."""
    from trainer import config as configuration

    for name in configuration.shipped():
        typer.echo(f"{name:20} {configuration.load(name).description}")


def main() -> None:
    """Run the command line; expected errors are one line, not a traceback."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except TrainerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
