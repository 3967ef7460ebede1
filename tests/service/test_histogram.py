"""Our histogram counts as prometheus_client's own does."""

from __future__ import annotations

import threading

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.histogram import Histogram

BOUNDS = (0.001, 0.5, 1.0, 2.5)
values = st.lists(st.sampled_from(BOUNDS) | st.floats(-10, 10), max_size=40)


def made(labels: tuple[str, ...] = ()) -> tuple[Histogram, CollectorRegistry]:
    registry = CollectorRegistry()
    return Histogram("h_seconds", "What.", labels, buckets=BOUNDS, registry=registry), registry


@given(values, values)
def test_it_says_what_the_usual_one_says(singly: list[float], together: list[float]) -> None:
    ours, registry = made(("model",))
    alone = ours.labels("a")
    for value in singly:
        alone.observe(value)
    ours.labels("b").observe_all(together)
    other = CollectorRegistry()
    usual = prometheus_client.Histogram("h_seconds", "What.", ["model"], buckets=BOUNDS, registry=other)
    for name, seen in (("a", singly), ("b", together)):
        usual.labels(name)
        for value in seen:
            usual.labels(name).observe(value)
    wanted = {(s.name, *sorted(s.labels.items())): s.value for m in other.collect() for s in m.samples}
    found = {(s.name, *sorted(s.labels.items())): s.value for m in registry.collect() for s in m.samples}
    assert wanted.keys() - {key for key in wanted if key[0].endswith("_created")} == found.keys()
    for key, value in found.items():
        assert value == pytest.approx(wanted[key]), key
    assert generate_latest(registry).startswith(b"# HELP h_seconds What.\n# TYPE h_seconds histogram\n")


def test_the_newest_trace_of_a_bucket_is_its_example() -> None:
    ours, registry = made()
    for value, trace in ((0.7, "a" * 32), (0.8, "b" * 32), (0.9, None), (99.0, "c" * 32)):
        ours.labels().observe(value, trace)
    (family,) = text_string_to_metric_families(openmetrics(registry).decode())
    examples = {s.labels["le"]: s.exemplar for s in family.samples if s.exemplar is not None}
    assert {le: (each.labels, each.value) for le, each in examples.items()} == {
        "1.0": ({"trace_id": "b" * 32}, 0.8),
        "+Inf": ({"trace_id": "c" * 32}, 99.0),
    }


def test_no_value_is_lost_between_threads() -> None:
    ours, _ = made(("model",))

    def fill() -> None:
        for _ in range(2000):
            ours.labels("a").observe(0.75)
            ours.labels("a").observe_all([0.25, 5.0])

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buckets, total = ours.labels("a").read()
    assert [count for _, count, _ in buckets] == [0, 8000, 16000, 16000, 24000]
    assert total == 8000 * (0.75 + 0.25 + 5.0)


@pytest.mark.parametrize("bounds", [(), (1, 1), (2, 1)])
def test_bounds_must_rise(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        Histogram("h", "What.", buckets=bounds, registry=CollectorRegistry())


def test_labels_must_be_all_there_and_names_are_taken_once() -> None:
    ours, registry = made(("model", "stage"))
    with pytest.raises(ValueError, match="model"):
        ours.labels("a")
    with pytest.raises(ValueError, match="Duplicated"):
        Histogram("h_seconds", "Again.", buckets=BOUNDS, registry=registry)
