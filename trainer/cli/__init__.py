"""`reppose-train`: train, compare, evaluate and export pose models."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from model_zoo.errors import ModelZooError
from model_zoo.manifest import BundleManifest
from trainer.cli import sets
from trainer.cli.options import Bundles, DataRoot, Images
from trainer.errors import Interrupted, TrainerError

app = typer.Typer(
    name="reppose-train",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=__doc__,
    rich_markup_mode=None,
)

app.add_typer(sets.app)


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(help="YAML file, or the name of a shipped one (`configs` lists them).")
    ],
    data: DataRoot = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/NAME. An interrupted run goes on.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=value, changes one setting.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    processes: Annotated[
        int, typer.Option(min=0, help="Processes that share each batch; 0 = one per core or GPU.")
    ] = 0,
    bundles: Bundles = None,
) -> None:
    """Train a model, or go on where the same run was interrupted; started by torchrun, on several machines too.

    Example: reppose-train train body19-small --data ../data --out runs/first --set seed=2
    """
    from trainer import config as configuration
    from trainer import runs

    resolved = configuration.load(config, overrides)
    folder = out or Path("runs") / resolved.name
    runs.train(resolved, data, folder, roots=bundles or [], accelerator=accelerator, processes=processes)


@app.command()
def configs() -> None:
    """List the configurations that come with the package."""
    from trainer import config as configuration

    for name in configuration.shipped():
        typer.echo(f"{name:20} {configuration.load(name).description}")


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    out: Annotated[Path, typer.Option(help="PNG of the curves, one over the other.")] = Path("compare.png"),
) -> None:
    """Set several runs side by side: a table of where they stand, and their curves in one picture.

    Example: reppose-train compare runs/first runs/second --out both.png
    """
    from rich.console import Console
    from rich.table import Table

    from trainer import runs

    names, rows = runs.compare(folders, out)
    table = Table("", *names)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    typer.echo(f"wrote {out}")


@app.command()
def ablate(
    plan: Annotated[str, typer.Argument(help="YAML plan, or the name of a shipped one.")],
    data: DataRoot = Path("data"),
    out: Annotated[Path | None, typer.Option(help="Folder of the run folders; default: runs/PLAN.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Only this row; repeat for more.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Runs side by side; 0 = one per core.")] = 0,
    report: Annotated[
        Path | None,
        typer.Option(help="Train nothing: write the table of what is finished to this Markdown file."),
    ] = None,
    latency: Annotated[bool, typer.Option(help="Time the graphs for the report as well.")] = True,
) -> None:
    """Train the rows of an ablation that are not finished yet, one process per run; or write its report.

    Examples:

        reppose-train ablate survey --data ../data
        reppose-train ablate survey --data ../data --report docs/ablation.md
    """
    from trainer import ablation

    usual = Path("runs") / Path(plan).stem
    chosen, out = ablation.load(plan), out or usual
    if report is None:
        todo = ablation.trials(chosen, out, row or [])
        ablation.run(todo, data, jobs or len(os.sched_getaffinity(0)), typer.echo)
        return
    from trainer import ablation_report

    if row:
        raise typer.BadParameter("a report is of all rows", param_hint="--row")
    where, timed = "" if out == usual else f"--out {out} ", "" if latency else "--no-latency "
    command = f"reppose-train ablate {plan} --data DATA {where}{timed}--report {report}"
    ablation_report.write(chosen, out, data, report, command, latency)
    typer.echo(f"wrote {report}")


@app.command()
def bench(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped one.")],
    data: DataRoot = Path("data"),
    cache: Annotated[Path, typer.Option(help="Folder of decoded crops.")] = Path("runs/cache"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=value, changes one setting.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the net on a CPU.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often both are timed, in turns.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each turn.")] = 4,
) -> None:
    """Measure images/s of the training loop against the bare forward and backward pass of the same net.

    Example: reppose-train bench body19-small --data ../data --set phases.0.epochs=1
    """
    from trainer import benchmark
    from trainer import config as configuration

    typer.echo(
        benchmark.run(
            configuration.load(config, overrides), data, cache,
            accelerator=accelerator, threads=threads, rounds=rounds, steps=steps,
        )
    )  # fmt: skip


@app.command()
def benchmarks(
    data: DataRoot = Path("data"),
    family: Annotated[Literal["body", "hand"], typer.Option(help="Of what the models are.")] = "body",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Markdown file; its picture lies beside it. Default docs/benchmarks.md, or docs/benchmarks-hand.md."
        ),
    ] = None,
    bundles: Bundles = None,
    reference: Annotated[
        str, typer.Option(help="Bundle whose fp32 graph latency is relative to, of any family.")
    ] = "body19-small",
    peer: Annotated[
        Path | None,
        typer.Option(help="Python of an environment with mediapipe, to measure that net as well."),
    ] = None,
    on: Annotated[
        list[Path] | None,
        typer.Option(help="COCO-keypoints JSON, instead of the test sets; repeat for more."),
    ] = None,
) -> None:
    """Write accuracy against latency of all models of bodies or hands, and of a peer, measured in one run.

    Examples:

        reppose-train benchmarks --data ../data
        reppose-train benchmarks --family hand --data ../data
    """
    from contextlib import ExitStack

    from model_zoo import bundle
    from trainer import benchmarks as comparing
    from trainer.benchmark_families import FAMILIES
    from trainer.peer import Peer

    chosen = FAMILIES[family]
    found = [
        bundle.read(each) for root in (*(bundles or ()), bundle.BUILTIN) for each in bundle.discover(root)
    ]
    of_family = [each for each in found if each.manifest.skeleton == chosen.skeleton.name]
    of_family.sort(key=lambda each: (each.name != reference, each.name))
    compared = bundle.find(reference, roots=(*(bundles or ()), bundle.BUILTIN))
    with ExitStack() as stack:
        entrants = [
            comparing.entrant(each, precision)
            for each in of_family
            for precision in ("fp32", "int8")
            if precision == "fp32" or each.int8_path is not None
        ]
        name = f"{compared.name}@{compared.version} fp32"
        base = next((each for each in entrants if each.name == name), None)
        base = base or comparing.entrant(compared, "fp32")
        if peer is not None:
            program = stack.enter_context(Peer(peer, chosen.peer))
            entrants.append(comparing.entrant_of(program, chosen))
        people = comparing.people_of(data, on or chosen.sets, chosen.skeleton)
        comparing.measure(entrants, people, chosen, base, lambda text: typer.echo(text, err=True))
    words = "" if family == "body" else f" --family {family}"
    words += "".join(f" --on {each}" for each in on or ()) + (" --peer PYTHON" if peer else "")
    document = out or Path("docs/benchmarks.md" if family == "body" else f"docs/benchmarks-{family}.md")
    comparing.write(entrants, document, f"reppose-train benchmarks --data DATA{words}", chosen, base)
    typer.echo(f"wrote {document}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Bundle NAME[@VERSION], bundle folder, or run folder.")],
    on: Annotated[
        list[Path], typer.Option(help="COCO-keypoints JSON of a set, relative to --data; repeat for more.")
    ],
    data: DataRoot = Path("data"),
    images: Images = None,
    bundles: Bundles = None,
    decoder: Annotated[str | None, typer.Option(help="Decoder; default: the model's own.")] = None,
    precision: Annotated[
        Literal["fp32", "int8"], typer.Option(help="Which of a bundle's graphs is measured.")
    ] = "fp32",
    per_keypoint: Annotated[
        bool, typer.Option("--per-keypoint", help="Print every keypoint's figure too.")
    ] = False,
) -> None:
    """Measure a model on annotated people or hands: every figure that the labels allow.

    PCK, OKS-AP or mean error of keypoints; AUC of presence, accuracy of classes, error of depth; and how far
    probabilities are from how often they came true (ECE, in per cent).

    Example: reppose-train evaluate body19-small --data ../data --on body/lsp_test.json --decoder dsnt
    """
    from rich.console import Console
    from rich.table import Table

    from trainer import commands

    table = Table("set", "people", "metric", "value", "decoder")
    for name, score, used in commands.evaluate(
        model, data, on, images=images, roots=bundles or [], decoder=decoder, precision=precision
    ):
        table.add_row(name, str(score.people), score.metric, f"{score.value:.1f}", used)
        for keypoint, value in score.per_keypoint.items() if per_keypoint else ():
            table.add_row("", "", keypoint, f"{value:.1f}", "", style="dim")
    Console().print(table)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="Folder of bundles; OUT/NAME/VERSION is written.")] = Path(
        "bundles"
    ),
    version: Annotated[str, typer.Option(help="Version of the new bundle.")] = "1",
    data: DataRoot = Path("data"),
    on: Annotated[
        list[Path] | None, typer.Option(help="Sets to measure for the model card; repeat for more.")
    ] = None,
    images: Images = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a bundle of this version.")] = False,
    calibrate: Annotated[
        Literal["all", "heads", "scores", "nothing"],
        typer.Option(
            help="What shall come true as often as it says, on the run's validation sets: presence and classes "
            "(heads), the scores of keypoints (scores), or both."
        ),
    ] = "all",
) -> None:
    """Fuse a trained net, write it as ONNX, compare all forms on real crops, and write the bundle.

    Without --on the run's own validation sets are measured.

    Example: reppose-train export runs/body19-small --data ../data --on body/lsp_test.json --out bundles
    """
    from trainer import commands

    written = commands.export(
        run, out, version, data, on or [], images=images, replace=replace, calibrated=calibrate
    )
    for each in written.manifest.agreement:
        maps = "" if each.heatmap is None else f"heatmaps differ by {each.heatmap:.1e}, "
        typer.echo(f"{each.net}: {maps}keypoints differ by {each.points_px:.1e} crop px")
    _tell_calibration(written.manifest)
    for each in written.manifest.accuracy:
        typer.echo(f"{each.data}: {each.metric} {each.value:.1f} ({each.people} people, {each.decoder})")
    typer.echo(f"wrote {written.folder}")


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(metavar="BUNDLE", help="NAME[@VERSION], or a bundle's folder.")],
    on: Annotated[
        list[Path],
        typer.Option(
            help="COCO-keypoints JSON of people the net did not learn from, relative to --data; repeat."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of bundles; OUT/NAME/VERSION is written.")],
    data: DataRoot = Path("data"),
    images: Images = None,
    bundles: Bundles = None,
    version: Annotated[
        str | None, typer.Option(help="Of the new bundle; default: VERSION-calibrated.")
    ] = None,
    only: Annotated[
        Literal["all", "heads", "scores"],
        typer.Option(help="heads: presence and classes; scores: of keypoints. The others stay as they are."),
    ] = "all",
    measure: Annotated[
        list[Path] | None, typer.Option(help="Sets to measure anew for the model card; repeat for more.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of how often probabilities came true.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a bundle of this version.")] = False,
) -> None:
    """Let what a bundle says come true as often as it says: scores of keypoints, presence, classes.

    A keypoint's score becomes the probability that it lies within 0.1 of the long side of the person's box. No order
    changes: what was likelier stays so.

    Example: reppose-train calibrate my-pose --data ../data --on body/lspet_val.json --out bundles
    """
    from trainer import commands

    written = commands.calibrate(
        model, data, on, out=out, images=images, roots=bundles or [], version=version, calibrated=only,
        measured=measure or [], plot=plot, replace=replace,
    )  # fmt: skip
    _tell_calibration(written.manifest)
    typer.echo(f"wrote {written.folder}")


@app.command()
def card(
    model: Annotated[str, typer.Argument(metavar="BUNDLE", help="NAME[@VERSION], or a bundle's folder.")],
    out: Annotated[Path, typer.Option(help="Folder of bundles; OUT/NAME/VERSION is written.")],
    on: Annotated[
        list[Path] | None,
        typer.Option(help="Sets to measure in all precisions, relative to --data; repeat for more."),
    ] = None,
    data: DataRoot = Path("data"),
    images: Images = None,
    bundles: Bundles = None,
    version: Annotated[str | None, typer.Option(help="Of the written bundle; default: the old one.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Time the graphs, relative to the fp32 graph of this bundle.")
    ] = None,
    document: Annotated[
        list[Path] | None,
        typer.Option(
            help="Markdown page to put into the bundle, with the pictures beside it; repeat for more."
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a bundle of this version.")] = False,
) -> None:
    """Write a bundle's card and manifest anew: measured on these sets, timed, with pages about it. The nets stay.

    Example: reppose-train card my-pose --data ../data --on body/lsp_test.json --reference body19-small --out bundles
    """
    from trainer import commands

    written = commands.card(
        model, data, on or [], out=out, images=images, roots=bundles or [], version=version, reference=reference,
        documents=document or [], replace=replace,
    )  # fmt: skip
    for each in written.manifest.accuracy:
        typer.echo(f"{each.data}: {each.metric} {each.value:.1f} ({each.people} crops, {each.precision})")
    for each in written.manifest.latency:
        typer.echo(
            f"{each.precision}: {each.ratio:.2f}x {each.reference}, {each.ms:.2f} ms on {each.hardware}"
        )
    typer.echo(f"wrote {written.folder}")


def _tell_calibration(manifest: BundleManifest) -> None:
    for each in manifest.calibration:
        typer.echo(
            f"{each.of}: expected calibration error {each.error_before:.3f} -> {each.error:.3f} "
            f"({each.count} cases of {each.data}, {each.bins} bins)"
        )


def main() -> None:
    """Run the command line; expected errors are one line, not a traceback."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except Interrupted as stop:
        typer.echo(str(stop), err=True)
        sys.exit(Interrupted.STATUS)
    except (TrainerError, ModelZooError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
