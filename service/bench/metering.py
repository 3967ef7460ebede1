"""What the metrics and the log line of one frame cost: `python -m service.bench.metering`.

Times say little on a machine that others use, so each way is measured in turns with the others, the best of many rounds
counts (what disturbs only adds), and its ratio to the usual way stands beside it.
"""

from __future__ import annotations

import io
import math
import os
import sys
import time
from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry

from service import logs
from service.histogram import Histogram, Series
from service.logs import facts, log
from service.metrics import Metrics
from service.watching import Watch

ROUNDS, REPEATS = 30, 500
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SECONDS = 0.0123


def frame(watch: Watch) -> Callable[[], None]:
    """Everything that is counted of one frame alone in its batch, but for its log line."""
    stages = watch.metrics.stages("m@1")

    def count() -> None:
        stages.batch_taken([_SECONDS])
        for stage in ("decode", "warp", "infer", "decode_keypoints"):
            stages.spent(stage, _SECONDS)
        stages.ran(1)
        stages.answered([_SECONDS], [0.9])
        watch.metrics.stage("m", "1", "encode").observe(_SECONDS)
        watch.ended("http", "pose", "ok", time.perf_counter(), method="POST", path="/v1/pose", status=200)

    return count


def usual() -> Callable[[], None]:
    """The same by prometheus_client's own histograms, whose children are kept likewise."""
    registry = CollectorRegistry()
    made = prometheus_client.Histogram("u_seconds", "u", ["stage"], buckets=_BUCKETS, registry=registry)
    counter = prometheus_client.Counter("u", "u", ["outcome"], registry=registry).labels("ok")
    histograms = [made.labels(str(number)) for number in range(10)]  # of which a frame fills that many

    def count() -> None:
        for each in histograms:
            each.observe(_SECONDS)
        for _ in range(3):
            counter.inc()

    return count


def one(series: prometheus_client.Histogram | Series) -> Callable[[], None]:
    """One observation."""
    return lambda: series.observe(_SECONDS)


def measured(ways: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Least microseconds of each, taken in turns."""
    best = dict.fromkeys(ways, math.inf)
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began_s = time.perf_counter()
            for _ in range(REPEATS):
                way()
            best[name] = min(best[name], (time.perf_counter() - began_s) / REPEATS * 1e6)
    return best


def main() -> None:
    """Print the table."""
    registry = CollectorRegistry()
    silent = Watch(Metrics(CollectorRegistry()), log_requests=False)
    told = {
        "transport": "http",
        "method": "POST",
        "path": "/v1/pose",
        "status": 200,
        "outcome": "ok",
        "ms": 1.2,
    }
    ways = {
        "one observation, prometheus_client": one(
            prometheus_client.Histogram("a", "a", buckets=_BUCKETS, registry=registry)
        ),
        "one observation": one(Histogram("b", "b", buckets=_BUCKETS, registry=registry).labels()),
        "a frame's metrics, prometheus_client": usual(),
        "a frame's metrics": frame(silent),
        "a log line, logging": lambda: log.info("request", extra=facts(**told)),
        "a log line": lambda: logs.request(**told),
    }
    terminal, sys.stderr = sys.stderr, io.TextIOWrapper(open(os.devnull, "wb"), line_buffering=True)  # noqa: SIM115
    try:
        logs.configure("info", "json")
        logs.begin_request(None)
        found = measured(ways)
    finally:
        sys.stderr = terminal
    names = list(found)
    print("| what | microseconds | of the usual |\n| --- | --- | --- |")
    for plain, ours in zip(names[::2], names[1::2], strict=True):
        print(f"| {plain} | {found[plain]:.1f} | 1 |")
        print(f"| {ours} | {found[ours]:.1f} | {found[ours] / found[plain]:.2f} |")


if __name__ == "__main__":
    main()
