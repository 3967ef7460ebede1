"""The whole soak: a server, three crowds of clients, minutes of load, then two of the crowds vanish.

One crowd is frozen (its kernel goes on acknowledging, and nobody says goodbye: half-open connections), one is killed.
The third goes on, ends in order, and must have heard of every frame.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from service.bench import processes
from service.errors import StartupError
from service.soak import frames
from service.soak.clients import Crowd, Member
from service.soak.tally import Tally

MIX = (
    "grpc live",
    "websocket live",
    "grpc live",
    "http",
    "grpc live",
    "websocket live",
    "grpc file",
    "websocket file",
)
"""The kinds of streams, in turn: every crowd has some of each."""
WARM_UP = 0.1
"""Share of the time that passes before anything is counted."""
SAMPLE_S = 1.0
PATIENCE_S = 30.0
"""How much longer than the times of expiry the vanished may take: what they had sent is computed first, and the service
looks after them once a second."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Plan:
    """What to do."""

    streams: int
    seconds: float
    rate_hz: float
    """At which each live stream sends."""
    expiry_s: float
    """After which silent streams are ended, and sessions forgotten that nobody asks for."""
    clips: Path | None
    environment: Mapping[str, str]
    """All variables of the server but for these."""
    """Folder of `*.mp4`; None for made pictures."""


@dataclass(frozen=True)
class Sample:
    """The server at one moment."""

    at_s: float
    """Since the load began."""
    resident_mb: float
    files: int
    """Open ones, sockets included."""
    streams: int
    sessions: int


@dataclass
class Found:
    """What was found."""

    plan: Plan
    samples: list[Sample] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    """At the end of the load; those of the crowd that stays until its own end."""
    window_s: tuple[float, float] = (0.0, 0.0)
    """The time that counts, by `time.monotonic`."""
    stayed: int = 0
    """Streams of the crowd that stays; they come first in `tallies`."""
    before: tuple[int, int] = (0, 0)
    """Open streams and sessions just before half of the clients vanished."""
    expected: tuple[int, int] = (0, 0)
    """What must be left of them after that."""
    after: tuple[int, int] = (0, 0)
    """What was left."""
    gone_s: float | None = None
    """After how long; None where it did not come to that in time."""
    last: tuple[int, int] = (0, 0)
    """What was left when the others had ended, and their sessions had expired."""
    exit_code: int | None = None
    """Of the server after SIGTERM; None where it had to be killed."""


class Clients(processes.Process):
    """A crowd in a process of its own."""

    def __init__(self, crowd: Crowd) -> None:
        super().__init__("service.soak.clients", json.dumps(asdict(crowd)))

    def hear(self) -> object:
        """Its next line. Raises StartupError where it ends instead."""
        line = self.process.stdout.readline()
        if not line:
            raise StartupError("\n".join(["a crowd of clients ended:", *self.logged()[-5:]]))
        return json.loads(line)

    def tallies(self, command: str) -> list[Tally]:
        """What it says to `report` or `end`."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return [Tally(**each) for each in self.hear()]


class _Watch:
    """Samples of the server, once a second, in a thread of its own."""

    def __init__(self, server: processes.Server, samples: list[Sample]) -> None:
        self._server, self._samples = server, samples
        self._began_s = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def counts(self) -> tuple[int, int]:
        """Open streams, and sessions in memory."""
        url = f"http://127.0.0.1:{self._server.http_port}/metrics"
        with _DIRECT.open(url, timeout=60) as answer:
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines()]
        streams = sum(float(value) for name, _, value in lines if name.startswith("reppose_streams{"))
        sessions = sum(float(value) for name, _, value in lines if name == "reppose_sessions")
        return int(streams), int(sessions)

    def wait_for(self, wanted: tuple[int, int], seconds: float) -> tuple[tuple[int, int], float | None]:
        """What there is once it is no more than wanted, or when the time is over, and how long that took."""
        began_s = time.monotonic()
        while True:
            found, now_s = self.counts(), time.monotonic()
            if all(have <= want for have, want in zip(found, wanted, strict=True)):
                return found, now_s - began_s
            if now_s - began_s > seconds:
                return found, None
            time.sleep(0.2)

    def _run(self) -> None:
        proc = Path(f"/proc/{self._server.pid}")
        while not self._over.is_set():
            try:
                pages = int((proc / "statm").read_text().split()[1])
                files = len(os.listdir(proc / "fd"))
                at_s = time.monotonic() - self._began_s
                self._samples.append(
                    Sample(at_s, pages * os.sysconf("SC_PAGESIZE") / 2**20, files, *self.counts())
                )
            except OSError:  # it has ended
                return
            self._over.wait(SAMPLE_S)


def run(plan: Plan, say: Callable[[str], None]) -> Found:
    """Do it; `say` is told how far it is.

    Raises:
        StartupError: the server or a crowd cannot be started, or ends.
        InvalidRequest: there are no clips.
    """
    found = Found(plan)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        shown = frames.write(folder, plan.clips)
        environment = {
            "REPPOSE_STREAMS__IDLE_S": str(plan.expiry_s),
            "REPPOSE_SESSIONS__IDLE_S": str(plan.expiry_s),
            "REPPOSE_STREAMS__SAVE_S": str(plan.expiry_s / 3),
            "REPPOSE_STREAMS__COUNT": str(plan.streams),
            "REPPOSE_LOG__REQUESTS": "false",
        }
        server = stack.enter_context(processes.Server(plan.environment, environment=environment))
        crowds = [Clients(each) for each in _crowds(plan, server, shown)]
        for crowd in crowds:
            stack.enter_context(crowd)
            stack.callback(crowd.process.kill)  # one that is frozen ends in no other way
        for crowd in crowds:
            crowd.hear()
        say(f"{plan.streams} streams are open")
        with _Watch(server, found.samples) as watch:
            _load(plan, found, crowds, say)
            _vanish(plan, found, crowds, watch, say)
        server.process.send_signal(signal.SIGTERM)
        found.exit_code = server.process.wait(processes.STOP_S)
    return found


def _crowds(plan: Plan, server: processes.Server, shown: Sequence[Path]) -> list[Crowd]:
    """Half of the streams stay, a quarter is frozen, a quarter killed."""
    members = [
        Member(f"soak-{number}", MIX[number // 4 % len(MIX)], str(shown[number % len(shown)]))
        for number in range(plan.streams)
    ]
    parts = members[0::4] + members[1::4], members[2::4], members[3::4]
    return [Crowd(server.http_port, server.grpc_port, plan.rate_hz, part) for part in parts if part]


def _load(plan: Plan, found: Found, crowds: Sequence[Clients], say: Callable[[str], None]) -> None:
    time.sleep(plan.seconds * WARM_UP)
    began_s = time.monotonic()
    while (left_s := began_s + plan.seconds * (1 - WARM_UP) - time.monotonic()) > 0:
        time.sleep(min(60.0, left_s))
        if found.samples:
            last = found.samples[-1]
            say(f"{last.at_s:.0f} s: {last.resident_mb:.1f} MB, {last.sessions} sessions")
    found.window_s = began_s, time.monotonic()
    for crowd in crowds:
        found.tallies += crowd.tallies("report")
        found.stayed = found.stayed or len(found.tallies)


def _vanish(
    plan: Plan, found: Found, crowds: Sequence[Clients], watch: _Watch, say: Callable[[str], None]
) -> None:
    stay, *others = crowds
    staying = found.tallies[: found.stayed]
    expected = sum(each.kind != "http" for each in staying), len(staying)
    found.before, found.expected = watch.counts(), expected
    for crowd, way in zip(others, (signal.SIGSTOP, signal.SIGKILL), strict=False):
        crowd.process.send_signal(way)
    say(f"{len(found.tallies) - found.stayed} of {len(found.tallies)} clients have vanished")
    patience_s = 2 * plan.expiry_s + PATIENCE_S
    found.after, found.gone_s = watch.wait_for(expected, patience_s)
    found.tallies[: found.stayed] = stay.tallies("end")
    say("the others have ended")
    found.last, _ = watch.wait_for((0, 0), patience_s)
