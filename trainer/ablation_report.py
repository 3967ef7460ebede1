"""The tables and pictures of an ablation, from its run folders.

What is measured and gained says `ablation_figures`; behind a gain stands the standard error of its mean, so a gain of
less than twice that says little. Latency is processor time of one crop on one thread, in turns with the base's graph
within one process, as a ratio to it.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from model_zoo import codecs, skeletons
from trainer import ablation_figures as figures
from trainer import commands, evaluate, export, files, metrics, quantise
from trainer.ablation import Plan, Row, Trial, results
from trainer.ablation_figures import Found, Spread
from trainer.config import RunConfig
from trainer.data.loader import read
from trainer.errors import CheckpointError
from trainer.export import OnnxNet
from trainer.nets.pose import MAP_HEADS, multiply_adds
from trainer.nets.repvgg import deployed
from trainer.progress import track
from trainer.quantise import Recipe

CALIBRATED = 64
"""Crops that the graphs in 8 bits are calibrated on."""
TURNS, CALLS = 40, 5
"""How often each graph is timed, and calls of each turn."""

Table = list[list[str]]


def write(plan: Plan, out: Path, data: Path, document: Path, command: str, latency: bool = True) -> None:
    """Write the report and, beside it, the pictures of the gains and of the curves.

    Args:
        plan: of the ablation.
        out: folder of its runs.
        data: data root, for decoders and calibration.
        document: Markdown file that is written; the pictures have its name and end in .png and
            -curves.png.
        command: that printed it.
        latency: whether graphs are timed too.

    Raises:
        CheckpointError: no run is finished yet.
    """
    document.parent.mkdir(parents=True, exist_ok=True)
    found = list(results(plan, out))
    if not found:
        raise CheckpointError(f"{out} has no finished run of this plan yet")
    columns = figures.of_runs(found)
    picture, curves = document.with_suffix(".png"), document.with_name(f"{document.stem}-curves.png")
    speeds = _speeds(found, data) if latency else {}
    pictures = [
        *([("Gains", picture)] if figures.draw_gains(found, columns, picture) else []),
        *([("Curves", curves)] if figures.draw_curves(found, columns, curves) else []),
    ]
    config = found[0][1][0].config
    lengths = {row.name: _length(done[0].config) for row, done in found}
    usual_row = found[0][0].name
    usual = lengths[usual_row]
    others = [f"`{name}` has {length}" for name, length in lengths.items() if length != usual]
    names = list(columns.values())
    gains = [_gains(found, row, columns) for row, _ in found]
    decoders = _decoders(found, data)
    missing = [row.name for row in plan.rows if row.name not in {row.name for row, _ in found}]
    lines = [
        f"# {document.stem.replace('-', ' ').capitalize()}",
        "",
        f"Every row{' but those below' if others else ''}: {usual}; on the validation sets, after the last",
        f"epoch, by decoder `{config.codec.decoder}` where there are heatmaps. Behind a figure stands the standard",
        "deviation over the seeds that are finished.",
        "Such short runs show what helps early; a long schedule may rank otherwise.",
        *([f"Latency: processor time of a crop on one thread, `{usual_row}` in fp32 is 1."] if latency else []),
        *([f"Other lengths: {', '.join(others)}."] if others else []),
        *([f"Not finished by any seed yet: {', '.join(missing)}."] if missing else []),
        "",
        f"Written by `{command}`.",
        "",
        *_markdown(
            ["row", "change", "after", "seeds", *names, "MMACs", *(_LATENCY if latency else ())],
            [_cells(row, done, columns, speeds) for row, done in found],
        ),
        "",
        *(line for title, path in pictures for line in (f"![{title}]({path.name})", "")),
    ]  # fmt: skip
    if any(gains):
        lines += [
            *_GAINS,
            *_markdown(["row", "after", "seeds", *names], [each for each in gains if each]),
            "",
        ]
    if decoders:
        lines += ["## Decoders on the same weights", "", *_markdown(decoders[0], decoders[1:]), ""]
    document.write_text("\n".join(lines), "utf-8")


def _length(config: RunConfig) -> str:
    phases = ", then ".join(f"{each.epochs} epochs at {each.height}x{each.width}" for each in config.phases)
    return f"{phases}, batch {config.optimisation.batch}"


_GAINS = (
    "## Gains",
    "",
    "By how much a figure is better than that of the row it changes, mean over the seeds that both have, and the",
    "standard error of that mean; of errors, what they fell by. Less than twice the standard error says little.",
    "",
)
_LATENCY = ("fp32 latency", "int8 latency")


def _cells(
    row: Row, done: list[Trial], columns: dict[str, str], speeds: dict[str, tuple[float, float]]
) -> list[str]:
    net = deployed(export.trained_net(done[0].folder))
    macs = multiply_adds(net, done[0].config.phases[-1].size) / 1e6
    return [
        row.name,
        row.title,
        row.after or "",
        str(len(done)),
        *(str(Spread.of([figures.value(trial, name) for trial in done])) for name in columns),
        f"{macs:.0f}",
        *(f"{each:.2f}x" for each in speeds.get(row.name, ())),
    ]


def _gains(found: Found, row: Row, columns: dict[str, str]) -> list[str]:
    """Empty where there is nothing to compare with."""
    changes = [figures.paired(found, row, name) for name in columns]
    if not changes or changes[0] is None:
        return []
    return [row.name, row.after or "", str(changes[0].count), *map(_gain, changes)]


def _gain(gain: Spread) -> str:
    return f"{gain.mean:+.1f}" + ("" if gain.error is None else f" ± {gain.error:.1f}")


def _decoders(found: Found, data: Path) -> Table:
    """Every decoder on the heatmaps of rows with the first of their heads, and names above; measured once and kept.

    Sets without keypoints are left out; empty where no row has heatmaps.
    """
    seen: set[str] = set()
    names: list[str] = []
    rows: Table = []
    for row, done in reversed(found):
        head = done[0].config.net.head
        if head not in MAP_HEADS or head in seen:
            continue
        seen.add(head)
        by_decoder = [_measured_decoders(trial, data) for trial in track(done, "Decoding")]
        sets = [source.name for source in done[0].config.data.validate_on]
        for decoder in codecs.decoders():
            values = {name: [known[decoder][name] for known in by_decoder] for name in sets}
            names = [name for name, each in values.items() if not any(map(math.isnan, each))]
            rows.append([f"{row.name} ({head})", decoder, *(str(Spread.of(values[name])) for name in names)])
    return [["row", "decoder", *names], *rows] if rows else []


def _measured_decoders(trial: Trial, data: Path) -> dict[str, dict[str, float]]:
    kept, measured = trial.folder.path / "decoders.json", trial.folder.path / "metrics.csv"
    if kept.is_file() and kept.stat().st_mtime >= measured.stat().st_mtime:
        known = json.loads(kept.read_text("utf-8"))
        if known.keys() == codecs.decoders().keys():
            return known
    config = trial.config
    metric = metrics.headline_name(skeletons.skeleton(config.skeleton))
    found: dict[str, dict[str, float]] = {}
    for decoder in codecs.decoders():
        for source in config.data.validate_on:
            scores = commands.evaluate(
                str(trial.folder.path), data, [source.annotations], images=source.images, roots=[], decoder=decoder
            )  # fmt: skip
            known = {score.metric: score.value for _, score, _ in scores}
            found.setdefault(decoder, {})[source.name] = known.get(metric, math.nan)
    files.write_text(kept, json.dumps(found))
    return found


def _speeds(found: Found, data: Path) -> dict[str, tuple[float, float]]:
    """By row, the processor time of its graphs in fp32 and int8 as ratios to the first row's in fp32."""
    first = found[0][1][0].config
    people = read(first.data.validate_on[0], data, skeletons.skeleton(first.skeleton))[:CALIBRATED]
    crops, _ = evaluate.crops(people, first.phases[-1].size, first.padding)
    base, ratios = None, {}
    for row, done in track(found, "Timing"):
        graph = export.to_onnx(export.trained_net(done[0].folder), done[0].config)
        eight = quantise.quantise(graph, crops, Recipe("minmax", corrected=False))
        base = base or _caller(graph, crops[:1])
        ratios[row.name] = _ratios(base, [_caller(each, crops[:1]) for each in (graph, eight)])
    return ratios


def _caller(graph: onnx.ModelProto, crops: NDArray[np.uint8]) -> Callable[[], object]:
    net = OnnxNet(graph.SerializeToString())
    return lambda: net.served(crops)


def _ratios(base: Callable[[], object], others: Sequence[Callable[[], object]]) -> tuple[float, ...]:
    """Median over turns of each one's time in that of the base."""
    turns = [[_spent(each) for each in (base, *others)] for _ in range(TURNS + 2)][2:]
    return tuple(
        statistics.median(turn[index + 1] / turn[0] for turn in turns) for index in range(len(others))
    )


def _spent(call: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(CALLS):
        call()
    return time.process_time() - started


def _markdown(head: list[str], rows: Table) -> list[str]:
    return [f"| {' | '.join(each)} |" for each in (head, ["---"] * len(head), *rows)]
