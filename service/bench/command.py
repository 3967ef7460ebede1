"""One run: who takes turns with whom, for how long, and in which order.

Everything that is compared is measured within one run and alternately: loop, row, loop, row, and the whole of it
again for each round, so that a machine that is slower for a while is so for both sides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from model_zoo import bundle
from model_zoo.errors import ModelZooError
from service.bench import loop, peers, processes, rows
from service.bench.load import Load, Route
from service.bench.loop import Measured, Pass
from service.bench.pictures import Picture
from service.bench.rows import Row
from service.errors import StartupError

OPEN_SPARE = 4
"""The open loop has so many times the connections that the closed loop had: waiting must not hold arrivals back."""
OPEN = ("rest", "JPEG 192x256")
"""Route and picture of the open loop."""


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    environment: Mapping[str, str]
    """Variables of the server, which say the same as what follows."""
    roots: tuple[Path, ...]
    model: str
    """`name` or `name@version`."""
    provider: str
    batch: int
    workers: int
    processors: Sequence[int]
    """To tie the loop's threads to, as the service ties its workers; empty to leave them free."""
    pictures: Sequence[Picture]
    routes: Sequence[Route]
    concurrency: Sequence[int]
    precisions: Sequence[str]
    """Empty for all that the bundle has."""
    seconds: float
    """Of a row; the loop gets half as much before it and half as much after it."""
    rounds: int
    against: Sequence[str] = ()
    """Names of `peers.PEERS`."""


@dataclass
class _Rig:
    """A server, what it is compared with, and who asks it."""

    name: str
    """`reppose`, or one of `peers.PEERS`."""
    precision: str
    server: processes.Server | processes.PeerServer
    loop: processes.Loop
    client: processes.Client


def run(plan: Plan, say: Callable[[str], None]) -> list[Row]:
    """Measure everything.

    Args:
        plan: what to measure.
        say: is told how far it is.

    Raises:
        StartupError: a server or the model cannot be had.
    """
    name, _, version = plan.model.partition("@")
    try:
        found = bundle.find(name, version or None, plan.roots)
    except ModelZooError as error:
        raise StartupError(str(error)) from error
    offered = ("fp32",) if found.int8_path is None else ("fp32", "int8")
    measured: dict[tuple, list[Row]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = processes.write_pictures(folder, [picture.data for picture in plan.pictures])
        sent = list(zip(plan.pictures, paths, strict=True))
        client = stack.enter_context(processes.Client())
        rigs = []
        for precision in plan.precisions or offered:
            setting = loop.Setting(str(found.folder), precision, plan.provider, list(plan.processors))
            bare = stack.enter_context(processes.Loop(setting))
            server = stack.enter_context(processes.Server(plan.environment, precision))
            rigs.append(_Rig("reppose", precision, server, bare, client))
            for peer in plan.against:
                port = processes.free_port()
                known = peers.Setting(
                    str(found.folder), precision, plan.provider, port, plan.workers, plan.batch
                )
                other = stack.enter_context(processes.PeerServer(peer, known))
                rigs.append(_Rig(peer, precision, other, bare, client))
        for number in range(plan.rounds):
            for rig in rigs:
                for row in _one_round(plan, rig, sent):
                    key = (row.server, row.precision, row.picture, row.route, row.concurrency)
                    measured.setdefault(key, []).append(row)
                    say(f"round {number + 1} of {plan.rounds}: {' '.join(map(str, key))}")
    return [rows.medians(each) for each in measured.values()]


def _one_round(plan: Plan, rig: _Rig, sent: Sequence[tuple[Picture, Path]]) -> Iterator[Row]:
    """Every row of one server once."""
    for picture, path in sent:
        for concurrency in plan.concurrency:
            one = Pass(str(path), picture.size, picture.encoded, batch=1, threads=1, seconds=plan.seconds / 2)
            full = replace(one, batch=plan.batch, threads=plan.workers)
            bare = one if concurrency == 1 else full
            loads = list(_loads(plan, rig, picture, path, concurrency))
            if not loads:
                continue
            before = rig.loop.measure(bare)
            for load in loads:
                row, before = _row(rig, picture.name, load, bare, before)
                yield row
                if (load.route, picture.name, concurrency) == (*OPEN, max(plan.concurrency)):
                    rate = row.images_per_s * rows.OPEN_LOAD
                    load = replace(load, concurrency=concurrency * OPEN_SPARE, rate=rate)
                    row, _ = _row(rig, picture.name, load, one, rig.loop.measure(one))
                    yield row


def _loads(plan: Plan, rig: _Rig, picture: Picture, path: Path, concurrency: int) -> Iterator[Load]:
    """What one server is asked for one picture: all routes of ours, the only one of a peer."""
    server = rig.server
    common = Load(
        "rest",
        server.http_port,
        str(path),
        picture.media,
        picture.size,
        concurrency,
        plan.seconds,
        server.pid,
    )
    if isinstance(server, processes.PeerServer):
        peer = peers.PEERS[rig.name]
        if picture.encoded and "rest" in picture.routes:
            yield replace(common, route=peer.route, target=peer.target, boxes=False)
        return
    for route in plan.routes:
        if route not in picture.routes:
            continue
        over_http = route in ("rest", "multipart")
        yield replace(common, route=route, port=server.http_port if over_http else server.grpc_port)


def _row(rig: _Rig, picture: str, load: Load, bare: Pass, before: Measured) -> tuple[Row, Measured]:
    """One row, and the loop's measurement after it, which is the one before the next."""
    calls, crops = rig.server.batches()
    outcome = rig.client.drive(load)
    if not outcome.latencies_ms:
        raise StartupError(f"nothing was answered over {load.route}: {outcome.fault or 'too little time'}")
    calls_after, crops_after = rig.server.batches()
    after = rig.loop.measure(bare)
    row = rows.row_of(
        outcome,
        server=rig.name,
        precision=rig.precision,
        picture=picture,
        route=load.route,
        concurrency=0 if load.rate else load.concurrency,
        loop_cpu_ms=(before.cpu_ms + after.cpu_ms) / 2,
        loop_latency_ms=(before.latency_ms + after.latency_ms) / 2,
        batch=(crops_after - crops) / max(1.0, calls_after - calls),
    )
    return row, after
