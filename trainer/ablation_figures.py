"""What the runs of an ablation measured: figures with their spread over seeds, gains, and both drawn.

A gain is by how much a figure is better than that of the row it changes, seed by seed: of errors, what they fell by.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from model_zoo import skeletons
from trainer import metrics
from trainer.ablation import Row, Trial

Found = Sequence[tuple[Row, list[Trial]]]
"""Rows with their finished runs."""
LESS = (" error", " error of box")
"""How the names of figures end of which less is better."""


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


def of_runs(found: Found) -> dict[str, str]:
    """Columns of metrics.csv that every finished run has of the validation sets, and what to call them: set by set.

    What stands under the name of a set alone is its PCK; of a set without keypoints it is the same as another column,
    which is enough then.
    """
    rows = [trial.folder.metrics()[-1] for _, done in found for trial in done]
    there = [column for column in rows[0] if all(column in row for row in rows)]
    config = found[0][1][0].config
    headline = metrics.headline_name(skeletons.skeleton(config.skeleton))
    columns: dict[str, str] = {}
    for source in config.data.validate_on:
        short = source.annotations.stem
        further = [each for each in there if each.startswith(f"{source.name} ")]
        if source.name in there and not any(
            all(row[source.name] == row[each] for row in rows) for each in further
        ):
            columns[source.name] = f"{short} {headline}"
        columns |= {each: f"{short}{each.removeprefix(source.name)}" for each in further}
    return columns


def value(trial: Trial, name: str) -> float:
    """Of a figure after the last epoch."""
    return trial.folder.metrics()[-1][name]


def paired(found: Found, row: Row, name: str) -> Spread | None:
    """Gain of a row in a figure over the row it changes, on the seeds that both have; None without any."""
    done = {each.name: trials for each, trials in found}
    if row.after is None or row.after not in done:
        return None
    before = {trial.seed: value(trial, name) for trial in done[row.after]}
    sign = -1 if name.endswith(LESS) else 1
    both = [
        sign * (value(trial, name) - before[trial.seed]) for trial in done[row.name] if trial.seed in before
    ]
    return Spread.of(both) if both else None


def draw_gains(found: Found, columns: dict[str, str], path: Path) -> bool:
    """Draw the gain of every row with its standard error, a panel per figure; whether there was any."""
    rows = [row for row, _ in found if paired(found, row, next(iter(columns))) is not None]
    if not rows:
        return False
    figure = Figure(figsize=(3.5 * len(columns) + 3, 0.3 * len(rows) + 1.5), layout="constrained")
    for index, (name, title) in enumerate(columns.items()):
        axes = figure.add_subplot(1, len(columns), index + 1)
        for place, row in enumerate(rows):
            gain = paired(found, row, name)
            if gain is not None:
                axes.errorbar(gain.mean, place, xerr=gain.error or 0.0, fmt="o", color="C0", capsize=3)
        labels = [f"{row.name} (after {row.after})" for row in rows] if index == 0 else [""] * len(rows)
        axes.set_yticks(range(len(rows)), labels, fontsize=7)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(f"gain, {title}", fontsize=9)
    figure.savefig(path, dpi=110)
    return True


def draw_curves(found: Found, columns: dict[str, str], path: Path) -> bool:
    """Draw figures over the epochs, mean and deviation of the seeds: each row that others change, together with these.

    Returns:
        Whether there was anything to draw: without two epochs that were measured there is no curve.
    """
    done = {row.name: trials for row, trials in found}
    groups = {name: [name] for name in done}
    for row, _ in found:
        if row.after in groups:
            groups[row.after].append(row.name)
    groups = {name: each for name, each in groups.items() if len(each) > 1} or {name: [name] for name in done}
    lines = {(name, column): curve(trials, column) for name, trials in done.items() for column in columns}
    if all(len(epochs) < 2 for epochs, _, _ in lines.values()):
        return False
    figure = Figure(figsize=(3.6 * len(columns) + 2.5, 2.8 * len(groups)), layout="constrained")
    for down, names in enumerate(groups.values()):
        for across, (column, title) in enumerate(columns.items()):
            axes = figure.add_subplot(len(groups), len(columns), down * len(columns) + across + 1)
            for index, name in enumerate(names):
                epochs, means, deviations = lines[name, column]
                axes.plot(epochs, means, marker=".", color=f"C{index % 10}", label=name)
                axes.fill_between(
                    epochs, means - deviations, means + deviations, color=f"C{index % 10}", alpha=0.15
                )
            axes.set_title(title, fontsize=9)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
            if across == len(columns) - 1:
                axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=90)
    with Image.open(path) as picture:  # cards carry it, and 256 colours are a third of the bytes
        few = picture.convert("RGB").quantize(256)
    few.save(path, optimize=True)
    return True


def curve(trials: Sequence[Trial], column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs that all seeds measured a figure after, its mean over the seeds, and its standard deviation (0 of one)."""
    by_seed = [
        {row["epoch"]: row[column] for row in trial.folder.metrics() if column in row} for trial in trials
    ]
    epochs = sorted(set.intersection(*(set(each) for each in by_seed)))
    values = np.array([[each[epoch] for epoch in epochs] for each in by_seed])
    return (
        np.array(epochs),
        values.mean(axis=0),
        values.std(axis=0, ddof=1) if len(trials) > 1 else 0 * values[0],
    )
