"""`reppose-client`: draw skeletons on a video, by a service that runs somewhere."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from service.client.answers import NOTHING, Answer, ClientError, Poses, Said
from service.client.blocking import Client
from service.client.encryption import credentials
from service.client.video import Sink, Source, VideoError, draw, follow
from service.types import Image

KEY = "REPPOSE_CLIENT_KEY"
"""Environment variable that may hold a key."""

cli = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_show_locals=False)


@cli.command(no_args_is_help=True)
def annotate(
    video: Annotated[Path | None, typer.Argument(help="The video.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The video with skeletons, .mp4.")] = None,
    points: Annotated[
        Path | None,
        typer.Option(help="Write the points as well, a JSON object per frame and line; - for stdout."),
    ] = None,
    camera: Annotated[int | None, typer.Option(help="Number of a camera, in place of a video.")] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Treat the video as a camera: at its own pace, and not every frame is looked at."
        ),
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after so much of it.")] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help="host:port of gRPC; give several, and a stream goes on when one stops."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"File that holds an API key or a token, if the service asks for one; else {KEY}."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt, and trust the usual authorities.")] = False,
    ca: Annotated[
        Path | None,
        typer.Option(help="File (PEM) of the authorities to trust in place of the known ones; encrypts."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            help="File (PEM) of the certificate to show, and its key, if the service asks; encrypts."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="name or name@version; empty for the service's own.")] = "",
    decoder: Annotated[str, typer.Option(help="Empty for the model's own.")] = "",
    min_presence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Least probability that somebody is there; else the service's own. 0 takes everybody.",
        ),
    ] = None,
    smoothing: Annotated[str, typer.Option(help="none, ema or one_euro; empty for the service's own.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Draw the points as the model gave them.")] = False,
    progress: Annotated[bool, typer.Option(help="Show how far it is.")] = True,
) -> None:
    """Draw skeletons on a video, by a service that runs somewhere.

    Examples:

        reppose-client video.mp4 -o out.mp4

        reppose-client --camera 0 -o out.mp4    # until Ctrl-C

    Every frame of a video is looked at, also when servers come and go. A camera's are sent as fast as the service
    keeps up with; those that were dropped show the last skeleton.
    """
    if (video is None) == (camera is None):
        raise typer.BadParameter("give either a video or --camera")
    if out is None and points is None:
        raise typer.BadParameter("say where to: -o VIDEO, --points FILE, or both")
    live = live or camera is not None
    stop = threading.Event()
    try:
        source = Source(video if camera is None else camera, live=live)
        with contextlib.ExitStack() as held:
            sink = None if out is None else Sink(out, source.rate_hz)
            if sink is not None:
                held.callback(sink.close)
            lines = held.enter_context(_lines(points))
            bar = held.enter_context(
                typer.progressbar(
                    length=source.count, file=sys.stderr, hidden=not (progress and source.count)
                )
            )

            def done(picture: Image, answer: Answer, last: Poses | None) -> None:
                if sink is not None:
                    sink.write(picture if last is None else draw(picture, last, raw=raw))
                if lines is not None:
                    print(json.dumps(_facts(answer)), file=lines)
                bar.update(1)

            held.enter_context(_stopped_by_ctrl_c(stop))
            encrypted = credentials(ca, certificate) if tls or ca or certificate else None
            client = held.enter_context(
                Client(*(server or ["127.0.0.1:50051"]), key=_key(key_file), credentials=encrypted)
            )
            options = {"live": live, "model": model, "decoder": decoder, "smoothing": smoothing}
            stream = held.enter_context(client.stream(**options, min_presence=min_presence))
            began_s = time.monotonic()
            counts = follow(stream, source.frames(stop, seconds), done)
            took_s = time.monotonic() - began_s
            if sink is not None:
                sink.keep()
    except (ClientError, VideoError, OSError, ValueError) as error:
        typer.echo(f"reppose-client: {error}", err=True)
        raise typer.Exit(1) from error
    said = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
    typer.echo(f"{counts.total()} frames in {took_s:.1f} s: {said}", err=True)


def _key(path: Path | None) -> str | None:
    """The key in a file or in the environment; an option would show it to everybody on this machine. Raises OSError."""
    try:
        text = os.environ.get(KEY, "") if path is None else path.read_text("ascii")
    except UnicodeDecodeError:
        raise OSError(f"{path} holds no key") from None
    return text.strip() or None


def _facts(answer: Answer) -> dict[str, Any]:
    """One frame as plain values."""
    facts: dict[str, Any] = {"frame": answer.sequence}
    if answer.poses is None:
        return facts | ({"dropped": answer.dropped} if answer.dropped else {"error": str(answer.error)})
    facts["people"] = [
        {
            "id": person.smoothed.track_id,
            "score": person.score,
            **_said(person.smoothed.said),
            "keypoints": [
                {"name": name, "x": x, "y": y, "score": score}
                for name, (x, y), score in zip(
                    answer.poses.keypoints,
                    person.smoothed.points.tolist(),
                    person.smoothed.scores.tolist(),
                    strict=True,
                )
            ],
            "raw": person.points.tolist(),
        }
        for person in answer.poses.people
    ]
    return facts


def _said(said: Said) -> dict[str, Any]:
    """What a model says beside keypoints, as in answers over REST; nothing of one that says no more."""
    if said is NOTHING:
        return {}
    return {
        "presence": said.presence,
        "classes": [
            {"of": of, "label": each.label, "probability": each.probability}
            for of, each in said.classes.items()
        ],
    }


@contextlib.contextmanager
def _lines(path: Path | None) -> Iterator[TextIO | None]:
    if path is None or str(path) == "-":
        yield None if path is None else sys.stdout
        return
    with path.open("w", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def _stopped_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C ends the video, so that what there is of it is written; the second ends the program."""

    def first(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> None:
    """Entry point of `reppose-client`."""
    cli()


if __name__ == "__main__":
    main()
