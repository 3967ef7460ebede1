"""How many processors this process may use: its affinity mask, and the quota of its cgroup (containers)."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def affinity() -> tuple[int, ...]:
    """The processors that this process may run on, by number."""
    return tuple(sorted(os.sched_getaffinity(0)))


def quota(cgroup: Path = CGROUP) -> float | None:
    """Processors' worth of time that the cgroup (v2 or v1) grants; None for no limit."""
    try:
        granted, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            granted = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        share = int(granted) / int(period)
    except (ValueError, ZeroDivisionError):
        return None  # "max"
    return share if share > 0 else None


def usable(cgroup: Path = CGROUP) -> int:
    """How many busy threads are worth having; at least 1."""
    granted = quota(cgroup)
    count = len(affinity())
    return count if granted is None else max(1, min(count, math.ceil(granted)))
