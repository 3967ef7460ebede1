"""What a run found, row by row, and which of its targets were reached. Knows no process and no file."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from service.bench.load import Outcome
from service.bench.pictures import PERSON

CPU_TARGETS = (
    ("stream", "JPEG 192x256", 1.10),
    ("rest", "JPEG 192x256", 1.12),
    ("unary", "JPEG 192x256", 1.18),
    ("rest", "JPEG 640x480", 1.10),
    ("live", PERSON, 1.12),
    ("file", PERSON, 1.12),
)
"""(route, picture, most processor time per image over the bare loop's) at high concurrency."""
HIGH = range(24, 33)
"""Concurrency that the targets under load are held against."""
BUSY_SHARE = 0.9
"""Least share of the processors' time, less the client's and strangers', that must go into images."""
QUIET_CORES = 0.2
"""With more processors than this taken by strangers, nothing is said of targets about wall time."""
OPEN_LOAD = 0.7
"""Share of the measured capacity at which the open loop asks."""
OPEN_P99 = 4.0
"""Most p99 of the open loop, in median latencies of the bare loop."""
IDLE_MS = 1.0
"""Most that an idle server may add to the bare loop's latency."""


@dataclass(frozen=True)
class Row:
    """One way of asking, and what it took. Medians over the rounds of a run."""

    server: str
    precision: str
    picture: str
    route: str
    concurrency: int
    """Requests under way; 0 for the open loop."""
    images_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float
    """Processor time of the server for one image."""
    loop_cpu_ms: float
    """The same of the bare loop, mean of just before and just after."""
    ratio: float
    """`cpu_ms` over `loop_cpu_ms`."""
    loop_latency_ms: float
    """Median of the bare loop: of one image at concurrency 1 and in the open loop, else of a batch."""
    batch: float
    """Mean crops in one call of the net; 0 where the server does not say."""
    client_cores: float
    """Processors that the client kept busy meanwhile."""
    other_cores: float
    """Processors that everything else on the machine kept busy meanwhile."""
    failed: int


@dataclass(frozen=True)
class Target:
    """A promise, and what was measured."""

    what: str
    limit: float
    measured: float
    at_least: bool = False
    disturbed: bool = False
    """It is about wall time, and strangers had too much of the processors for that to mean anything."""

    @property
    def reached(self) -> bool | None:
        """None where it cannot be judged."""
        if self.disturbed:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def row_of(outcome: Outcome, **known: float | str) -> Row:
    """A row of one measurement; `known` are the fields that the outcome does not tell. Latencies must not be empty."""
    p50, p95, p99 = np.percentile(outcome.latencies_ms, (50, 95, 99)).tolist()
    count = len(outcome.latencies_ms)
    cpu_ms = outcome.server_cpu_s / count * 1e3
    return Row(
        images_per_s=count / outcome.seconds,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        cpu_ms=cpu_ms,
        ratio=cpu_ms / known["loop_cpu_ms"],
        client_cores=outcome.client_cpu_s / outcome.seconds,
        other_cores=outcome.others_cpu_s / outcome.seconds,
        failed=outcome.failed,
        **known,
    )


def medians(rounds: Sequence[Row]) -> Row:
    """The middle of each number over repetitions of one row; failures add up."""
    numbers = {
        field.name: statistics.median(getattr(row, field.name) for row in rounds)
        for field in fields(Row)
        if field.type == "float"
    }
    return replace(rounds[0], **numbers, failed=sum(row.failed for row in rounds))


def targets(rows: Iterable[Row], cores: int) -> list[Target]:
    """Every target that these rows can be held against; other servers are not.

    Args:
        rows: of one run.
        cores: processors that server and client share.
    """
    rows = [row for row in rows if row.server == "reppose"]
    found = []
    for route, picture, limit in CPU_TARGETS:
        found += [
            Target(f"{_name(row)}: CPU over the loop's", limit, row.ratio)
            for row in rows
            if (row.route, row.picture) == (route, picture) and row.concurrency in HIGH
        ]
    for row in rows:
        if row.concurrency == max(HIGH):
            could = (cores - row.client_cores - row.other_cores) / (row.cpu_ms / 1e3)
            share = row.images_per_s / could
            what = f"{_name(row)}: share of the free cores"
            found.append(Target(what, BUSY_SHARE, share, at_least=True, disturbed=_disturbed(row)))
    for row in rows:
        if not row.concurrency:
            share = row.p99_ms / row.loop_latency_ms
            what = f"{_name(row)}: p99 over the loop's latency"
            found.append(Target(what, OPEN_P99, share, disturbed=_disturbed(row)))
        elif row.concurrency == 1:
            added = row.p50_ms - row.loop_latency_ms
            what = f"{_name(row)}: ms added to the loop's"
            found.append(Target(what, IDLE_MS, added, disturbed=_disturbed(row)))
    return found


def _disturbed(row: Row) -> bool:
    return row.other_cores > QUIET_CORES


def _name(row: Row) -> str:
    how = f"c={row.concurrency}" if row.concurrency else f"{OPEN_LOAD:.0%} load"
    return f"{row.precision} {row.route}, {row.picture}, {how}"
