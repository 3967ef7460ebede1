"""A Prometheus histogram that is cheap to fill, with exemplars.

prometheus_client's own looks through the bounds one by one and takes a lock for each number that it changes. Every
frame is observed several times, so here a bisection finds the bucket and one lock guards all. `python -m
service.bench.metering` compares the two.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString


class Series:
    """The observations with one set of label values. May be used from many threads."""

    __slots__ = ("_bounds", "_counts", "_examples", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._examples: list[tuple[str, float, float] | None] = [None] * len(self._counts)
        self._lock = threading.Lock()

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """Count a value; the trace that it belongs to becomes the example of its bucket."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value
        if trace_id is not None:
            self._examples[place] = (trace_id, value, time.time())

    def observe_all(self, values: Iterable[float]) -> None:
        """Count several values at once."""
        bounds, counts = self._bounds, self._counts
        with self._lock:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
                self._sum += value

    def read(self) -> tuple[list[tuple[str, float, Exemplar | None]], float]:
        """Per bucket its upper bound, how many values are not above that, and an example; and the sum of all values."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        running = 0
        buckets = []
        for name, count, example in zip(names, counts, self._examples, strict=True):
            running += count
            exemplar = example and Exemplar({"trace_id": example[0]}, *example[1:])
            buckets.append((name, float(running), exemplar))
        return buckets, total


class Histogram:
    """Some `Series` under one name.

    Args:
        name: without a suffix.
        documentation: what is counted.
        labels: names of the labels; none for one series, which `labels()` gives.
        buckets: upper bounds, rising; one without a bound is added.
        registry: to be collected from.

    Raises:
        ValueError: the bounds do not rise, or the name is taken.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        if not buckets or list(buckets) != sorted(set(buckets)):
            raise ValueError(f"the bounds of {name} must rise")
        self.name, self.label_names = name, tuple(labels)
        self._documentation = documentation
        self._bounds = tuple(map(float, buckets))
        self._series: dict[tuple[str, ...], Series] = {}
        self._lock = threading.Lock()
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series with these values of the labels, in order. Raises ValueError for a wrong number of them."""
        if len(values) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, got {values}")
        with self._lock:
            return self._series.setdefault(values, Series(self._bounds))

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """For the registry: the name, without values."""
        yield HistogramMetricFamily(self.name, self._documentation, labels=self.label_names)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry: everything."""
        family = HistogramMetricFamily(self.name, self._documentation, labels=self.label_names)
        with self._lock:
            present = list(self._series.items())
        for values, series in present:
            family.add_metric(values, *series.read())
        yield family
