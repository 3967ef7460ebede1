"""Commands of `reppose-train` that make sets to learn from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import DataRoot, Images
from trainer.synth import families

app = typer.Typer()


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder of the set.")] = Path("runs/synth"),
    kind: Annotated[str, typer.Option(help="What to make: body, hand, scene or video.")] = "body",
    n: Annotated[int, typer.Option("--n", min=1, help="Pictures, or clips of video.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything in them.")] = 1,
    size: Annotated[
        int | None,
        typer.Option(min=64, max=1024, help="Longer side in pixels; 256 unless the kind has another."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 = one per core.")] = 0,
    poses: Annotated[
        Path | None, typer.Option(help="Library of poses to draw half of them from: .npz with `angles`.")
    ] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(help="Folder of pictures without people, to stand behind them.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Leave a family of chances out, body and hand; repeat for more. {families.described()}."
        ),
    ] = None,
    bench: Annotated[
        bool, typer.Option("--bench", help="Time the making of N pictures; write none.")
    ] = False,
) -> None:
    """Make people to order: pictures with exact joints, in two and three dimensions, for training without a data set.

    Needs the extra `synth`, and on Debian libegl1 and libgl1-mesa-dri. The first call reads the shapes of bodies,
    which takes a while; a call that was interrupted goes on.

    Example: reppose-train synth runs/synth --n 30000
    """
    from trainer.synth import asset, kinds, write
    from trainer.synth.recipe import Recipe

    asset.prepare(say=lambda text: typer.echo(text, err=True))
    made = kinds.of(kind)
    recipe = Recipe(kind, n, seed, size or made.size, poses, backgrounds, tuple(without or ()))
    if bench:
        from trainer.synth import bench as timing

        timing.show(recipe, made, jobs or len(os.sched_getaffinity(0)))
        return
    document = write.write(out, recipe, made, jobs=jobs or len(os.sched_getaffinity(0)))
    typer.echo(f"wrote {document}")


@app.command("synth-fit")
def synth_fit(
    on: Annotated[
        list[Path], typer.Option(help="COCO-keypoints JSON of a set, relative to --data; repeat for more.")
    ],
    out: Annotated[Path, typer.Argument(help="Library of poses to write.")] = Path("runs/poses.npz"),
    data: DataRoot = Path("data"),
    seed: Annotated[int, typer.Option(min=0, help="Of the poses that a fit may start from.")] = 1,
) -> None:
    """Fit the body to the 2D keypoints of people: poses that people took, for `synth --poses`.

    Of a set `NAME.json` the second opinions in `NAME_teacher.json` are heard where that file is there. Poses carry no
    more than angles, but come from somebody's labels: mind the terms of the set. Needs the extra `synth`.

    Example: reppose-train synth-fit runs/poses.npz --data ../data --on body/lspet_train.json --on body/lsp_train.json
    """
    from rich.console import Console
    from rich.progress import Progress

    from model_zoo import skeletons
    from trainer.config import Source
    from trainer.data import loader
    from trainer.synth import asset, fit

    asset.prepare(say=lambda text: typer.echo(text, err=True))
    people = []
    for labels in on:
        teacher = labels.with_name(f"{labels.stem}_teacher.json")
        source = Source(annotations=str(labels), teacher=str(teacher) if (data / teacher).is_file() else None)
        people += loader.read(source, data, skeletons.BODY19)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fitting", total=len(people))
        found = fit.fit(people, seed=seed, progress=lambda count: bar.advance(task, count))
    found.save(out)
    typer.echo(f"wrote {out}: {len(found.angles)} poses of {len(people)} people")


@app.command()
def label(
    annotations: Annotated[
        Path, typer.Argument(help="COCO-keypoints JSON of hands without keypoints, relative to --data.")
    ],
    out: Annotated[Path, typer.Argument(help="COCO-keypoints JSON to write.")],
    peer: Annotated[Path, typer.Option(help="Python of an environment with mediapipe, whose net it is.")],
    data: DataRoot = Path("data"),
    images: Images = None,
) -> None:
    """Find keypoints for hands that have none, by MediaPipe Hands, where it finds the same in several views of one.

    Pictures stay where they are: give their folder or tar as `images` beside the new `annotations`.

    Example: reppose-train label hands/presence_train.json ../data/labelled/presence_train.json --data ../data
        --peer peers/bin/python
    """
    from trainer import labelling
    from trainer.benchmark_families import FAMILIES
    from trainer.peer import Peer

    if out.is_dir() or out.resolve() == (data / annotations).resolve():
        raise typer.BadParameter("it is a folder, or the set itself", param_hint="out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(
            f"{out.parent} cannot be made: {error.strerror}", param_hint="out"
        ) from error
    chosen = FAMILIES["hand"]
    stored = None if images is None else data / images
    with Peer(peer, chosen.peer) as program:
        document = labelling.label(
            program, data / annotations, chosen.skeleton, chosen.peer_size, images=stored
        )
    labelling.write(document, out)
    typer.echo(f"wrote {out}: {document['info']['kept']} of {document['info']['looked_at']}")
