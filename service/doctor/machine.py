"""What the machine and its container give: processors, memory, open files. Linux alone has these files."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

from service.cpus import CGROUP

INTEGER_UNITS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""Flags of processors that multiply 8-bit numbers four at a time, x86's and ARM's."""


def integer_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Which of INTEGER_UNITS this processor has."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(), re.M)
    except OSError:
        return []
    flags = set(found[1].split()) if found else set()
    return [each for each in INTEGER_UNITS if each in flags]


def memory_limit(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that this process may use: the least of the cgroup's limit (v2 or v1) and the machine's memory."""
    limits = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroup / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # not "max"
            limits.append(int(text))
    try:
        found = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo.read_text(), re.M)
    except OSError:
        found = None
    if found:
        limits.append(int(found[1]) * 1024)
    return min(limits, default=None)


def open_files() -> int:
    """How many files and sockets the service may have open at once: it raises its own limit as far as it may."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def machine_cpus() -> int:
    """Processors of the machine, whoever may use them."""
    return os.cpu_count() or 1
