"""Measure the graphs of a bundle that there is already, and write its manifest and card anew; the nets stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.manifest import schema_of
from trainer import card, export, latency
from trainer.data.people import Person
from trainer.errors import DataError
from trainer.export import OnnxNet

PICTURES = (".png", ".svg")
"""Endings of pictures that go with a page."""


def written(
    found: Bundle,
    measured: dict[str, list[Person]],
    documents: Mapping[str, bytes],
    root: Path,
    version: str,
    *,
    reference: Bundle | None,
    command: str,
    replace: bool,
) -> Bundle:
    """Write a bundle with the same nets and what was measured of them.

    Args:
        found: the bundle.
        measured: people by name of the set; figures of other sets stay.
        documents: content by file name of pages for people and their pictures; those that it has stay beside them.
        root: folder of bundles to write to.
        version: of the written bundle.
        reference: whose float32 graph the latency is relative to; None leaves what is said of latency.
        command: that was run, for what is said of latency.
        replace: whether it may exist already.

    Raises:
        BundleExists: the version exists, and `replace` was not asked for.
    """
    before = found.manifest.model_copy(update={"version": version, "files": {}})
    paths = {"fp32": found.model_path, "int8": found.int8_path}
    accuracy = [each for each in before.accuracy if each.data not in measured]
    for precision, path in paths.items():
        if path is not None:
            accuracy += export.accuracy(OnnxNet(path), before, measured, precision)
    timed = before.latency if reference is None else latency.measure(found, reference, command)
    pages = tuple(dict.fromkeys([*before.documents, *documents]))
    manifest = before.model_copy(
        update={
            "accuracy": tuple(accuracy),
            "latency": timed,
            "documents": pages,
            "schema_version": schema_of(before.outputs, before.calibration, timed, pages),
        }
    )
    files = {name: (found.folder / name).read_bytes() for name in found.manifest.files} | dict(documents)
    for path in paths.values():
        if path is not None:
            files[path.name] = export.described(onnx.load(path), manifest)
    files["README.md"] = card.text(manifest).encode()
    return bundle.write(root, manifest, files, replace=replace)


def pages_of(documents: Sequence[Path]) -> dict[str, bytes]:
    """Content by file name of Markdown pages, and of the pictures beside them whose names begin as the page's.

    Raises:
        DataError: one cannot be read, or is no Markdown.
    """
    found: dict[str, bytes] = {}
    for page in documents:
        if page.suffix != ".md" or page.name == "README.md":
            raise DataError(
                f"{page} is no Markdown page for a bundle: its name must end in .md, and not be README.md"
            )
        try:
            beside = [each for each in page.parent.glob(f"{page.stem}*") if each.suffix in PICTURES]
            found |= {each.name: each.read_bytes() for each in (page, *sorted(beside))}
        except OSError as error:
            raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    return found
