"""`reppose-serve soak`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.commands.common import ConfigOption, fail, read_settings
from service.errors import ServiceError


def soak(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long to stream.")] = 10.0,
    streams: Annotated[int, typer.Option(min=4, help="How many at once.")] = 64,
    rate: Annotated[float, typer.Option(min=1, help="Frames a second of each live stream.")] = 20.0,
    expiry: Annotated[
        float, typer.Option(min=1, help="Seconds after which silent streams end and sessions are forgotten.")
    ] = 10.0,
    clips: Annotated[
        Path | None, typer.Option(help="Folder of *.mp4 to stream; without it, made pictures.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a plot of memory and sessions here (SVG).")] = None,
    config: ConfigOption = None,
) -> None:
    """Stream many videos at once, at more than capacity, and see whether what the streams promise holds.

    Starts a server and three crowds of clients, each in a process of its own: gRPC, WebSocket and HTTP sessions, live
    and as files. Of the settings those of models, limits, batch, sessions, streams and log hold for that server. When
    the time is over a quarter of the clients is frozen and another quarter killed, without a goodbye; the others go on
    and end in order. Prints what became of the frames, the server's memory over time, and each promise with what was
    measured; exits with 1 where one is broken.

    None of the promises is about this machine's speed. The bound on a live frame's age follows from the mailbox: a
    frame that is answered came after the last answer but one of its stream.

    Examples:

        reppose-serve soak
        reppose-serve soak --minutes 1 --clips pose-data/video --out soak.svg
    """
    from service.settings import passing
    from service.soak import report, run

    environment = passing.environment(read_settings(config), os.environ)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it started ends with it
    try:
        found = run.run(
            run.Plan(streams, minutes * 60, rate, expiry, clips, environment),
            lambda text: typer.echo(text, err=True),
        )
    except ServiceError as error:
        fail(str(error))
    judged = report.promises(found)
    typer.echo(f"{report.table(found)}\n\n{report.verdicts(judged)}")
    if out is not None:
        try:
            out.write_text(report.plot(found))
        except OSError as error:
            fail(f"cannot write the plot: {error}")
        typer.echo(f"wrote {out}")
    raise typer.Exit(0 if all(each.kept for each in judged) else 1)
