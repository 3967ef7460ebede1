"""Bundles on the move: one file that holds a bundle, and the way of such a file, or of a folder, into a root.

An archive comes from somebody else. Nothing is ever unpacked to a path that it names: its files are read into memory,
within limits, held against the manifest among them, and written as any bundle is, whole or not at all.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from model_zoo import bundle
from model_zoo.bundle import MANIFEST_FILE, Bundle
from model_zoo.errors import BundleCorrupt, BundleExists, BundleNotFound, ModelZooError

MOST_BYTES = 1 << 30
"""An archive that holds more than this, unpacked, is refused."""
MOST_MEMBERS = 256
"""An archive of more files and folders than this is refused."""

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(found: Bundle, target: Path) -> Path:
    """Write a bundle into one file: a zip if the name ends in .zip, else a tar.gz; the same bytes every time.

    Raises:
        BundleExists: there is such a file already.
        ManifestError, BundleCorrupt: the bundle changed since it was read.
    """
    contents = _contents(found)
    if bundle.check(contents, str(found.folder)) != found.manifest:
        raise BundleCorrupt(f"{found.folder}: another bundle has taken its place")
    if target.exists():
        raise BundleExists(f"{target} exists already")
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with fresh.open("xb") as stream:
            (_write_zip if target.suffix == ".zip" else _write_tar)(stream, found, contents)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(target)
    finally:
        fresh.unlink(missing_ok=True)
    return target


def install(
    source: Path, root: Path, *, force: bool = False, most_bytes: int = MOST_BYTES
) -> tuple[Bundle, bool]:
    """Put a bundle under a root; its name and version are those of its manifest.

    Args:
        source: a bundle's folder, or a tar (plain or gzip) or zip file that holds one, in whatever folder inside.
        root: folder of bundles; made where it is missing.
        force: whether another bundle of this name and version may be replaced.
        most_bytes: a bundle with more bytes is refused.

    Returns:
        The installed bundle, and whether it is new: False where the very same was there.

    Raises:
        BundleNotFound: there is no such file or folder.
        ManifestError, BundleCorrupt: it is no bundle, a broken one, or an archive that holds links, names that lead
            out of it, or too much.
        BundleExists: another bundle of this name and version is there.
        OSError: the disk refuses.
    """
    if not source.exists():
        raise BundleNotFound(f"{source}: there is no such file or folder")
    if source.is_dir():
        contents = _contents(bundle.read(source), most_bytes)
    else:
        contents = _beside_the_manifest(_unpacked(source, most_bytes), source)
    manifest = bundle.check(contents, str(source))
    there = root / manifest.name / manifest.version
    if there.exists():
        try:
            if (old := bundle.read(there)).manifest == manifest:
                return old, False
        except ModelZooError:
            pass  # a broken one is another one
        if not force:
            raise BundleExists(f"{there} holds another bundle of this name and version; --force replaces it")
    files = {name: contents[name] for name in manifest.files}
    return bundle.write(root, manifest, files, replace=force), True


def _contents(found: Bundle, most_bytes: int = MOST_BYTES) -> dict[str, bytes]:
    """The files of a bundle on disk, and no others that may lie in its folder."""
    if sum(each.bytes for each in found.manifest.files.values()) > most_bytes:
        raise BundleCorrupt(f"{found.folder}: holds more than {most_bytes} bytes")
    paths = [found.folder / name for name in (MANIFEST_FILE, *found.manifest.files)]
    for path in paths:
        if path.is_symlink():
            raise BundleCorrupt(f"{path}: is a link; a bundle holds plain files")
    return {path.name: path.read_bytes() for path in paths}


def _write_tar(stream: IO[bytes], found: Bundle, contents: dict[str, bytes]) -> None:
    with (
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w") as tar,
    ):
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{found.name}/{found.version}/{name}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))


def _write_zip(stream: IO[bytes], found: Bundle, contents: dict[str, bytes]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            member = zipfile.ZipInfo(f"{found.name}/{found.version}/{name}", _ZIP_EPOCH)
            member.external_attr = 0o644 << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)


def _beside_the_manifest(contents: dict[PurePosixPath, bytes], source: Path) -> dict[str, bytes]:
    manifests = [path for path in contents if path.name == MANIFEST_FILE]
    if len(manifests) != 1:
        raise BundleCorrupt(f"{source}: holds {len(manifests)} files {MANIFEST_FILE} instead of one")
    folder = manifests[0].parent
    return {path.name: content for path, content in contents.items() if path.parent == folder}


def _unpacked(source: Path, most_bytes: int) -> dict[PurePosixPath, bytes]:
    """Every file of an archive, by its path inside."""
    contents: dict[PurePosixPath, bytes] = {}
    left = most_bytes
    try:
        with source.open("rb") as stream:
            read = _zip_members if zipfile.is_zipfile(stream) else _tar_members
            stream.seek(0)
            for count, (name, content) in enumerate(read(stream, most_bytes)):
                if count >= MOST_MEMBERS:
                    raise BundleCorrupt(f"{source}: holds more than {MOST_MEMBERS} files and folders")
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
                    raise BundleCorrupt(f"{source}: the name {name[:200]!r} leads out of it")
                if content is None:
                    continue
                left -= len(content)
                if left < 0:
                    raise _TooMuch
                if path in contents:
                    raise BundleCorrupt(f"{source}: holds {name[:200]!r} twice")
                contents[path] = content
    except _TooMuch:
        raise BundleCorrupt(f"{source}: holds more than {most_bytes} bytes") from None
    except _NotPlain as error:
        raise BundleCorrupt(
            f"{source}: {str(error)[:200]!r} is a link or a device; a bundle holds plain files"
        ) from None
    except (BundleCorrupt, MemoryError):
        raise
    except Exception as error:  # the readers raise whatever a broken file makes them stumble over
        raise BundleCorrupt(f"{source}: no tar or zip file, or a broken one: {error}") from error
    return contents


class _TooMuch(Exception):
    pass


class _NotPlain(Exception):
    pass


class _AtMost:
    """A stream that ends in _TooMuch: what a few bytes unpack to may fill any memory."""

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        self._stream, self._left = stream, most_bytes

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise _TooMuch
        return data


def _tar_members(stream: IO[bytes], most_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    """Name and content of each member of a tar, plain or gzip; None for a folder."""
    squeezed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    plain = gzip.GzipFile(fileobj=stream, mode="rb") if squeezed else stream
    room = MOST_MEMBERS * 4 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE  # headers and padding
    with tarfile.open(fileobj=_AtMost(plain, most_bytes + room), mode="r|") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _NotPlain(member.name)
            if member.size > most_bytes:
                raise _TooMuch
            content = tar.extractfile(member).read() if member.isreg() else None
            if content is not None and len(content) != member.size:
                raise tarfile.ReadError("it ends too early")
            yield member.name, content


def _zip_members(stream: IO[bytes], most_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    """Name and content of each member of a zip; None for a folder."""
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _NotPlain(member.filename)
            if member.is_dir():
                yield member.filename, None
                continue
            with archive.open(member) as inside:
                content = inside.read(most_bytes + 1)  # whatever its header says
            yield member.filename, content
