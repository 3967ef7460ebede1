"""Progress bars: on a terminal a live bar, elsewhere nothing, so that log files stay readable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as _track

Item = TypeVar("Item")


def track(
    items: Iterable[Item], description: str, total: int | None = None, completed: int = 0
) -> Iterable[Item]:
    """Pass items on, drawing a bar on standard error where that is a terminal.

    Args:
        items: anything.
        description: stands before the bar.
        total: how many there are; None asks the items.
        completed: of the total, done before.
    """
    console = Console(stderr=True)
    quiet = not console.is_terminal
    return _track(
        items, description, total=total, completed=completed, console=console, disable=quiet, transient=True
    )
