"""What each series of the metrics means, as a table: `python -m service.series` writes docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry

from service.gpu_metrics import families
from service.metrics import STAGES, Metrics

_OURS = "reppose_"
_HEAD = """\
# Metrics

All series of the service, from `GET /metrics`. Histograms have `_bucket`, `_sum` and `_count`. Beside them there are
Prometheus's usual `process_*` and `python_*` (memory, processor time, open files, garbage collection). Those of GPUs
are there with the providers `cuda` and `tensorrt`, where the driver's management library (NVML) is. `make metrics`
makes this file.

"""


def series() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """(name, kind, labels, meaning) of every series of ours."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.listeners.watch_connections(lambda: 0)
    metrics.listeners.watch_certificate(lambda: 0.0)
    for each in families():
        yield each.name, each.type, tuple(each._labelnames), each.documentation
    # The labels of a series that has no value yet can be had from its collector only.
    for collector in list(registry._collector_to_names):
        labels = getattr(collector, "_labelnames", getattr(collector, "label_names", ()))
        describe = getattr(collector, "describe", collector.collect)
        for each in describe():
            if each.name.startswith(_OURS):
                suffix = "_total" if each.type == "counter" else ""
                yield each.name + suffix, each.type, tuple(labels), each.documentation


def document() -> str:
    """The whole file."""
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, kind, labels, meaning in sorted(series())
    ]
    stages = ", ".join(f"`{stage}`" for stage in STAGES)
    table = "\n".join(["| series | kind | labels | meaning |", "| --- | --- | --- | --- |", *rows])
    return f"{_HEAD}{table}\n\nStages: {stages}.\n"


if __name__ == "__main__":
    print(document(), end="")
