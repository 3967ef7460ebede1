"""How many processors this process may use: its affinity mask, and the quota of its cgroup (containers)."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def affinity() -> tuple[int, ...]:
    """The processors that this process may run on, by number."""
    return tuple(sorted(os.sched_getaffinity(0)))


def tied(workers: int, pin: str) -> tuple[int, ...]:
    """One processor for each worker, or none.

    Not tied, the kernel often puts two Python workers on one processor. But where the process may use more
    processors than it has workers for, as in a container with a quota on a large machine, all such processes
    would choose the same.

    Args:
        workers: how many there are.
        pin: `on`, `off`, or `auto` for where there are as many of the one as of the other.
    """
    mine = affinity()
    if pin == "off" or (pin == "auto" and workers != len(mine)) or workers > len(mine):
        return ()
    return mine[:workers]


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
