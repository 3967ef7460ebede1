"""Make the next batches on another thread while the present one is learnt from; OpenCV runs beside Python."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

AHEAD = 2
"""Batches that wait to be learnt from."""


def ahead(items: Iterator[Item], count: int = AHEAD) -> Iterator[Item]:
    """The same items in the same order, up to `count` of them made in advance; errors come where the item would."""
    end = object()
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, items, end) for _ in range(count))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
