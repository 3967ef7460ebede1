"""How fast others are served while somebody attacks: `python -m tests.service.attack_bench --out table.md`.

One process of the service with its own model, one that asks, and one that attacks: on few processors the attacker's own
work is part of what is measured, and the first row tells how much that alone does. For every attack, rounds without and
with it follow each other, so that what the machine does meanwhile meets both; what is told is the ratio of their
latencies.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np

from service.bench import pictures
from tests.service import attacks, serving

_WARM_S = 1.5
"""For another process to begin."""

Attack = Callable[[int], None]
"""Attacks the HTTP port of this machine, again and again until it is killed."""


def huge_headers_of_pictures(port: int) -> None:
    """As fast as one client can."""
    pictures = list(attacks.headers_of_huge_pictures().values())
    _posting(port, lambda client, url: [client.post(url, content=data) for data in pictures])


def huge_headers(port: int) -> None:
    """10 MB in one header, again and again."""
    head = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\nX: "
    value = b"a" * 10_000_000
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(head)
            connection.sendall(value)


def parts(port: int) -> None:
    """Pictures of a million empty parts."""
    data = b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1_000_000
    _posting(port, lambda client, url: client.post(url, content=data))


def uploads(port: int) -> None:
    """500 at a time, of 1 byte per second each."""
    with ExitStack() as held:
        begun = attacks.trickles(held, port, 500)
        while True:
            for upload in begun:
                with contextlib.suppress(OSError):
                    upload.sendall(b"\xff")
            time.sleep(1.0)


def idle(port: int) -> None:
    """2,000 connections that say nothing."""
    with ExitStack() as held:
        attacks.idle(held, port, 2000)
        time.sleep(3600)


def busy(port: int) -> None:
    """Leaves the service alone, and takes a processor: what the attacks that send without pause do at the least."""
    number = 0
    while True:
        number += 1


def _posting(port: int, work: Callable[[httpx.Client, str], object]) -> None:
    with httpx.Client(trust_env=False, timeout=60, headers={"Content-Type": "image/jpeg"}) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                work(client, f"http://127.0.0.1:{port}/v1/pose")


ATTACKS: dict[str, Attack] = {
    "none: a process that only counts": busy,
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
        attacker = multiprocessing.get_context("spawn").Process(
            target=attack, args=(service.wait_for("listening")["http_port"],), daemon=True
        )
        attacker.start()
        time.sleep(_WARM_S)
        attacked.append(latencies(service, picture, seconds))
        attacker.kill()
        attacker.join()
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
