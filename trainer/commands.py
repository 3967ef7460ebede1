"""What `evaluate` and `export` of the command line do, as functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model_zoo import bundle, codecs, skeletons
from model_zoo.bundle import Bundle
from model_zoo.manifest import BundleManifest
from model_zoo.skeletons import Skeleton
from trainer import evaluate as measuring
from trainer import export as exporting
from trainer.checkpoint import RunFolder
from trainer.data import people
from trainer.data.loader import read
from trainer.data.people import Person
from trainer.errors import ConfigError, DataError
from trainer.evaluate import Net
from trainer.metrics import Score

CROPS_COMPARED = 16
"""Real crops that the forms of a net are compared on at export."""


def evaluate(
    model: str, root: Path, sets: list[Path], *, images: Path | None, roots: list[Path], decoder: str | None
) -> Iterator[tuple[str, Score, str]]:
    """Measure a model on several sets.

    Args:
        model: bundle name with or without @version, bundle folder, or run folder.
        root: data root.
        sets: annotation files, relative to the root.
        images: folder or indexed tar of their pictures, relative to the root; None as `people.read` says.
        roots: folders of bundles, searched before the built-in ones.
        decoder: name, or None for the model's own.

    Yields:
        (set, score, decoder) for every figure that the set's labels allow.
    """
    net, manifest = _model(model, roots)
    used = decoder or manifest.codec.decoder
    codecs.decoder(used)
    for name, found in _read(sets, images, root, skeletons.skeleton(manifest.skeleton)):
        for score in measuring.scores(net, found, manifest, used):
            yield name, score, used


def export(
    run: Path, out: Path, version: str, root: Path, sets: list[Path], *, images: Path | None, replace: bool
) -> Bundle:
    """Export a run and measure the result on `sets`, or on the run's own validation sets where there are none."""
    folder = RunFolder(run)
    config = folder.config()
    skeleton = skeletons.skeleton(config.skeleton)
    if sets:
        measured = dict(_read(sets, images, root, skeleton))
    else:
        measured = {_name(each.annotations): read(each, root, skeleton) for each in config.data.validate_on}
    sample = next(iter(measured.values()), None) or read(config.data.train[0], root, skeleton)
    crops, _ = measuring.crops(sample[:CROPS_COMPARED], config.phases[-1].size, config.padding)
    return exporting.export(folder, out, version, crops, measured, replace=replace)


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


def _model(model: str, roots: list[Path]) -> tuple[Net, BundleManifest]:
    path = Path(model)
    if (path / "config.yaml").is_file():
        return exporting.run_as_net(RunFolder(path))
    if path.is_dir():
        found = bundle.read(path)
    elif "/" in model:
        raise ConfigError(f"{model} is neither a bundle folder nor a run folder")
    else:
        name, _, version = model.partition("@")
        found = bundle.find(name, version or None, (*roots, bundle.BUILTIN))
    return exporting.OnnxNet(found.model_path), found.manifest
