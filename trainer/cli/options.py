"""Options that several commands of `reppose-train` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataRoot = Annotated[
    Path,
    typer.Option("--data", help="Folder that the configuration's paths start at."),
]


Images = Annotated[
    Path | None,
    typer.Option(
        help="Pictures: folder or indexed tar, relative to --data; default: the tar beside the JSON, else its folder."
    ),
]

Bundles = Annotated[
    list[Path] | None, typer.Option(help="Folder of bundles, beside the built-in ones; repeat for more.")
]
