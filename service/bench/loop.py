"""The denominator: decode + warp + net in a bare loop, as many threads as the service has workers, nothing else.

Run as a process of its own, `python -m service.bench.loop`: one `Setting` as JSON in the arguments, one `Pass` as JSON
on each line of stdin, one `Measured` back on stdout. It uses the service's runner, so that the graph, its options and
the decoder in it are the same; everything that can be prepared (the map of the warp, all buffers) is.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from model_zoo import bundle, geometry
from model_zoo.manifest import Precision
from service import runner
from service.runner import Runner


@dataclass(frozen=True)
class Setting:
    """What stays the same for the life of the process."""

    folder: str
    """Of the bundle."""
    precision: Precision
    provider: str
    processors: list[int]
    """To tie the threads to, one each; empty to leave them free."""


@dataclass(frozen=True)
class Pass:
    """What to measure next."""

    path: str
    """A JPEG file, or one of bare pixels."""
    size: tuple[int, int]
    encoded: bool
    batch: int
    threads: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """What one image costs without a server."""

    cpu_ms: float
    """Processor time for one image, all threads together."""
    latency_ms: float
    """Median time of one round of a thread, which is a batch."""
    images_per_s: float


def main() -> None:
    """Serve passes until stdin ends."""
    setting = Setting(**json.loads(sys.argv[1]))
    cv2.setNumThreads(1)
    loaded = runner.load(bundle.read(Path(setting.folder)), setting.precision, setting.provider)
    loaded.warm_up(8)
    for line in sys.stdin:
        measured = measure(loaded, Pass(**json.loads(line)), setting.processors)
        print(json.dumps(asdict(measured)), flush=True)


def measure(loaded: Runner, wanted: Pass, processors: list[int]) -> Measured:
    """Loop for the wanted time."""
    data = Path(wanted.path).read_bytes()
    rounds: list[list[float]] = [[] for _ in range(wanted.threads)]
    began, busy = time.perf_counter(), time.process_time()
    until = began + wanted.seconds

    def run(number: int) -> None:
        if processors:
            os.sched_setaffinity(0, {processors[number % len(processors)]})
        once = one_round(loaded, data, wanted)
        while not rounds[number] or time.perf_counter() < until:
            started = time.perf_counter()
            once()
            rounds[number].append(time.perf_counter() - started)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(wanted.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    times = [each for of_thread in rounds for each in of_thread]
    images = len(times) * wanted.batch
    return Measured(busy / images * 1e3, statistics.median(times) * 1e3, images / seconds)


def one_round(loaded: Runner, data: bytes, wanted: Pass) -> Callable[[], np.ndarray]:
    """A function that answers one batch with buffers of its own."""
    spec = loaded.manifest.input
    height, width = wanted.size
    box = np.array([0.0, 0.0, width, height])
    matrix = geometry.crop_affine(box, spec.size, padding=spec.padding)
    crops = np.empty((wanted.batch, *spec.size, 3), np.uint8)
    net = loaded.run if loaded.manifest.keypoints_output is None else loaded.keypoints
    pixels = None if wanted.encoded else np.frombuffer(data, np.uint8).reshape(height, width, 3)

    def once() -> np.ndarray:
        for crop in crops:
            image = simplejpeg.decode_jpeg(data) if pixels is None else pixels
            cv2.warpAffine(image, matrix, spec.size[::-1], dst=crop, flags=cv2.INTER_LINEAR)
        return net(crops)

    return once


if __name__ == "__main__":
    main()
