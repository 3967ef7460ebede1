"""What `evaluate` and `export` of the command line and `reppose-zoo quantize` do, as functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from model_zoo import bundle, codecs, geometry, skeletons
from model_zoo.bundle import Bundle
from model_zoo.manifest import BundleManifest, Precision, Quantisation
from model_zoo.skeletons import Skeleton
from trainer import calibrate as calibrating
from trainer import evaluate as measuring
from trainer import export as exporting
from trainer import quantise as quantising
from trainer import remeasure
from trainer.checkpoint import RunFolder
from trainer.data import people
from trainer.data.loader import read
from trainer.data.people import Person, Picture
from trainer.errors import ConfigError, DataError
from trainer.evaluate import Net
from trainer.metrics import Score
from trainer.quantise import Crops, Method

CROPS_COMPARED = 16
"""Real crops that the forms of a net are compared on at export."""
CROPS_CALIBRATED = 256
"""Crops that are looked at for a graph in 8 bits."""
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Endings of what counts as a picture in a folder."""


def evaluate(
    model: str,
    root: Path,
    sets: list[Path],
    *,
    images: Path | None,
    roots: list[Path],
    decoder: str | None,
    precision: Precision = "fp32",
) -> Iterator[tuple[str, Score, str]]:
    """Measure a model on several sets.

    Args:
        model: bundle name with or without @version, bundle folder, or run folder.
        root: data root.
        sets: annotation files, relative to the root.
        images: folder or indexed tar of their pictures, relative to the root; None as `people.read` says.
        roots: folders of bundles, searched before the built-in ones.
        decoder: name, or None for the model's own.
        precision: which of a bundle's graphs.

    Yields:
        (set, score, decoder) for every figure that the set's labels allow.
    """
    net, manifest = _model(model, roots, precision)
    used = _decoder(decoder, manifest)
    for name, found in _read(sets, images, root, skeletons.skeleton(manifest.skeleton)):
        for score in measuring.scores(net, found, manifest, used):
            yield name, score, used or "none"


def _decoder(asked: str | None, manifest: BundleManifest) -> str | None:
    """The one asked for, or the model's own; None for a model that answers keypoints itself."""
    if manifest.heatmaps is None:
        if asked is not None:
            raise ConfigError(f"{manifest.name} answers keypoints itself: no decoder can be chosen")
        return None
    used = asked or manifest.codec.decoder
    codecs.decoder(used)
    return used


What = Literal["all", "heads", "scores", "nothing"]
"""What is calibrated: `heads` are presence and classes, `scores` those of keypoints."""


def _parts(what: What) -> dict[str, bool]:
    return {"keypoints": what in ("all", "scores"), "heads": what in ("all", "heads")}


def export(
    run: Path,
    out: Path,
    version: str,
    root: Path,
    sets: list[Path],
    *,
    images: Path | None,
    replace: bool,
    calibrated: What = "all",
) -> Bundle:
    """Export a run and measure the result on `sets`, or on the run's own validation sets where there are none.

    What is `calibrated` is so on the validation sets, where these have the labels for it.
    """
    folder = RunFolder(run)
    config = folder.config()
    skeleton = skeletons.skeleton(config.skeleton)
    validation = {
        name: found
        for source in config.data.validate_on
        for name, found in _read([source.annotations], source.images, root, skeleton)
    }
    measured = dict(_read(sets, images, root, skeleton)) if sets else validation
    sample = next(iter(measured.values()), None) or read(config.data.train[0], root, skeleton)
    crops, _ = measuring.crops(sample[:CROPS_COMPARED], config.phases[-1].size, config.padding)
    fitted = None
    if calibrated != "nothing" and validation:
        what = "" if calibrated == "all" else f" --calibrate {calibrated}"
        fitted = calibrating.on(
            [each for found in validation.values() for each in found],
            ", ".join(validation),
            f"reppose-train export {run.as_posix()} --data DATA{what}",
            **_parts(calibrated),
        )
    return exporting.export(folder, out, version, crops, measured, replace=replace, calibrate=fitted)


def calibrate(
    model: str,
    root: Path,
    sets: list[Path],
    *,
    out: Path,
    images: Path | None = None,
    roots: Sequence[Path] = (),
    version: str | None = None,
    calibrated: What = "all",
    measured: Sequence[Path] = (),
    plot: Path | None = None,
    replace: bool = False,
) -> Bundle:
    """Calibrate a bundle that there is already, in all its graphs.

    Args:
        model: bundle name with or without @version, or bundle folder.
        root: data root; the other paths of data start there.
        sets: COCO-keypoints JSON of people that the net did not learn from.
        out: folder of bundles to write to.
        images: folder or indexed tar of the pictures of all JSON; None as `people.read` says.
        roots: folders of bundles, searched before the built-in ones.
        version: of the written bundle; None is the old one with `-calibrated`, or, to `replace`, the old one.
        calibrated: what is.
        measured: sets to measure anew for the card.
        plot: PNG to draw how often probabilities came true in; None for none.
        replace: whether the version may exist already.

    Raises:
        DataError: the sets have no labels of anything that could be calibrated.
    """
    found = _bundle(model, list(roots))
    skeleton = skeletons.skeleton(found.manifest.skeleton)
    read_sets = dict(_read(sets, images, root, skeleton))
    people_of_all = [each for people_of_one in read_sets.values() for each in people_of_one]
    net = exporting.OnnxNet(found.model_path)
    fits = calibrating.fits(net, found.manifest, people_of_all, **_parts(calibrated))
    if not fits:
        raise DataError("the sets have too few labels of anything that could be calibrated")
    if plot is not None:
        calibrating.plot(fits, plot)
    words = [f"reppose-train calibrate {found.name}@{found.version} --data DATA"]
    words += [f"--on {each.as_posix()}" for each in sets]
    words += [*([] if calibrated == "all" else [f"--only {calibrated}"]), "--out OUT"]
    return calibrating.rewritten(
        found,
        fits,
        ", ".join(read_sets),
        " ".join(words),
        dict(_read(list(measured), images, root, skeleton)),
        out,
        version or (found.version if replace else f"{found.version}-calibrated"),
        replace=replace,
    )


def card(
    model: str,
    root: Path,
    sets: Sequence[Path],
    *,
    out: Path,
    images: Path | None = None,
    roots: Sequence[Path] = (),
    version: str | None = None,
    reference: str | None = None,
    documents: Sequence[Path] = (),
    replace: bool = False,
) -> Bundle:
    """Measure a bundle that there is already, in all its graphs, and write its card anew.

    Args:
        model: bundle name with or without @version, or bundle folder.
        root: data root; the other paths of data start there.
        sets: COCO-keypoints JSON to measure on; figures of other sets stay.
        out: folder of bundles to write to.
        images: folder or indexed tar of the pictures of all JSON; None as `people.read` says.
        roots: folders of bundles, searched before the built-in ones.
        version: of the written bundle; None is the old one.
        reference: bundle whose float32 graph the latency is relative to; None leaves latency as it was.
        documents: Markdown pages to put into the bundle, with their pictures.
        replace: whether the version may exist already.
    """
    found = _bundle(model, list(roots))
    words = [f"reppose-train card {found.name}@{version or found.version}"]
    words += [f"--reference {reference}", "--out OUT"]
    return remeasure.written(
        found,
        dict(_read(list(sets), images, root, skeletons.skeleton(found.manifest.skeleton))),
        remeasure.pages_of(documents),
        out,
        version or found.version,
        reference=None if reference is None else _bundle(reference, list(roots)),
        command=" ".join(words),
        replace=replace,
    )


def quantise(
    model: str,
    root: Path,
    calibrate: Path,
    sets: list[Path],
    *,
    out: Path,
    images: Path | None = None,
    roots: Sequence[Path] = (),
    version: str | None = None,
    count: int = CROPS_CALIBRATED,
    method: Method | None = None,
    replace: bool = False,
    force: bool = False,
) -> Bundle:
    """Write a bundle with a graph in 8 bits beside the one in float32, and measure both.

    Args:
        model: bundle name with or without @version, or bundle folder.
        root: data root; the other paths of data start there.
        calibrate: what the ranges of the activations are found on: COCO-keypoints JSON, whose labels do not matter,
            or a folder of pictures.
        sets: COCO-keypoints JSON of sets to measure on; where there are none, a JSON that was calibrated on.
        out: folder of bundles to write to.
        images: folder or indexed tar of the pictures of all JSON; None as `people.read` says.
        roots: folders of bundles, searched before the built-in ones.
        version: of the written bundle; None is the old one with `-int8`, or, to `replace`, the old one.
        count: of crops to look at.
        method: of finding the ranges; None tries several.
        replace: whether the version may exist already.
        force: whether to write it however much 8 bits lose.
    """
    found = _bundle(model, list(roots))
    images = images and root / images
    crops = _calibration_crops(root / calibrate, images, found.manifest, count)
    recipes = quantising.AUTOMATIC if method is None else quantising.recipes(method)
    graph, recipe, shift_px = quantising.best(onnx.load(found.model_path), found.manifest, crops, recipes)
    sets = sets or ([] if (root / calibrate).is_dir() else [calibrate])
    words = [f"reppose-zoo quantize {found.name}@{found.version} --data DATA"]
    words += [f"--calibrate {calibrate.as_posix()}", *(f"--on {each.as_posix()}" for each in sets)]
    words += [*([] if method is None else [f"--method {method}"]), f"--crops {count}", "--out OUT"]
    facts = Quantisation(
        method=str(recipe),
        data=_name(calibrate),
        crops=len(crops),
        command=" ".join(words),
        mean_shift_px=round(shift_px, 3),
        versions={name: metadata.version(name) for name in ("onnxruntime", "onnx", "numpy")},
    )
    skeleton = skeletons.skeleton(found.manifest.skeleton)
    return quantising.add_to(
        found,
        graph,
        facts,
        dict(_read(sets, images, root, skeleton)),
        out,
        version or (found.version if replace else f"{found.version}-int8"),
        replace=replace,
        force=force,
    )


def _read(
    sets: list[Path], images: Path | None, root: Path, skeleton: Skeleton
) -> Iterator[tuple[str, list[Person]]]:
    for chosen in sets:
        found = people.read(root / chosen, skeleton, images=images and root / images)
        if not found:
            raise DataError(f"{root / chosen} has nobody with a labelled keypoint")
        yield _name(chosen), found


def _name(annotations: Path) -> str:
    return annotations.with_suffix("").as_posix()


def _model(model: str, roots: list[Path], precision: Precision) -> tuple[Net, BundleManifest]:
    path = Path(model)
    if (path / "config.yaml").is_file():
        if precision != "fp32":
            raise ConfigError(f"{model} is a run: only a bundle can have a graph in 8 bits")
        return exporting.run_as_net(RunFolder(path))
    found = _bundle(model, roots)
    graph = found.model_path if precision == "fp32" else found.int8_path
    if graph is None:
        raise ConfigError(
            f"{found.name}@{found.version} has no graph in 8 bits; `reppose-zoo quantize` makes one"
        )
    return exporting.OnnxNet(graph), found.manifest


def _bundle(model: str, roots: list[Path]) -> Bundle:
    path = Path(model)
    if path.is_dir():
        return bundle.read(path)
    if "/" in model:
        raise ConfigError(f"{model} is neither a bundle folder nor a run folder")
    name, _, version = model.partition("@")
    return bundle.find(name, version or None, (*roots, bundle.BUILTIN))


def _calibration_crops(source: Path, images: Path | None, manifest: BundleManifest, count: int) -> Crops:
    """At most `count` crops, evenly spread: of annotated people, or whole pictures of a folder.

    Args:
        source: COCO-keypoints JSON, or folder.
        images: folder or indexed tar of the pictures of the JSON; None as `people.read` says.
        manifest: whose crops are wanted.
        count: of crops.
    """
    size = manifest.input.size
    if not source.is_dir():
        found = people.read(source, skeletons.skeleton(manifest.skeleton), images=images)
        return measuring.crops(_spread(found, count), size, manifest.input.padding)[0]
    pictures = sorted(each for each in source.rglob("*") if each.suffix.lower() in PICTURES)
    if not pictures:
        raise DataError(f"{source} holds no pictures ({', '.join(PICTURES)})")
    crops = []
    for each in _spread(pictures, count):
        image = Picture(each).load()
        box = geometry.whole_image_box(image.shape[:2])
        crops.append(geometry.crop(image, geometry.crop_affine(box, size), size))
    return np.stack(crops)


def _spread(found: list[Any], count: int) -> list[Any]:
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).astype(int))]
