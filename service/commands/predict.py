"""`reppose-serve predict`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from model_zoo.errors import ModelZooError
from service.commands.common import ConfigOption, fail, read_settings
from service.errors import ServiceError
from service.settings import Settings


def predict(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    boxes: Annotated[
        str | None, typer.Option(help="JSON [[x, y, width, height], ...] in pixels; for every image.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="name or name@version; else the default model.")] = None,
    decoder: Annotated[
        str | None, typer.Option(help="dark, argmax_shift, dsnt, ...; else the model's own.")
    ] = None,
    min_presence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Least probability that somebody is there; else as settings say. 0 takes everybody.",
        ),
    ] = None,
    render: Annotated[
        Path | None, typer.Option(help="Write the image with the poses drawn here (PNG).")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Answer images in this process, without a service: one line of JSON each, as POST /v1/pose answers.

    An image that cannot be answered gets a line with its error, and the exit code is 1; so it is where the drawn
    image cannot be written.

    Examples:

        reppose-serve predict photo.jpg --render pose.png
        reppose-serve predict *.jpg --decoder argmax_shift > poses.jsonl
        reppose-serve predict team.jpg --boxes '[[10, 20, 150, 400], [200, 30, 160, 390]]'
    """
    if render is not None and len(pictures) != 1:
        fail("--render takes exactly one image")
    settings = read_settings(config)
    query = {"boxes": boxes, "model": model, "decoder": decoder, "render": render is not None}
    query["min_presence"] = min_presence
    try:
        answered = asyncio.run(_predict(settings, pictures, query, render))
    except ServiceError as error:
        fail(str(error))
    raise typer.Exit(0 if answered else 1)


async def _predict(
    settings: Settings, pictures: list[Path], query: dict[str, Any], render: Path | None
) -> bool:
    from service import status
    from service.core import build_core
    from service.rest import schemas
    from service.types import Frame

    options = schemas.PoseQuery(**query).options()
    core = build_core(settings)
    await core.load(settings)
    answered = True
    for picture in pictures:
        try:
            prediction = await core.predictor.predict(Frame(picture.read_bytes()), options)
        except (ServiceError, ModelZooError) as error:
            answer, answered = json.loads(schemas.report_json(status.report(error))), False
        except OSError as error:
            answer, answered = json.loads(schemas.error_json("unreadable", str(error.strerror))), False
        else:
            answer = json.loads(schemas.prediction_json(prediction))
            if render is not None and prediction.picture is not None:
                try:
                    render.write_bytes(prediction.picture)
                except OSError as error:
                    typer.echo(f"reppose-serve: cannot write the picture: {error}", err=True)
                    answered = False
        typer.echo(json.dumps({"file": str(picture), **answer}))
    await core.stop(settings.drain.timeout_s)
    return answered
