"""Calibrate what a net says on an annotated set: presence, classes, and the scores of keypoints.

A keypoint's score becomes the probability that the keypoint lies within `evaluate.WITHIN` of the long side of the
person's box; presence and classes, the probability that they are right. The maps are fitted to the answers of the
exported graph in float32 and put into every graph of the bundle; see `trainer.reliability` for how, and
`trainer.calibrated_graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_zoo import bundle, skeletons
from model_zoo import scores as score_maps
from model_zoo.bundle import Bundle
from model_zoo.manifest import SCORES, BundleManifest, Calibration, schema_of
from model_zoo.outputs import HANDEDNESS, ClassesOutput
from trainer import card, evaluate, export, reliability
from trainer.calibrated_graph import calibrated
from trainer.data.people import Person
from trainer.errors import DataError
from trainer.evaluate import Net
from trainer.export import Calibrated, OnnxNet
from trainer.reliability import Fit

Numbers = NDArray[np.floating[Any]]


def fits(
    net: Net, manifest: BundleManifest, people: list[Person], *, keypoints: bool = True, heads: bool = True
) -> dict[str, Fit]:
    """What the labels of a set allow, by name of the output; `SCORES` for keypoints.

    Args:
        net: the graph that the manifest describes; it may be calibrated already.
        manifest: of the net.
        people: an annotated set that was not learnt from.
        keypoints: whether their scores are calibrated.
        heads: whether presence and classes are.
    """
    images, matrices = evaluate.crops(people, manifest.input.size, manifest.input.padding)
    maps = {each.of: each for each in manifest.calibration}
    classes = manifest.classes if heads else ()
    presence = manifest.presence if heads else None
    said = evaluate.further(net, images) if presence or classes else {}
    found: dict[str, Fit | None] = {}
    if presence is not None:
        known = np.array([person.presence is not None for person in people])
        there = np.array([person.presence == 1 for person in people])
        found[presence.name] = _events(
            _odds(said[presence.name], maps.get(presence.name))[known], there[known]
        )
    for each in classes:
        found[each.name] = _classes(said[each.name], each, people, maps.get(each.name))
    if keypoints and any(person.visible.any() for person in people):
        found[SCORES] = _events(*_keypoints(net, manifest, people, images, matrices))
    return {name: fit for name, fit in found.items() if fit is not None}


def on(
    people: list[Person], data: str, command: str, *, keypoints: bool, heads: bool
) -> Callable[[onnx.ModelProto, BundleManifest], Calibrated]:
    """A function that calibrates a graph on a set that it was not learnt from, for `export.export`.

    Args:
        people: of the set.
        data: its name.
        command: that was run.
        keypoints: whether scores of keypoints are calibrated.
        heads: whether presence and classes are.
    """

    def calibrate(model: onnx.ModelProto, manifest: BundleManifest) -> Calibrated:
        found = fits(OnnxNet(model.SerializeToString()), manifest, people, keypoints=keypoints, heads=heads)
        maps = {name: fit.affine for name, fit in found.items()}
        return calibrated(model, manifest, maps), _with(manifest, described(found, manifest, data, command))

    return calibrate


def described(
    found: Mapping[str, Fit], manifest: BundleManifest, data: str, command: str
) -> tuple[Calibration, ...]:
    """The manifest's calibration after these fits; what none of them is about stays."""
    kept = [each for each in manifest.calibration if each.of not in found]
    made = [
        Calibration(
            of=name,
            scale=fit.affine.scale,
            shift=fit.affine.shift,
            event=_event(name, manifest),
            data=data,
            count=fit.count,
            bins=fit.bins,
            error_before=round(fit.error_before, 4),
            error=round(fit.error, 4),
            command=command,
        )
        for name, fit in found.items()
    ]
    return tuple(sorted([*kept, *made], key=lambda each: each.of))


def rewritten(
    found: Bundle,
    made: Mapping[str, Fit],
    data: str,
    command: str,
    measured: dict[str, list[Person]],
    root: Path,
    version: str,
    *,
    replace: bool,
) -> Bundle:
    """Write a bundle with these maps in all its graphs, and measure it anew.

    Args:
        found: the bundle that they were fitted for.
        made: by `fits`.
        data: name of the set that they were fitted to.
        command: that was run.
        measured: people by name of the set; what the card says of other sets stays.
        root: folder of bundles to write to.
        version: of the written bundle.
        replace: whether it may exist already.

    Raises:
        BundleExists: the version exists, and `replace` was not asked for.
    """
    maps = {name: fit.affine for name, fit in made.items()}
    manifest = _with(found.manifest, described(made, found.manifest, data, command)).model_copy(
        update={"version": version, "files": {}, "latency": ()}  # these graphs were never timed
    )
    names = {"fp32": manifest.model_file, "int8": manifest.int8_file}
    graphs = {
        precision: calibrated(onnx.load(found.folder / name), manifest, maps)
        for precision, name in names.items()
        if name is not None
    }
    accuracy = [each for each in manifest.accuracy if each.data not in measured]
    for precision, graph in graphs.items():
        accuracy += export.accuracy(OnnxNet(graph.SerializeToString()), manifest, measured, precision)
    manifest = manifest.model_copy(update={"accuracy": tuple(accuracy)})
    kept = {name: (found.folder / name).read_bytes() for name in found.manifest.files}
    written = {names[precision]: export.described(graph, manifest) for precision, graph in graphs.items()}
    return bundle.write(
        root, manifest, kept | written | {"README.md": card.text(manifest).encode()}, replace=replace
    )


def plot(found: Mapping[str, Fit], path: Path) -> None:
    """Draw how often probabilities came true, before and after, and write it as a PNG."""
    figure = Figure(figsize=(4.2 * max(len(found), 1), 4), layout="constrained")
    for number, (name, fit) in enumerate(found.items(), 1):
        axes = figure.add_subplot(1, len(found), number)
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        for label, bins, error in (
            ("as learnt", fit.before, fit.error_before),
            ("calibrated", fit.after, fit.error),
        ):
            said, came = [each.probability for each in bins], [each.frequency for each in bins]
            axes.plot(said, came, marker=".", label=f"{label}, error {error:.3f}")
        axes.set(xlabel="probability", ylabel="came true", title=f"{name} ({fit.count} cases)")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _with(manifest: BundleManifest, calibration: tuple[Calibration, ...]) -> BundleManifest:
    needed = schema_of(manifest.outputs, calibration, manifest.latency, manifest.documents)
    return manifest.model_copy(update={"calibration": calibration, "schema_version": needed})


def _events(
    odds: Numbers, true: NDArray[np.bool_], whose: NDArray[np.integer[Any]] | None = None
) -> Fit | None:
    """None where the set does not allow it."""
    try:
        return reliability.events(odds, true, whose=whose)
    except DataError:
        return None


def _classes(
    said: Numbers, output: ClassesOutput, people: Collection[Person], before: Calibration | None
) -> Fit | None:
    labels = [getattr(each, output.of, None) if each.presence != 0 else None for each in people]
    rows = [row for row, label in enumerate(labels) if label in output.labels]
    truth = np.array([output.labels.index(labels[row]) for row in rows], np.int64)
    if output.of == HANDEDNESS:
        return _events(_odds(said[rows, 0], before), truth == 0)
    logits = np.log(np.maximum(said[rows].astype(np.float64), 1e-30)) / (
        1.0 if before is None else before.scale
    )
    try:
        return reliability.classes(logits, truth)
    except DataError:
        return None


def _keypoints(
    net: Net, manifest: BundleManifest, people: list[Person], images: NDArray[np.uint8], matrices: Numbers
) -> tuple[Numbers, NDArray[np.bool_], NDArray[np.integer[Any]]]:
    """Log-odds of all labelled keypoints as the net learnt them, which of them are right, and whose they are."""
    maps = manifest.heatmaps
    decoder = None if maps is None else manifest.codec.decoder
    points, scores = evaluate.predict(
        net, images, matrices, manifest.codec, decoder, None if maps is None else maps.stride
    )
    labelled = np.stack([person.visible for person in people]) > 0
    before = manifest.score_calibration if maps is None else None  # decoders read what no map has touched
    return _odds(scores, before)[labelled], evaluate.near(people, points)[labelled], labelled.nonzero()[0]


def _odds(probabilities: Numbers, before: Calibration | None) -> Numbers:
    """Log-odds as they were before the map that is there already."""
    odds = score_maps.odds(probabilities)
    return odds if before is None else (odds - before.shift) / before.scale


def _event(name: str, manifest: BundleManifest) -> str:
    if name == SCORES:
        subject = skeletons.skeleton(manifest.skeleton).subject
        return f"the keypoint lies within {evaluate.WITHIN:g} of the long side of the {subject}'s box"
    if manifest.presence is not None and name == manifest.presence.name:
        return f"a {manifest.presence.of} is there"
    output = next(each for each in manifest.classes if each.name == name)
    return (
        f"the hand is the {output.labels[0]} one"
        if output.of == HANDEDNESS
        else "the likeliest class is right"
    )
