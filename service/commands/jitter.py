"""`reppose-serve jitter`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_zoo.errors import ModelZooError
from service.commands.common import ConfigOption, fail, read_settings
from service.errors import ServiceError
from service.settings import Settings

if TYPE_CHECKING:
    from service.jitter.run import Plan


def jitter(
    data: Annotated[Path, typer.Option(help="Folder with annotated photographs, and videos in video/*.mp4.")],
    annotations: Annotated[
        str,
        typer.Option(help="COCO keypoints under the folder, pictures beside them or in a .tar of that name."),
    ] = "body/lsp_val.json",
    stills: Annotated[
        int, typer.Option(min=0, help="How many photographs, or made clips; 0 for the videos only.")
    ] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Which photographs, and the camera's noise.")] = 0,
    rates: Annotated[str, typer.Option(help="Frames a second, separated by commas.")] = "10,15,30,60",
    videos: Annotated[bool, typer.Option(help="Measure the videos as well.")] = True,
    model: Annotated[str | None, typer.Option(help="name or name@version; else the default model.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a plot of one joint here (SVG).")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where the default smoother misses its goal.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Measure how calm and how late smoothed points are, in this process, with the real model and tracking.

    Photographs are panned, zoomed and turned before a noisy camera, so that the truth is known exactly; of the videos
    there is none. Printed are jitter at rest and in motion (mean second difference, in 1/1000 of the person's length),
    the share of it that is gone, the lag in motion behind the raw points in frames and milliseconds (mean, and of the
    latest clip), the lag that the smoother itself says, and the distance from the truth.

    Where the annotations are those of a made set of clips (reppose-train synth --kind video), its people move by
    themselves, at the clips' own rates.

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
        fail("--rates takes numbers from 1 to 240, separated by commas")
    try:
        missed = asyncio.run(
            _jitter(read_settings(config), Plan(data, annotations, stills, seed, asked, videos), model, out)
        )
    except (ServiceError, ModelZooError) as error:
        fail(str(error))
    raise typer.Exit(1 if check and missed else 0)


async def _jitter(settings: Settings, plan: Plan, model: str | None, out: Path | None) -> list[str]:
    from service.core import build_core
    from service.jitter import report, run

    core = build_core(settings)
    await core.load(settings)
    try:
        result = await run.measure(
            core.predictor, core.registry.get(model), plan, lambda text: typer.echo(text, err=True)
        )
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
            fail(f"cannot write the plot: {error}")
        typer.echo(f"wrote {out}")
    return missed
