"""Files that are read again when they change, without a restart.

Orchestrators mount secrets as links that are turned to another folder, editors write a new file in the place of the old
one; so it is the file behind the path that is looked at, not the path.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

Signs = tuple[int, ...] | None
"""What tells a file from what it was before; None of one that is not there."""


class Watched:
    """Some files, and what is to be done when one of them is another one.

    Args:
        paths: the files.
        changed: called in the event loop; whatever it does about it, it begins with `seen`.
        every_s: how often to look.
    """

    def __init__(self, paths: Sequence[Path], changed: Callable[[], None], every_s: float) -> None:
        self._paths, self._changed, self._every_s = tuple(paths), changed, every_s
        self._watcher: asyncio.Task[None] | None = None
        self.seen()

    def seen(self) -> None:
        """Take the files for known as they are now. Called before they are read: a change meanwhile is not missed."""
        self._known = self._look()

    def start(self) -> None:
        """Begin to look."""
        if self._paths:
            self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Look no more."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            if self._look() != self._known:
                self._changed()

    def _look(self) -> list[Signs]:
        return [_signs(path) for path in self._paths]


def _signs(path: Path) -> Signs:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
