"""Progress bars: on a terminal a live bar, elsewhere nothing, so that log files stay readable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as _track

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """Pass items on, drawing a bar on standard error where that is a terminal."""
    console = Console(stderr=True)
    return _track(
        items, description, total=total, console=console, disable=not console.is_terminal, transient=True
    )
