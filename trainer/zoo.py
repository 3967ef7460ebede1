"""What the trainer adds to `reppose-zoo`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from model_zoo.errors import ModelZooError
from trainer.cli import DataRoot, Images
from trainer.errors import TrainerError


def quantize(
    model: Annotated[str, typer.Argument(metavar="BUNDLE", help="NAME[@VERSION], or a bundle's folder.")],
    calibrate: Annotated[
        Path,
        typer.Option(
            help="COCO-keypoints JSON of people like those to be seen, or folder of pictures; relative to --data."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of bundles; OUT/NAME/VERSION is written.")],
    on: Annotated[
        list[Path] | None,
        typer.Option(help="Sets to measure both graphs on, as of `reppose-train evaluate`; repeat for more."),
    ] = None,
    data: DataRoot = Path("data"),
    images: Images = None,
    root: Annotated[
        list[Path] | None, typer.Option(help="Folder of bundles, beside the built-in ones.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Of the new bundle; default: VERSION-int8.")] = None,
    crops: Annotated[int, typer.Option(min=2, help="Crops to look at.")] = 256,
    method: Annotated[
        Literal["auto", "minmax", "percentile", "mse"],
        typer.Option(help="How the ranges of activations are found; `auto` tries several."),
    ] = "auto",
    replace: Annotated[
        bool, typer.Option("--replace", help="Keep the version, and overwrite it where OUT has it.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write the bundle however much accuracy 8 bits lose.")
    ] = False,
) -> None:
    """Add a graph in 8 bits to a model. Exit code 1, and nothing is written, where it loses more than 1.0 point of PCK.

    Without --on, a JSON that is calibrated on is measured as well.

    Example: reppose-zoo quantize body19-small --data ../data --calibrate body/lspet_val.json --on body/lsp_val.json
    --out bundles
    """
    with _one_line_for_expected_errors():
        from trainer import commands

        written = commands.quantise(
            model,
            data,
            calibrate,
            on or [],
            out=out,
            images=images,
            roots=root or [],
            version=version,
            count=crops,
            method=None if method == "auto" else method,
            replace=replace,
            force=force,
        )
    made = written.manifest.quantisation
    typer.echo(f"{made.method}: keypoints move by {made.mean_shift_px:.2f} crop px")
    for each in written.manifest.accuracy:
        typer.echo(f"{each.data}: {each.metric} {each.value:.1f} ({each.people} people, {each.precision})")
    typer.echo(f"wrote {written.folder}")


@contextmanager
def _one_line_for_expected_errors() -> Iterator[None]:
    """Turn what users cause into one line on stderr and exit code 1; a defect keeps its traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        needed = f"this command needs {error.name}, which is not installed"
        typer.echo(f"error: {needed}: pip install 'reppose[trainer]'", err=True)
        raise typer.Exit(1) from error
    except (TrainerError, ModelZooError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
