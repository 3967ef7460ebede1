"""The table and the picture of an ablation, from its run folders.

A row's gain is the mean over seeds of its PCK minus that of the row it changes, seed by seed; behind ± stands the
standard error of that mean, so a gain of less than twice that says little. Latency is processor time of one crop on one
thread, in turns with the base's graph within one process, as a ratio to it.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_zoo import codecs, skeletons
from trainer import commands, evaluate, export, metrics, quantise
from trainer.ablation import Plan, Row, Trial, results
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


@dataclass(frozen=True)
class Spread:
    """Mean of some seeds."""

    mean: float
    deviation: float | None
    """Standard deviation of one seed; None for a single one."""
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        many = len(values) > 1
        return cls(statistics.mean(values), statistics.stdev(values) if many else None, len(values))

    @property
    def error(self) -> float | None:
        """Standard error of the mean."""
        return None if self.deviation is None else self.deviation / math.sqrt(self.count)

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


def write(plan: Plan, out: Path, data: Path, document: Path, command: str, latency: bool = True) -> None:
    """Write the report and, beside it, the picture of the gains.

    Args:
        plan: of the ablation.
        out: folder of its runs.
        data: data root, for decoders and calibration.
        document: Markdown file that is written; the picture has its name and ends in .png.
        command: that printed it.
        latency: whether graphs are timed too.

    Raises:
        CheckpointError: no run is finished yet.
    """
    found = list(results(plan, out))
    if not found:
        raise CheckpointError(f"{out} has no finished run of this plan yet")
    sets = _figures(found)
    picture = document.with_suffix(".png")
    speeds = _speeds(found, data) if latency else {}
    drawn = gains(found, sets, picture)
    config = found[0][1][0].config
    metric = metrics.headline_name(skeletons.skeleton(config.skeleton))
    sizes = ", then ".join(f"{each.epochs} epochs at {each.height}x{each.width}" for each in config.phases)
    seeds = sorted({len(done) for _, done in found})
    heads = ["row", "change", "after", *sets, *(f"gain {name}" for name in sets), "MMACs"]
    lines = [
        f"# {document.stem.replace('-', ' ').capitalize()}",
        "",
        f"Every row: {sizes}, batch {config.optimisation.batch}. {metric} on the validation sets, by decoder",
        f"`{config.codec.decoder}` where there are heatmaps. Seeds per row: {' or '.join(map(str, seeds))}.",
        "Behind a figure stands the standard deviation over seeds, behind a gain the standard error of its mean.",
        "Such short runs show what helps early; a long schedule may rank otherwise.",
        "",
        f"Written by `{command}`.",
        "",
        *([f"![Gains]({picture.name})", ""] if drawn else []),
        *_markdown(
            heads + list(_LATENCY if latency else ()),
            [_cells(found, row, done, sets, speeds) for row, done in found],
        ),
        "",
        "## Decoders on the same weights",
        "",
        *_markdown(["row", "decoder", *_names(found)], list(_decoders(found, data))),
        "",
    ]  # fmt: skip
    document.write_text("\n".join(lines), "utf-8")


_LATENCY = ("fp32 latency", "int8 latency")


def _figures(found: Sequence[tuple[Row, list[Trial]]]) -> list[str]:
    """Columns of metrics.csv that every finished run has of the validation sets: set by set, keypoints first."""
    names = _names(found)
    rows = [trial.folder.metrics()[-1] for _, done in found for trial in done]
    there = [column for column in rows[0] if all(column in row for row in rows)]
    return [c for name in names for c in there if c == name or c.startswith(f"{name} ")]


def _names(found: Sequence[tuple[Row, list[Trial]]]) -> list[str]:
    return [source.name for source in found[0][1][0].config.data.validate_on]


def paired(found: Sequence[tuple[Row, list[Trial]]], row: Row, name: str) -> Spread | None:
    """Gain of a row on a set over the row it changes, on the seeds that both have; None without any."""
    done = {each.name: trials for each, trials in found}
    if row.after is None or row.after not in done:
        return None
    before = {trial.seed: _value(trial, name) for trial in done[row.after]}
    both = [_value(trial, name) - before[trial.seed] for trial in done[row.name] if trial.seed in before]
    return Spread.of(both) if both else None


def gains(found: Sequence[tuple[Row, list[Trial]]], sets: Sequence[str], path: Path) -> bool:
    """Draw the gain of every row with its standard error, a panel per set; whether there was any."""
    rows = [row for row, _ in found if paired(found, row, sets[0]) is not None]
    if not rows:
        return False
    figure = Figure(figsize=(5 * len(sets) + 2, 0.3 * len(rows) + 1.5), layout="constrained")
    for index, name in enumerate(sets):
        axes = figure.add_subplot(1, len(sets), index + 1)
        for place, row in enumerate(rows):
            gain = paired(found, row, name)
            if gain is not None:
                axes.errorbar(gain.mean, place, xerr=gain.error or 0.0, fmt="o", color="C0", capsize=3)
        labels = [f"{row.name} (after {row.after})" for row in rows] if index == 0 else [""] * len(rows)
        axes.set_yticks(range(len(rows)), labels, fontsize=7)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(f"gain, {name}", fontsize=9)
    figure.savefig(path, dpi=110)
    return True


def _value(trial: Trial, name: str) -> float:
    return trial.folder.metrics()[-1][name]


def _cells(
    found: Sequence[tuple[Row, list[Trial]]],
    row: Row,
    done: list[Trial],
    sets: Sequence[str],
    speeds: dict[str, tuple[float, float]],
) -> list[str]:
    values = [str(Spread.of([_value(trial, name) for trial in done])) for name in sets]
    changes = [paired(found, row, name) for name in sets]
    net = deployed(export.trained_net(done[0].folder))
    macs = multiply_adds(net, done[0].config.phases[-1].size) / 1e6
    return [
        row.name,
        row.title,
        row.after or "",
        *values,
        *("" if each is None else _gain(each) for each in changes),
        f"{macs:.0f}",
        *(f"{each:.2f}x" for each in speeds.get(row.name, ())),
    ]


def _gain(gain: Spread) -> str:
    return f"{gain.mean:+.1f}" + ("" if gain.error is None else f" ± {gain.error:.1f}")


def _decoders(found: Sequence[tuple[Row, list[Trial]]], data: Path) -> Iterator[list[str]]:
    """Every decoder on the heatmaps of rows with the first of their heads; measured once, then remembered."""
    seen: set[str] = set()
    for row, done in reversed(found):
        head = done[0].config.net.head
        if head not in MAP_HEADS or head in seen:
            continue
        seen.add(head)
        by_decoder = [(trial, _measured_decoders(trial, data)) for trial in track(done, "Decoding")]
        for decoder in codecs.decoders():
            spreads = [
                Spread.of([known[decoder][source.name] for _, known in by_decoder])
                for source in done[0].config.data.validate_on
            ]
            yield [f"{row.name} ({head})", decoder, *map(str, spreads)]


def _measured_decoders(trial: Trial, data: Path) -> dict[str, dict[str, float]]:
    kept = trial.folder.path / "decoders.json"
    if kept.is_file():
        return json.loads(kept.read_text("utf-8"))
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
    kept.write_text(json.dumps(found), "utf-8")
    return found


def _speeds(found: Sequence[tuple[Row, list[Trial]]], data: Path) -> dict[str, tuple[float, float]]:
    """By row, the processor time of its graphs in fp32 and int8 as ratios to the first row's in fp32."""
    first = found[0][1][0].config
    people = read(first.data.validate_on[0], data, skeletons.skeleton(first.skeleton))[:CALIBRATED]
    crops, _ = evaluate.crops(people, first.phases[-1].size, first.padding)
    base, ratios = None, {}
    for row, done in track(found, "Timing"):
        graph = export.to_onnx(export.trained_net(done[0].folder), done[0].config)
        eight = quantise.quantise(graph, crops, Recipe("minmax", corrected=False))
        base = base or _caller(OnnxNet(graph.SerializeToString()), done[0].config.net.head, crops[:1])
        both = [
            _caller(OnnxNet(each.SerializeToString()), done[0].config.net.head, crops[:1])
            for each in (graph, eight)
        ]
        ratios[row.name] = _ratios(base, both)
    return ratios


def _caller(net: OnnxNet, head: str, crops: NDArray[np.uint8]) -> Callable[[], object]:
    return lambda: net(crops) if head in MAP_HEADS else net.keypoints(crops)


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
