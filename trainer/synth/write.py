"""Make a set with several processes: an indexed tar, its JSON and a contact sheet; an interrupted one goes on.

Every process takes the next part that nobody has and makes it index by index. What a maker makes follows from the
recipe and the index alone, so the files are the same to the last byte however many processes there are.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from model_zoo.skeletons import Skeleton
from trainer.errors import DataError, Interrupted
from trainer.progress import track
from trainer.synth import coco, contact_sheet, parts, sensor
from trainer.synth.recipe import Recipe
from trainer.synth.sample import Sample

Maker = Callable[[int], Iterable[Sample]]
"""Index to its picture, or to the frames of its clip."""

_POLL_S = 0.2
_ONE_THREAD = {
    "LP_NUM_THREADS": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
"""Environment of a process that has one core: for Mesa, numpy, all that uses OpenMP, and OpenCV."""


@dataclass(frozen=True)
class Kind:
    """What sets of one kind have in common."""

    name: str
    """Of the files, and of the folder in the tar."""
    category: str
    """What the annotated things are called."""
    keypoints: tuple[str, ...]
    skeleton: Skeleton
    """Bones to draw and to describe; matched by name."""
    maker: Callable[[Recipe], Maker]
    """A function of a module: processes call it once each."""
    chunk: int = 32
    """Indices of a part."""
    size: int = 256
    """Longer side of a picture in pixels, unless another is asked for."""


def write(out: Path, recipe: Recipe, kind: Kind, *, jobs: int = 1) -> Path:
    """Make a set, or go on with it.

    Args:
        out: folder; `<name>.json`, `<name>.tar` and `<name>.jpg` (the contact sheet) are written.
        recipe: what to make.
        kind: how.
        jobs: processes.

    Returns:
        The JSON.

    Raises:
        DataError: `out` holds another set or is being written to by another command, or a picture could not be made.
        Interrupted: SIGINT or SIGTERM; the same command goes on.
    """
    document, folder = out / f"{kind.name}.json", out / f"{kind.name}.parts"
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        recipe.save(out / f"{kind.name}.recipe.json")
        pieces = parts.places(folder, recipe.n, kind.chunk)
        if not document.exists():
            folder.mkdir(exist_ok=True)
            _make(recipe, kind, pieces, jobs)
            parts.join(
                pieces,
                kind.name,
                out,
                recipe.facts,
                coco.category(kind.category, kind.keypoints, kind.skeleton),
            )
        for place in pieces:
            place.lines.unlink(missing_ok=True)
            place.tar.unlink(missing_ok=True)
        if folder.exists():
            folder.rmdir()
        contact_sheet.draw(document, document.with_suffix(".jpg"), kind.skeleton)
    return document


def frames(recipe: Recipe, kind: Kind, maker: Maker, index: int) -> list[tuple[str, bytes, Any, Any]]:
    """All that is written of one index: (name, JPEG, picture's entry, people's entries) of each frame."""
    found = []
    for number, sample in enumerate(maker(index)):
        name = f"{kind.name}/{index:07}"
        entry = coco.picture(sample)
        if sample.timestamp_s is not None:
            name += f"/{number:05}"
            entry |= {"video_id": index + 1, "frame_index": number}
        found.append((f"{name}.jpg", sensor.encode(sample.image, sample.meta), entry, coco.people(sample)))
    return found


def _make(recipe: Recipe, kind: Kind, pieces: list[parts.Place], jobs: int) -> None:
    remaining = [place for place in pieces if len(place.finished()) < len(place.indices)]
    before = recipe.n - sum(len(place.indices) - len(place.finished()) for place in remaining)
    context = multiprocessing.get_context("spawn")
    shared = _Shared(context.Value("q", 0), context.Value("q", 0), context.Event())
    stop, workers = shared.stop, []
    with _signals(stop):
        for _ in range(min(jobs, len(remaining))):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(recipe, kind, remaining, shared, theirs), daemon=True
            )
            with one_core_each():
                process.start()
            theirs.close()
            workers.append((process, ours))
        try:
            for _ in track(
                _ticks(workers, shared, before), f"Making {kind.name}", total=recipe.n, completed=before
            ):
                pass
            errors = [error for process, ours in workers if (error := _outcome(process, ours))]
        finally:
            stop.set()
            for process, _ in workers:
                process.join()
    if errors:
        raise DataError(errors[0])
    done = sum(len(place.finished()) for place in pieces)
    if done < recipe.n:
        raise Interrupted(f"interrupted with {done} of {recipe.n} made; the same command goes on from there")


@dataclass(frozen=True)
class _Shared:
    """Between the processes."""

    next: Any
    """Number of the part that nobody has yet."""
    done: Any
    """Indices made."""
    stop: Any


def _ticks(workers: list[Any], shared: _Shared, before: int) -> Iterator[int]:
    """One item for each index as it is made, until all processes have ended or one has failed."""
    shown = 0
    while True:
        running = [process for process, _ in workers if process.exitcode is None]
        while shown < shared.done.value:
            shown += 1
            yield before + shown
        if not running or any(process.exitcode for process, _ in workers):
            return
        running[0].join(_POLL_S)


def _outcome(process: Any, ours: Connection) -> str | None:
    """What went wrong in a process; None where nothing did."""
    try:
        if ours.poll():
            return str(ours.recv())
    except EOFError:
        pass
    if process.exitcode:
        return f"a process that makes pictures ended with status {process.exitcode}; the same command goes on"
    return None


def _work(
    recipe: Recipe, kind: Kind, pieces: list[parts.Place], shared: _Shared, outcome: Connection
) -> None:
    """One process: parts until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    parent = os.getppid()
    index = None
    try:
        maker = kind.maker(recipe)
        while not shared.stop.is_set():
            with shared.next.get_lock():
                number = shared.next.value
                shared.next.value += 1
            if number >= len(pieces):
                return
            with parts.Part(pieces[number]) as part:
                for index in part.remaining:
                    if shared.stop.is_set() or os.getppid() != parent:
                        return
                    part.append(index, frames(recipe, kind, maker, index))
                    with shared.done.get_lock():
                        shared.done.value += 1
    except Exception as error:  # the edge of a process: told to the parent, in words
        where = "" if index is None else f"picture {index}: "
        trace = "" if isinstance(error, DataError) else "\n" + traceback.format_exc()
        outcome.send(f"{where}{error}{trace}")
        shared.stop.set()


@contextmanager
def one_core_each() -> Iterator[None]:
    """Processes that start meanwhile use one core each: threads of libraries would get in each other's way.

    Libraries look at the environment as they are loaded, so it has to be there before a process starts.
    """
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other command writes into the folder."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"another command is writing to {folder}") from None
    finally:
        os.close(held)


@contextmanager
def _signals(stop: Any) -> Iterator[None]:
    """SIGINT and SIGTERM ask for an end after the present picture."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in wanted]
    try:
        yield
    finally:
        for number, handler in zip(wanted, before, strict=True):
            signal.signal(number, handler)
