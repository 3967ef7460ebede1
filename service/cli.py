"""`reppose-serve`: start the service, answer images without one, or try it on a photograph."""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from model_zoo.errors import ModelZooError
from service import logs
from service.errors import ServiceError
from service.settings import Settings, names, unknown_names

if TYPE_CHECKING:
    from service.jitter.run import Plan

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    help="""Photographs in, poses out, over HTTP and gRPC.

Without a command, `serve` runs. Try it on a photograph from a second terminal:

    reppose-serve demo photo.jpg
""",
)

_SERVE_HELP = """Start the service; SIGTERM or Ctrl-C drains and stops it.

Examples:

    reppose-serve serve
    reppose-serve serve --http-port 9000 --grpc-port 0
    REPPOSE_HTTP__HOST=0.0.0.0 REPPOSE_MODELS__ROOTS=/models reppose-serve

Then:

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/pose

Documentation of the running service is at http://127.0.0.1:8000/docs. All settings, which the environment changes:

"""


def _settings_help() -> str:
    return "\n".join(f"    {name}={_shown(default)}\n        {meaning}" for name, meaning, default in names())


def _shown(default: object) -> str:
    return os.pathsep.join(map(str, default)) if isinstance(default, tuple) else str(default)


@cli.callback(invoke_without_command=True)
def _serve_by_default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        serve()


@cli.command(help=_SERVE_HELP + _settings_help())
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
) -> None:
    from service import server

    settings = _settings(
        http={"port": http_port, "host": host},
        grpc={"port": grpc_port, "host": host},
    )
    try:
        finished = server.run(settings)
    except ServiceError as error:
        _fail(str(error))
    raise typer.Exit(0 if finished else 1)


@cli.command()
def predict(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    boxes: Annotated[
        str | None, typer.Option(help="JSON [[x, y, width, height], ...] in pixels; for every image.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="name or name@version; else the default model.")] = None,
    decoder: Annotated[
        str | None, typer.Option(help="dark, argmax_shift, dsnt, ...; else the model's own.")
    ] = None,
    render: Annotated[
        Path | None, typer.Option(help="Write the image with the poses drawn here (PNG).")
    ] = None,
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
        _fail("--render takes exactly one image")
    settings = _settings()
    query = {"boxes": boxes, "model": model, "decoder": decoder, "render": render is not None}
    try:
        answered = asyncio.run(_predict(settings, pictures, query, render))
    except ServiceError as error:
        _fail(str(error))
    raise typer.Exit(0 if answered else 1)


async def _predict(
    settings: Settings, pictures: list[Path], query: dict[str, Any], render: Path | None
) -> bool:
    from service import server, status
    from service.rest import schemas
    from service.types import Frame

    options = schemas.PoseQuery(**query).options()
    core = server.build_core(settings)
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


@cli.command()
def demo(
    photo: Annotated[
        Path | None,
        typer.Argument(help="A photograph of a person; without it, one that comes with scikit-image."),
    ] = None,
    url: Annotated[str, typer.Option(help="Where the service listens.")] = "http://127.0.0.1:8000",
    out: Annotated[Path, typer.Option(help="Where to write the picture.")] = Path("demo.png"),
    wait: Annotated[float, typer.Option(help="Seconds to wait for the service to be ready.")] = 60.0,
) -> None:
    """Send a photograph to the running service and write it with the skeleton drawn.

    Examples:

        reppose-serve demo
        reppose-serve demo photo.jpg --out pose.png --url http://127.0.0.1:9000
    """
    try:
        data = (photo or _bundled_photo()).read_bytes()
    except OSError as error:
        _fail(f"cannot read the photograph: {error}")
    _wait_until_ready(url, wait)
    answer = json.loads(_call(f"{url}/v1/pose", data))
    picture = _call(f"{url}/v1/pose?render=true", data)
    try:
        out.write_bytes(picture)
    except OSError as error:
        _fail(f"cannot write the picture: {error}")
    for pose in answer["poses"]:
        sure = [point for point in pose["keypoints"] if point["score"] >= 0.3]
        typer.echo(
            f"{answer['model']}@{answer['version']} ({answer['decoder']}): score {pose['score']:.2f}, "
            f"{len(sure)} of {len(pose['keypoints'])} keypoints at 0.3 or more, box {pose['box_source']}"
        )
    typer.echo(f"wrote {out}")


@cli.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only JPEG crops, concurrency 1 and 32, one round of 2 seconds.")
    ] = False,
    routes: Annotated[str, typer.Option(help="Comma-separated.")] = "rest,multipart,unary,stream",
    concurrency: Annotated[
        str | None, typer.Option(help="Requests under way at once, comma-separated; 1,8,32 where left out.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32,int8 or one of them; all that the model has where left out.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of one row; 3 where left out.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Medians over so many; 3 where left out.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Send this JPEG, in place of the three pictures made by the bench.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="Other servers to measure beside ours, if installed: litserve,mosec.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write bench.csv, .json and .svg to this folder.")] = None,
) -> None:
    """Measure what the service costs beside the bare loop of decode, warp and net.

    Starts a server with this environment's settings, a client and the bare loop, each in a process of its own, and
    lets them take turns: loop, row, loop, row. Prints a line for each way of asking, and every target of the project
    with what was measured. Concurrency 1 is compared with the loop over single images, all else with full batches.

    Examples:

        reppose-serve bench --quick
        reppose-serve bench --out bench
        reppose-serve bench --routes rest --image photo.jpg --against litserve,mosec
    """
    from service import cpus
    from service.bench import command, load, peers, pictures, report, rows

    settings = _settings()
    chosen = _listed(routes, load.ROUTES, "--routes")
    others = _listed(against, tuple(peers.PEERS), "--against")
    for name in others:
        if not peers.PEERS[name].installed:
            typer.echo(
                f"{name} is left out: it is not installed (pip install {peers.PEERS[name].distribution})"
            )
    try:
        parallel = tuple(int(each) for each in (concurrency or ("1,32" if quick else "1,8,32")).split(","))
        sent = pictures.standard() if image is None else (pictures.from_file(image.stem, image.read_bytes()),)
    except (ValueError, OSError) as error:
        _fail(f"wrong number or picture: {error}")
    if min(parallel) < 1:
        _fail("--concurrency must be 1 or more")
    if quick and image is None:
        sent = sent[1:2]
    workers = settings.batch.workers or cpus.usable()
    mine = cpus.affinity()
    pinned = settings.batch.pin == "on" or (settings.batch.pin == "auto" and workers == len(mine))
    plan = command.Plan(
        roots=settings.models.roots,
        model=settings.models.default,
        provider=settings.models.provider,
        batch=settings.batch.size,
        workers=workers,
        processors=mine[:workers] if pinned else (),
        pictures=sent,
        routes=chosen,
        concurrency=parallel,
        precisions=_listed(precision or "", ("fp32", "int8"), "--precision"),
        seconds=seconds or (2.0 if quick else 3.0),
        rounds=rounds or (1 if quick else 3),
        against=[name for name in others if peers.PEERS[name].installed],
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it started ends with it
    try:
        found = command.run(plan, lambda text: typer.echo(text, err=True))
    except ServiceError as error:
        _fail(str(error))
    judged = rows.targets(found, workers)
    typer.echo(f"{report.table(found)}\n\n{report.verdicts(judged)}")
    if out is not None:
        for path in report.write(out, found, judged):
            typer.echo(f"wrote {path}")


def _listed(text: str, known: tuple[str, ...], option: str) -> list[str]:
    """Comma-separated names, each of which must be known."""
    names = [each.strip() for each in text.split(",") if each.strip()]
    if strange := set(names) - set(known):
        _fail(f"{option} knows {', '.join(known)}; not {', '.join(sorted(strange))}")
    return names


@cli.command()
def jitter(
    data: Annotated[Path, typer.Option(help="Folder with annotated photographs, and videos in video/*.mp4.")],
    annotations: Annotated[
        str,
        typer.Option(help="COCO keypoints under the folder, pictures beside them or in a .tar of that name."),
    ] = "body/lsp_val.json",
    stills: Annotated[int, typer.Option(min=0, help="How many photographs; 0 for the videos only.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Which photographs, and the camera's noise.")] = 0,
    rates: Annotated[str, typer.Option(help="Frames a second, separated by commas.")] = "10,15,30,60",
    videos: Annotated[bool, typer.Option(help="Measure the videos as well.")] = True,
    model: Annotated[str | None, typer.Option(help="name or name@version; else the default model.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a plot of one joint here (SVG).")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where the default smoother misses its goal.")
    ] = False,
) -> None:
    """Measure how calm and how late smoothed points are, in this process, with the real model and tracking.

    Photographs are panned, zoomed and turned before a noisy camera, so that the truth is known exactly; of the videos
    there is none. Printed are jitter at rest and in motion (mean second difference, in 1/1000 of the person's length),
    the share of it that is gone, the lag in motion behind the raw points in frames and milliseconds (mean, and of the
    latest clip), the lag that the smoother itself says, and the distance from the truth.

    Examples:

        reppose-serve jitter --data pose-data
        reppose-serve jitter --data pose-data --no-videos --seed 1 --check --out jitter.svg
    """
    from service.jitter.run import Plan

    try:
        asked = tuple(int(rate) for rate in rates.split(","))
    except ValueError:
        asked = ()
    if not asked or not all(1 <= rate <= 240 for rate in asked):
        _fail("--rates takes numbers from 1 to 240, separated by commas")
    try:
        missed = asyncio.run(
            _jitter(_settings(), Plan(data, annotations, stills, seed, asked, videos, model), out)
        )
    except (ServiceError, ModelZooError) as error:
        _fail(str(error))
    raise typer.Exit(1 if check and missed else 0)


async def _jitter(settings: Settings, plan: Plan, out: Path | None) -> list[str]:
    from service import server
    from service.jitter import report, run

    core = server.build_core(settings)
    await core.load(settings)
    try:
        result = await run.measure(core.predictor, plan, lambda text: typer.echo(text, err=True))
    finally:
        await core.stop(settings.drain.timeout_s)
    typer.echo(report.table([*result.synthetic, *result.filmed]))
    if result.left_out:
        typer.echo(f"left out: {result.left_out} clips in which nobody was followed all through")
    missed = report.misses(result.synthetic)
    for each in missed:
        typer.echo(f"goal missed: {each}")
    if out is not None and result.plot is not None:
        try:
            out.write_text(result.plot)
        except OSError as error:
            _fail(f"cannot write the plot: {error}")
        typer.echo(f"wrote {out}")
    return missed


def _bundled_photo() -> Path:
    try:
        return Path(str(importlib.resources.files("skimage") / "data" / "astronaut.png"))
    except ModuleNotFoundError:
        _fail("name a photograph, or install scikit-image, whose own would be used")


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _call(url: str, body: bytes | None = None, timeout_s: float = 60.0) -> bytes:
    """The body of a successful answer; ends the program with the service's words otherwise."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/octet-stream"})
    try:
        with _DIRECT.open(request, timeout=timeout_s) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        _fail(f"{url} answered {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        _fail(f"{url} does not answer: {error}")


def _wait_until_ready(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with _DIRECT.open(f"{url}/healthz/ready", timeout=5):
                return
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() >= deadline:
                _fail(f"no service is ready at {url} ({error}); start one with `reppose-serve`")
        time.sleep(0.2)


def _settings(**overrides: dict[str, object]) -> Settings:
    """The environment's settings, changed by options of the command line; sets up the log as they say."""
    given = {
        group: {name: value for name, value in values.items() if value is not None}
        for group, values in overrides.items()
    }
    try:
        settings = Settings(**given)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        _fail("wrong settings: " + "; ".join(lines))
    logs.configure(settings.log.level, settings.log.format)
    for warning in unknown_names(os.environ):
        logs.log.warning(warning)
    return settings


def _fail(message: str) -> Any:
    typer.echo(f"reppose-serve: {message}", err=True)
    sys.exit(1)


def main() -> None:
    """Entry point of the command."""
    cli()
