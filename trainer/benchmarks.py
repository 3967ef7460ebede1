"""Accuracy against latency, on the same people and in one run: our bundles, and other people's nets where they are.

Crops are those of `evaluate`: the labelled box with the net's own context, no second look, no flipping. Latency is
processor time of one crop on one thread, in turns with the reference within one run, as a ratio to it: all that the
service asks of a graph of ours, the whole call of a peer. What is measured of bodies and of hands `benchmark_families`
says.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from model_zoo import geometry, skeletons
from model_zoo.bundle import Bundle
from model_zoo.skeletons import Skeleton
from trainer import evaluate
from trainer.benchmark_families import Family
from trainer.data import people as reading
from trainer.data.people import Person
from trainer.export import OnnxNet
from trainer.metrics import Score
from trainer.peer import Peer

TURNS, CALLS = 30, 5
"""How often each net is timed, and calls of each turn."""

Crops = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


@dataclass
class Entrant:
    """One net in the comparison."""

    net: str
    """Name of the bundle, with its version, or of the peer."""
    licence: str
    keypoints: tuple[str, ...]
    """That it answers."""
    predict: Callable[[list[Person]], tuple[Floats, Floats]]
    """Everybody's points (N, K, 2) in pixels of the pictures, and scores (N, K)."""
    timed: Callable[[list[Person], int], float]
    """Processor time of a call for one of the people, milliseconds, the mean of so many calls."""
    size: str = ""
    """MMACs and million parameters, where they are known."""
    ours: bool = True
    figures: dict[str, float] = field(default_factory=dict)
    joints: dict[str, dict[str, float]] = field(default_factory=dict)
    """By set, the PCK of each joint."""
    further: Callable[[list[Person]], list[Score]] = lambda people: []
    """Figures of what it says beside keypoints."""
    ratio: float = float("nan")
    precision: str = ""
    """Of a graph of ours."""

    @property
    def name(self) -> str:
        """Of the net and the precision."""
        return f"{self.net} {self.precision}".rstrip()


def entrant(bundle: Bundle, precision: str) -> Entrant:
    """A graph of a bundle, with its own decoder."""
    manifest = bundle.manifest
    skeleton = skeletons.skeleton(manifest.skeleton)
    net = OnnxNet(bundle.model_path if precision == "fp32" else bundle.int8_path)
    decoder = None if manifest.heatmaps is None else manifest.codec.decoder
    stride = None if decoder is None else manifest.heatmaps.stride

    def crops(people: list[Person]) -> tuple[Crops, Floats]:
        return evaluate.crops(people, manifest.input.size, manifest.input.padding)

    def predict(people: list[Person]) -> tuple[Floats, Floats]:
        return evaluate.predict(net, *crops(people), manifest.codec, decoder, stride)

    def further(people: list[Person]) -> list[Score]:
        found = evaluate.further_scores(net, people, *crops(people), manifest.outputs, skeleton)
        return [each for each in found if each.better == "more"]

    shown: list[Crops] = []

    def timed(people: list[Person], calls: int) -> float:
        shown[:] = shown or [crops(people[:1])[0]]
        began = time.process_time()
        for _ in range(calls):
            net.served(shown[0])
        return (time.process_time() - began) / calls * 1e3

    name = f"{bundle.name}@{bundle.version}"
    size = f"{manifest.macs / 1e6:.0f} / {manifest.parameters / 1e6:.2f}"
    terms = manifest.licence.partition(":")[0]
    return Entrant(
        name, terms, manifest.keypoints, predict, timed, size, further=further, precision=precision
    )


def entrant_of(peer: Peer, family: Family) -> Entrant:
    """A peer, which is shown crops as it likes them."""

    def crops(people: list[Person]) -> tuple[Crops, Floats]:
        return evaluate.crops(people, family.peer_size, family.peer_padding)

    def predict(people: list[Person]) -> tuple[Floats, Floats]:
        images, matrices = crops(people)
        points, scores = peer.find(images)
        return geometry.apply(geometry.invert(matrices), points), scores

    shown: list[Crops] = []

    def timed(people: list[Person], calls: int) -> float:
        shown[:] = shown or [crops(people[:1])[0]]
        return peer.timed(shown[0], calls)

    return Entrant(peer.name, peer.licence, peer.keypoints, predict, timed, ours=False)


def measure(
    entrants: Sequence[Entrant],
    sets: dict[str, list[Person]],
    family: Family,
    reference: Entrant,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Fill in the figures, joints and ratios of all.

    Args:
        entrants: to compare.
        sets: people by name of their set, as `people_of` reads them.
        family: of the entrants.
        reference: that latency is relative to; of any family.
        say: is told what happens next.
    """
    for each in entrants:
        for name, people in sets.items():
            say(f"{each.name} on {name}")
            _figures(each, name, people, family)
    everybody = next(iter(sets.values()))
    say("latency, in turns")
    timed = [reference, *(each for each in entrants if each is not reference)]
    turns = [[one.timed(everybody, CALLS) for one in timed] for _ in range(TURNS + 1)][1:]
    for index, each in enumerate(timed):
        each.ratio = statistics.median(turn[index] / turn[0] for turn in turns)


def people_of(data: Path, sets: Sequence[Path], skeleton: Skeleton) -> dict[str, list[Person]]:
    """Everybody of the sets, by name; DataError where one cannot be read."""
    return {path.stem: reading.read(data / path, skeleton) for path in sets}


def _in_order(skeleton: Skeleton, entrant: Entrant, people: list[Person]) -> tuple[Floats, Floats]:
    """Predictions in the order of the skeleton; what the net does not answer lies nowhere, with score 0."""
    points, scores = entrant.predict(people)
    ordered = np.full((len(people), len(skeleton), 2), 1e6), np.zeros((len(people), len(skeleton)))
    for column, name in enumerate(entrant.keypoints):
        if name in skeleton.keypoints:
            ordered[0][:, skeleton.index(name)] = points[:, column]
            ordered[1][:, skeleton.index(name)] = scores[:, column]
    return ordered


def _figures(entrant: Entrant, name: str, people: list[Person], family: Family) -> None:
    if any(person.visible.any() for person in people):
        points, scores = _in_order(family.skeleton, entrant, people)
        figures, joints = family.figures(people, points, scores, family.skeleton)
        entrant.figures |= {f"{name} {figure}": value for figure, value in figures.items()}
        entrant.joints[name] = joints
    entrant.figures |= {f"{name} {each.metric}": each.value for each in entrant.further(people)}


def write(
    entrants: Sequence[Entrant], document: Path, command: str, family: Family, reference: Entrant
) -> None:
    """Write the tables, and beside them the picture of accuracy over latency.

    Args:
        entrants: measured.
        document: Markdown file; the picture has its name and ends in .png.
        command: that made it.
        family: of the entrants.
        reference: that latency is relative to.
    """
    document.parent.mkdir(parents=True, exist_ok=True)
    picture = document.with_suffix(".png")
    names = list(dict.fromkeys(name for each in entrants for name in each.figures))
    names.sort(key=lambda name: [*_sets(entrants)].index(name.partition(" ")[0]))
    _chart(entrants, [name for name in names if name.endswith(family.charted)], picture)
    rows = [
        [
            *(each.name, each.size, f"{each.ratio:.2f}x"),
            *(f"{each.figures[name]:.1f}" if name in each.figures else "" for name in names),
            each.licence,
        ]
        for each in entrants
    ]
    lines = [
        f"# {family.title}",
        "",
        *family.about,
        f"Latency is processor time on one thread against {reference.name}, in turns within one run. No net of ours",
        "learnt from these sets.",
        "",
        f"Written by `{command}`.",
        "",
        f"![Accuracy over latency]({picture.name})",
        "",
        *_table(["net", "MMACs / M parameters", "latency", *names, "terms"], rows),
    ]
    for name in entrants[0].joints:
        joints = list(entrants[0].joints[name])
        lines += ["", f"## {name}, joint by joint (PCK)", ""]
        lines += _table(
            ["net", *(joint.replace("_", " ") for joint in joints)],
            [
                [each.name, *(f"{each.joints[name].get(joint, 0):.0f}" for joint in joints)]
                for each in entrants
            ],
        )
    document.write_text("\n".join([*lines, ""]), "utf-8")


def _sets(entrants: Sequence[Entrant]) -> dict[str, None]:
    """Names of the sets, in order; figures begin with them."""
    return dict.fromkeys(name.partition(" ")[0] for each in entrants for name in each.figures)


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(each)} |" for each in (heads, ["---"] * len(heads), *rows)]


def _chart(entrants: Sequence[Entrant], shown: Sequence[str], path: Path) -> None:
    """A panel for each figure; one colour for both precisions of a net, 8 bits hollow."""
    figure = Figure(figsize=(3.4 * len(shown), 3.9), layout="constrained")
    colours = {name: f"C{index}" for index, name in enumerate(dict.fromkeys(each.net for each in entrants))}
    for index, name in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), index + 1)
        for each in (one for one in entrants if name in one.figures):
            colour = colours[each.net]
            axes.scatter(
                each.ratio,
                each.figures[name],
                marker="o" if each.ours else "s",
                facecolor="none" if each.precision == "int8" else colour,
                edgecolor=colour,
                linewidth=1.5,
                label=each.name,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%gx"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("processor time of a crop, one thread", fontsize=9)
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
    # A figure that a peer does not answer has fewer dots than others: the legend is that of all of them.
    dots = {
        label: dot
        for axes in figure.axes
        for dot, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(dots.values(), dots.keys(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)
