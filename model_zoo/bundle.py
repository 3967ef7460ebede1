"""Bundles: folders `<root>/<name>/<version>/` with a manifest, the model and whatever else belongs to it.

A bundle appears whole or not at all, and is checked against its manifest every time that it is read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from model_zoo.errors import BundleCorrupt, BundleExists, BundleNotFound, ManifestError
from model_zoo.manifest import ONNX_METADATA_KEY, BundleManifest, Hashes

BUILTIN = Path(__file__).parent / "bundles"
"""The bundles that come with this package."""

MANIFEST_FILE = "manifest.json"
MOST_MANIFEST_BYTES = 1 << 20
"""A longer manifest is refused before it is parsed."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files agree with its manifest."""

    manifest: BundleManifest
    folder: Path

    @property
    def model_path(self) -> Path:
        """Path of the graph."""
        return self.folder / self.manifest.model_file

    @property
    def int8_path(self) -> Path | None:
        """Path of the graph in 8 bits; None without one."""
        return self.manifest.int8_file and self.folder / self.manifest.int8_file

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Version of the model."""
        return self.manifest.version


def read(folder: Path) -> Bundle:
    """Parse a bundle's manifest and check size and sha256 of every file that it lists.

    Raises:
        ManifestError: no manifest, one that is malformed (the text names the field), or one that does not
            list its own model file.
        BundleCorrupt: a listed file is missing, unreadable or other than listed; the text names it.
    """
    folder = Path(folder)
    source = folder / MANIFEST_FILE
    try:
        if not source.is_file():
            raise ManifestError(f"{folder}: there is no {MANIFEST_FILE}")
        with source.open("rb") as stream:
            text = stream.read(MOST_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{source}: cannot be read: {error.strerror}") from error
    if len(text) > MOST_MANIFEST_BYTES:
        raise ManifestError(f"{source}: longer than {MOST_MANIFEST_BYTES} bytes")
    manifest = _parse(text, str(source))
    _check_listing(manifest, manifest.files)
    for name, expected in manifest.files.items():
        _check_file(folder / name, expected)
    return Bundle(manifest, folder)


def check(contents: Mapping[str, bytes], source: str) -> BundleManifest:
    """Hold a bundle that is in memory against its manifest, as `read` does with one on disk.

    Args:
        contents: by plain file name, the manifest among them; what the manifest does not list is not looked at.
        source: where it comes from, for the texts of errors.

    Raises:
        ManifestError, BundleCorrupt: as `read`.
    """
    if MANIFEST_FILE not in contents:
        raise ManifestError(f"{source}: there is no {MANIFEST_FILE}")
    if len(contents[MANIFEST_FILE]) > MOST_MANIFEST_BYTES:
        raise ManifestError(f"{source}: {MANIFEST_FILE} is longer than {MOST_MANIFEST_BYTES} bytes")
    manifest = _parse(contents[MANIFEST_FILE], f"{source}: {MANIFEST_FILE}")
    _check_listing(manifest, manifest.files)
    for name, expected in manifest.files.items():
        if name not in contents:
            raise BundleCorrupt(f"{source}: the file {name} is missing")
        if len(contents[name]) != expected.bytes:
            raise BundleCorrupt(f"{source}: {name}: {len(contents[name])} bytes instead of {expected.bytes}")
        if (digest := hashlib.sha256(contents[name]).hexdigest()) != expected.sha256:
            raise BundleCorrupt(f"{source}: {name}: sha256 {digest} instead of {expected.sha256}")
    return manifest


def write(
    root: Path, manifest: BundleManifest, files: Mapping[str, bytes], *, replace: bool = False
) -> Bundle:
    """Write `<root>/<name>/<version>/`, all of it or nothing.

    The files are written to a hidden folder beside the target, brought to the disk and renamed into place.
    Writers of the same name wait for each other. Where `replace` puts a bundle in another's place, there is a
    moment between two renames in which neither can be found, but none in which the two are mixed.

    Args:
        root: folder of bundles; made where it is missing.
        manifest: its `files` are filled in here.
        files: content by plain file name; the manifest's `model_file` among them.
        replace: whether a bundle of this name and version may be there already.

    Raises:
        ManifestError: a file name that is not plain, an empty file, or no model file.
        BundleExists: the bundle is there already and `replace` was not asked for.
        OSError: the disk refuses.
    """
    listed = {name: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for name, c in files.items()}
    try:
        manifest = BundleManifest.model_validate(manifest.model_dump(mode="json") | {"files": listed})
    except ValidationError as error:
        raise ManifestError(_first_fault(error, "bundle to write")) from error
    _check_listing(manifest, files)

    target = Path(root) / manifest.name / manifest.version
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = _hidden_sibling(target)
    try:
        fresh.mkdir()
        with _locked(fresh):
            for name, content in files.items():
                _write_through(fresh / name, content)
            _write_through(fresh / MANIFEST_FILE, (manifest.model_dump_json(indent=2) + "\n").encode())
        with _locked(target.parent):
            _move_into_place(fresh, target, replace=replace)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Bundle(manifest, target)


def discover(root: Path) -> list[Path]:
    """Folders of all bundles under `root`, by name, then by version: 2 before 10. Reads no manifest.

    Hidden folders, which is what an interrupted `write` leaves, and folders without a manifest do not count.
    """
    folders = (path.parent for path in Path(root).glob(f"*/*/{MANIFEST_FILE}"))
    visible = (each for each in folders if not each.name.startswith(".") and each.parent.name[0] != ".")
    return sorted(visible, key=lambda each: (each.parent.name, natural(each.name), each.name))


def find(name: str, version: str | None = None, roots: Iterable[Path] = (BUILTIN,)) -> Bundle:
    """Read the bundle of this name: the given version, or the newest by natural order.

    Where several roots hold the same version, the first root wins.

    Raises:
        BundleNotFound: no such bundle; the text lists those that exist.
        ManifestError, BundleCorrupt: as `read`; also a manifest whose name or version is not its folder's.
    """
    folders = [folder for root in roots for folder in discover(root)]
    matching = [f for f in folders if f.parent.name == name and version in (None, f.name)]
    if not matching:
        known = ", ".join(dict.fromkeys(f"{f.parent.name}@{f.name}" for f in folders)) or "none"
        wanted = name if version is None else f"{name}@{version}"
        raise BundleNotFound(f"no bundle {wanted!r}; known: {known}")
    found = read(max(matching, key=lambda folder: (natural(folder.name), folder.name)))
    if (found.name, found.version) != (found.folder.parent.name, found.folder.name):
        raise ManifestError(f"{found.folder}: the manifest calls itself {found.name}@{found.version}")
    return found


def metadata_of(manifest: BundleManifest) -> dict[str, str]:
    """What to write into an ONNX file's metadata so that it describes itself; hashes of files stay out."""
    return {ONNX_METADATA_KEY: manifest.model_copy(update={"files": {}}).model_dump_json()}


def manifest_from_metadata(metadata: Mapping[str, str]) -> BundleManifest:
    """The manifest inside an ONNX file's metadata; the inverse of `metadata_of`.

    Raises:
        ManifestError: no manifest there, or one that is malformed.
    """
    if ONNX_METADATA_KEY not in metadata:
        raise ManifestError(f"the ONNX file has no metadata {ONNX_METADATA_KEY!r}: it is no RepPose model")
    return _parse(metadata[ONNX_METADATA_KEY], "ONNX metadata")


def _parse(text: str | bytes, source: str) -> BundleManifest:
    try:
        return BundleManifest.model_validate_json(text)
    except ValidationError as error:
        raise ManifestError(_first_fault(error, source)) from error


def _first_fault(error: ValidationError, source: str) -> str:
    """One line: where, which field, what; and how many more there are."""
    first, *others = error.errors(include_url=False, include_context=False)
    field = ".".join(map(str, first["loc"])) or "document"
    more = f" (and {len(others)} more)" if others else ""
    return f"{source}: {field}: {first['msg']}{more}"


def _check_listing(manifest: BundleManifest, names: Iterable[str]) -> None:
    if manifest.model_file not in names:
        raise ManifestError(f"files: the model file {manifest.model_file!r} is not among them")
    if manifest.int8_file is not None and manifest.int8_file not in names:
        raise ManifestError(f"files: the int8 file {manifest.int8_file!r} is not among them")
    if MANIFEST_FILE in names:
        raise ManifestError(f"files: {MANIFEST_FILE} cannot list itself")


def _check_file(path: Path, expected: Hashes) -> None:
    try:
        if not path.is_file():
            raise BundleCorrupt(f"{path}: the file is missing")
        size = path.stat().st_size
        if size != expected.bytes:
            raise BundleCorrupt(f"{path}: {size} bytes instead of {expected.bytes}")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleCorrupt(f"{path}: cannot be read: {error.strerror}") from error
    if digest != expected.sha256:
        raise BundleCorrupt(f"{path}: sha256 {digest} instead of {expected.sha256}")


def natural(version: str) -> tuple[str | int, ...]:
    """A sort key that takes runs of digits as numbers: 1.9 before 1.10."""
    return tuple(
        int(part) if part.isascii() and part.isdecimal() else part for part in re.split(r"([0-9]+)", version)
    )


def _hidden_sibling(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}")


def _write_through(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of a folder, and bring its entries to the disk afterwards."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_into_place(fresh: Path, target: Path, *, replace: bool) -> None:
    if not target.exists():
        fresh.rename(target)
        return
    if not replace:
        raise BundleExists(f"{target} exists already; give the model a new version, or replace it on purpose")
    aside = _hidden_sibling(target)
    target.rename(aside)
    try:
        fresh.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)
