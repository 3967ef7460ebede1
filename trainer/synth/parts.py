"""A set on its way: parts of a fixed range of indices, each a stretch of a tar and a line of JSON per index.

Parts depend on nothing but the recipe, so the set that they are joined to has the same bytes however many processes
made them and however often they were interrupted. A line is written after the pictures that it tells of: what a killed
process left half done is cut off by the next one.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

Entry = dict[str, Any]

_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE


@dataclass(frozen=True)
class Place:
    """Where a part lies and which indices it holds."""

    stem: Path
    """Path of its files without their endings."""
    indices: range

    @property
    def tar(self) -> Path:
        """Headers and pictures, without the end that a whole tar has."""
        return self.stem.with_suffix(".tar")

    @property
    def lines(self) -> Path:
        """One line for each finished index."""
        return self.stem.with_suffix(".jsonl")

    def finished(self) -> list[Entry]:
        """The lines whose pictures are there in full."""
        if not self.lines.exists() or not self.tar.exists():
            return []
        size, found = self.tar.stat().st_size, []
        for line in self.lines.read_bytes().splitlines(keepends=True):
            entry = json.loads(line) if line.endswith(b"\n") else None
            if entry is None or entry["end"] > size:
                break
            found.append(entry)
        return found


def places(folder: Path, count: int, chunk: int) -> list[Place]:
    """The parts of a set of `count` indices, `chunk` in each but the last."""
    starts = range(0, count, chunk)
    return [Place(folder / f"{start:08}", range(start, min(start + chunk, count))) for start in starts]


class Part:
    """A part that is being written; one process has it at a time. A context manager."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __enter__(self) -> Self:
        self._lines: BinaryIO = self.place.lines.open("ab")
        fcntl.flock(self._lines, fcntl.LOCK_EX)  # a process whose parent was killed finishes its index first
        finished = self.place.finished()
        self._lines.truncate(sum(len(_line(entry)) for entry in finished))
        self._tar: BinaryIO = self.place.tar.open("ab")
        self._end = finished[-1]["end"] if finished else 0
        self._tar.truncate(self._end)
        self.remaining = self.place.indices[len(finished) :]
        """Indices that are not there yet."""
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self._lines.close()

    def append(self, index: int, frames: list[tuple[str, bytes, Entry, list[Entry]]]) -> None:
        """Write what belongs to the next index: (name, JPEG, picture's entry, people's entries) of each frame."""
        images = []
        for name, data, image, people in frames:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            head = header.tobuf(tarfile.USTAR_FORMAT)
            written = head + data + bytes(-len(data) % _BLOCK)
            where = {"tar_offset": self._end + len(head), "tar_size": len(data)}
            images.append({"file_name": name, **image, **where, "people": people})
            self._tar.write(written)
            self._end += len(written)
        self._tar.flush()
        self._lines.write(_line({"index": index, "end": self._end, "images": images}))
        self._lines.flush()


def join(parts: list[Place], name: str, out: Path, info: Entry, category: Entry) -> Path:
    """Put finished parts together as `<out>/<name>.tar` and `.json`, and remove them; returns the JSON."""
    tar, document = out / f"{name}.tar", out / f"{name}.json"
    starts = _join_tars(parts, tar)
    partial = document.with_suffix(".json.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps([category])},\n"images": [')
        for number, (start, index, image) in enumerate(_images(parts, starts), 1):
            entry = {"id": number, **image, "tar_offset": start + image["tar_offset"], "index": index}
            del entry["people"]
            stream.write((",\n" if number > 1 else "\n") + json.dumps(entry))
        stream.write('],\n"annotations": [')
        people = 0
        for number, (_, _, image) in enumerate(_images(parts, starts), 1):
            for person in image["people"]:
                people += 1
                entry = {"id": people, "image_id": number, **person}
                stream.write((",\n" if people > 1 else "\n") + json.dumps(entry))
        stream.write("]}\n")
    partial.replace(document)
    for place in parts:
        place.lines.unlink()
        place.tar.unlink()
    return document


def _join_tars(parts: list[Place], path: Path) -> list[int]:
    """Write one tar; returns where each part begins in it."""
    starts, partial = [], path.with_suffix(".tar.partial")
    with partial.open("wb") as whole:
        for place in parts:
            starts.append(whole.tell())
            with place.tar.open("rb") as piece:
                shutil.copyfileobj(piece, whole, 1 << 20)
        end = whole.tell() + 2 * _BLOCK
        whole.write(bytes(2 * _BLOCK + -end % _RECORD))
    partial.replace(path)
    return starts


def _images(parts: list[Place], starts: list[int]) -> Iterator[tuple[int, int, Entry]]:
    for place, start in zip(parts, starts, strict=True):
        for entry in place.finished():
            for image in entry["images"]:
                yield start, entry["index"], image


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
