"""How long the graphs of a bundle take for one crop on one thread, against a reference in the same run.

Processor time, in turns: what else the machine does then changes each of them alike, and a ratio says more than
milliseconds. What is computed is what the service asks for: keypoints and all further heads, heatmaps only of a graph
that does not decode them itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from model_zoo.bundle import Bundle
from model_zoo.manifest import Latency
from trainer.export import OnnxNet
from trainer.hardware import processor

TURNS, CALLS = 40, 5
"""How often each graph is timed, and calls of each turn."""


def measure(found: Bundle, reference: Bundle, command: str) -> tuple[Latency, ...]:
    """Time all graphs of a bundle against the float32 graph of another one, or its own.

    Args:
        found: to time.
        reference: what it is compared with.
        command: that was run.
    """
    paths = {"fp32": found.model_path, "int8": found.int8_path}
    calls = [call(reference, reference.model_path)]
    calls += [call(found, path) for path in paths.values() if path is not None]
    turns = in_turns(calls)
    return tuple(
        Latency(
            precision=precision,
            ms=round(statistics.median(turn[index] for turn in turns), 3),
            ratio=round(statistics.median(turn[index] / turn[0] for turn in turns), 3),
            reference=f"{reference.name}@{reference.version} fp32",
            hardware=processor(),
            command=command,
        )
        for index, precision in enumerate((name for name, path in paths.items() if path is not None), 1)
    )


def call(found: Bundle, graph: Path) -> Callable[[], object]:
    """Answers the same crop of noise again and again."""
    net, (height, width) = OnnxNet(graph), found.manifest.input.size
    crop = np.random.default_rng(1).integers(0, 256, (1, height, width, 3), np.uint8)
    return lambda: net.served(crop)


def in_turns(calls: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Milliseconds of processor time per call, turn by turn; the first turn warms up and is left out."""
    return [[_ms(each) for each in calls] for _ in range(TURNS + 1)][1:]


def _ms(one: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(CALLS):
        one()
    return (time.process_time() - began) / CALLS * 1e3
