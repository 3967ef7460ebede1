"""`reppose-serve bench`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.commands.common import ConfigOption, fail, listed, read_settings
from service.errors import ServiceError


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only JPEG crops, concurrency 1 and 32, one round of 2 seconds.")
    ] = False,
    routes: Annotated[str, typer.Option(help="Comma-separated.")] = "rest,multipart,unary,stream,live,file",
    concurrency: Annotated[
        str | None, typer.Option(help="Requests under way at once, comma-separated; 1,8,32 where left out.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32,int8 or one of them; all that the model has where left out.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Length of one row; 3 where left out.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Medians over so many; 3 where left out.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Send this JPEG, in place of the four pictures made by the bench.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="Other servers to measure beside ours, if installed: litserve,mosec.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write bench.csv, .json and .svg to this folder.")] = None,
    config: ConfigOption = None,
) -> None:
    """Measure what the service costs beside the bare loop of decode, warp and net.

    Starts a server, a client and the bare loop, each in a process of its own, and lets them take turns: loop, row,
    loop, row. Of the settings those of models, limits, batch, sessions, streams and log hold for that server. Prints a
    line for each way of asking, and every target of the project with what was measured. Concurrency 1 is compared with
    the loop over single images, all else with full batches.

    Examples:

        reppose-serve bench --quick
        reppose-serve bench --out bench
        reppose-serve bench --routes rest --image photo.jpg --against litserve,mosec
    """
    from service import cpus
    from service.bench import command, load, peers, pictures, report, rows
    from service.settings import passing

    settings = read_settings(config)
    chosen = listed(routes, load.ROUTES, "--routes")
    others = listed(against, tuple(peers.PEERS), "--against")
    for name in others:
        if not peers.PEERS[name].installed:
            typer.echo(
                f"{name} is left out: it is not installed (pip install {peers.PEERS[name].distribution})"
            )
    try:
        parallel = tuple(int(each) for each in (concurrency or ("1,32" if quick else "1,8,32")).split(","))
        sent = pictures.standard() if image is None else (pictures.from_file(image.stem, image.read_bytes()),)
    except (ValueError, OSError) as error:
        fail(f"wrong number or picture: {error}")
    if min(parallel) < 1:
        fail("--concurrency must be 1 or more")
    if quick and image is None:
        sent = tuple(each for each in sent if each.encoded and each.size == sent[0].size)
    workers = settings.batch.workers or cpus.usable()
    plan = command.Plan(
        environment=passing.environment(settings, os.environ),
        roots=settings.models.roots,
        model=settings.models.default,
        provider=settings.models.provider,
        batch=settings.batch.size,
        workers=workers,
        processors=cpus.tied(workers, settings.batch.pin),
        pictures=sent,
        routes=chosen,
        concurrency=parallel,
        precisions=listed(precision or "", ("fp32", "int8"), "--precision"),
        seconds=seconds or (2.0 if quick else 3.0),
        rounds=rounds or (1 if quick else 3),
        against=[name for name in others if peers.PEERS[name].installed],
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it started ends with it
    try:
        found = command.run(plan, lambda text: typer.echo(text, err=True))
    except ServiceError as error:
        fail(str(error))
    judged = rows.targets(found, workers)
    typer.echo(f"{report.table(found)}\n\n{report.verdicts(judged)}")
    if out is not None:
        for path in report.write(out, found, judged):
            typer.echo(f"wrote {path}")
