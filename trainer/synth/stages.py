"""Where the time of a picture goes: stages that are told apart as they end, per process."""

from __future__ import annotations

import time
from collections import Counter

spent: Counter[str] = Counter()
"""Seconds by stage, in the order in which they first ended; what ends a stage begins the next."""
_last = [0.0]


def begin() -> None:
    """Start anew, with nothing spent."""
    spent.clear()
    _last[0] = time.perf_counter()


def lap(stage: str) -> None:
    """What was done since the last lap was this stage; costs less than a microsecond."""
    now = time.perf_counter()
    spent[stage] += now - _last[0]
    _last[0] = now
