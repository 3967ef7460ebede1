"""How fast others are served while somebody attacks: `python -m tests.service.attack_bench --out table.md`.

One process of the service with its own model. For every attack, rounds without and with it follow each other, so that
what the machine does meanwhile meets both; what is told is the ratio of their latencies.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np

from service.bench import pictures
from tests.service import attacks, serving

Attack = Callable[[serving.Service, threading.Event], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def in_a_thread(work: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Do it again and again."""

    def run() -> None:
        while not over.is_set():
            with contextlib.suppress(httpx.TransportError, OSError):
                work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def huge_headers_of_pictures(service: serving.Service, over: threading.Event):
    """As fast as one client can."""
    pictures = list(attacks.headers_of_huge_pictures().values())
    client = httpx.Client(trust_env=False, timeout=60)

    def work() -> None:
        for data in pictures:
            client.post(f"{service.url}/v1/pose", content=data, headers={"Content-Type": "image/png"})

    return in_a_thread(work, over)


def huge_headers(service: serving.Service, over: threading.Event):
    """10 MB in one header, again and again."""
    client = httpx.Client(trust_env=False, timeout=60)
    return in_a_thread(
        lambda: client.get(f"{service.url}/healthz/live", headers={"X": "a" * 10_000_000}), over
    )


def parts(service: serving.Service, over: threading.Event):
    """Pictures of a million empty parts."""
    client = httpx.Client(trust_env=False, timeout=60)
    data = b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1_000_000
    return in_a_thread(
        lambda: client.post(f"{service.url}/v1/pose", content=data, headers={"Content-Type": "image/jpeg"}),
        over,
    )


@contextlib.contextmanager
def uploads(service: serving.Service, over: threading.Event) -> Iterator[None]:
    """500 at a time, of 1 byte per second each."""
    port = service.wait_for("listening")["http_port"]
    with ExitStack() as held:
        open_ = attacks.trickles(held, port, 500)

        def trickle() -> None:
            for upload in open_:
                with contextlib.suppress(OSError):
                    upload.sendall(b"\xff")
            over.wait(1.0)

        with in_a_thread(trickle, over):
            yield


@contextlib.contextmanager
def idle(service: serving.Service, over: threading.Event) -> Iterator[None]:
    """2,000 connections that say nothing."""
    port = service.wait_for("listening")["http_port"]
    with ExitStack() as held:
        attacks.idle(held, port, 2000)
        yield


ATTACKS: dict[str, Attack] = {
    "headers of 50,000 x 50,000 pixels": huge_headers_of_pictures,
    "10 MB in one header": huge_headers,
    "pictures of a million parts": parts,
    "500 uploads of 1 byte/s": uploads,
    "2,000 idle connections": idle,
}


def latencies(service: serving.Service, picture: bytes, seconds: float) -> list[float]:
    """Of one client that asks for poses, one after the other."""
    found = []
    with httpx.Client(trust_env=False, timeout=60) as client:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.perf_counter()
            answer = client.post(
                f"{service.url}/v1/pose", content=picture, headers={"Content-Type": "image/jpeg"}
            )
            found.append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
    return found


def measured(service: serving.Service, attack: Attack, picture: bytes, rounds: int, seconds: float) -> str:
    calm: list[list[float]] = []
    attacked: list[list[float]] = []
    for _ in range(rounds):
        calm.append(latencies(service, picture, seconds))
        over = threading.Event()
        with attack(service, over):
            attacked.append(latencies(service, picture, seconds))
        time.sleep(1.0)  # what was begun is given up
    quantiles = [np.percentile(np.concatenate(each), (50, 99)) * 1e3 for each in (calm, attacked)]
    ratios = [
        np.percentile(bad, 99) / np.percentile(good, 99) for good, bad in zip(calm, attacked, strict=True)
    ]
    grown = attacks.resident_bytes(service.process.pid, most=True) / 2**20
    return (
        f"{quantiles[0][0]:.1f} / {quantiles[0][1]:.1f} | {quantiles[1][0]:.1f} / {quantiles[1][1]:.1f} | "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {grown:.0f}"
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each half of a round")
    parser.add_argument("--out", type=Path, help="write the table there as well")
    given = parser.parse_args()
    if not attacks.open_files_for(4000):
        parser.error("this process may not have 4,000 open files")
    lines = [
        "| attack | calm p50 / p99, ms | attacked p50 / p99, ms | ratio of p99, median (range) | most memory, MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    print(*lines, sep="\n")
    picture = next(each.data for each in pictures.standard() if each.name == "JPEG 640x480")
    root = Path(__file__).parents[2] / "model_zoo" / "bundles"
    settings = {"REPPOSE_MODELS__DEFAULT": "body19-small", "REPPOSE_LOG__REQUESTS": "false"}
    with serving.running(root, **settings) as service:
        latencies(service, picture, 2.0)
        for name, attack in ATTACKS.items():
            lines.append(f"| {name} | {measured(service, attack, picture, given.rounds, given.seconds)} |")
            print(lines[-1], flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
