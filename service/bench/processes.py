"""The processes of a run: a server, the bare loop, the client."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from service.bench import peers
from service.bench.load import Load, Outcome
from service.bench.loop import Measured, Pass, Setting
from service.errors import StartupError

START_S = 120.0
"""Longest time until a server is ready; verifying and warming up take a few seconds."""
STOP_S = 30.0
_LAST_LINES = 5
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Process:
    """A Python module in a process of its own, which ends with the `with` block, and so does all that it started.

    Args:
        module: its name.
        arguments: of the command line.
        environment: variables beside the inherited ones.
        inherited: variables; this process's own where left out.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        inherited: Mapping[str, str] | None = None,
    ) -> None:
        # a pipe would have to be read, by somebody's processor time
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**(os.environ if inherited is None else inherited), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with suppress(ProcessLookupError):  # LitServe leaves its workers behind
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.stdout.close()
        self._log.close()

    def logged(self) -> list[str]:
        """The lines on stderr so far."""
        end = self._log.seek(0, os.SEEK_END)
        return os.pread(self._log.fileno(), end, 0).decode(errors="replace").splitlines()

    def exchange(self, question: object) -> Any:
        """One line of JSON there, one back. Raises StartupError where the process ends instead."""
        try:
            self.process.stdin.write(json.dumps(asdict(question)) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise StartupError("\n".join(["a process of the bench ended:", *self.logged()[-_LAST_LINES:]]))
        return json.loads(answer)

    def wait_for(self, message: str) -> dict[str, Any]:
        """The log line in JSON with this message. Raises StartupError where it does not come."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            for line in self.logged():
                if line.startswith("{") and (fields := json.loads(line)).get("message") == message:
                    return fields
            if ended:
                break
            time.sleep(0.05)
        raise StartupError("\n".join(["the server did not start:", *self.logged()[-_LAST_LINES:]]))


class Server(Process):
    """The service on free ports.

    Args:
        inherited: all of its variables but for these, see `settings.passing`.
        precision: of the net; None for what the settings say.
        environment: further settings.
    """

    def __init__(
        self,
        inherited: Mapping[str, str],
        precision: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        chosen = {} if precision is None else {"REPPOSE_MODELS__PRECISION": precision}
        super().__init__(
            "service",
            inherited=inherited,
            environment={
                "REPPOSE_HTTP__HOST": "127.0.0.1",
                "REPPOSE_GRPC__HOST": "127.0.0.1",
                "REPPOSE_HTTP__PORT": "0",
                "REPPOSE_GRPC__PORT": "0",
                "REPPOSE_LOG__FORMAT": "json",
                "REPPOSE_LOG__LEVEL": "info",
                **chosen,
                **(environment or {}),
            },
        )

    def __enter__(self) -> Self:
        try:
            listening = self.wait_for("listening")
            self.wait_for("ready")
        except StartupError:
            self.__exit__(None, None, None)
            raise
        self.http_port, self.grpc_port = listening["http_port"], listening["grpc_port"]
        return self

    def batches(self) -> tuple[float, float]:
        """How many calls of the model there were, and how many crops in them."""
        with _DIRECT.open(f"http://127.0.0.1:{self.http_port}/metrics", timeout=START_S) as answer:
            lines = answer.read().decode().splitlines()
        calls, crops = (
            sum(
                float(line.rpartition(" ")[2])
                for line in lines
                if line.startswith(f"reppose_batch_crops_{end}")
            )
            for end in ("count{", "sum{")
        )
        return calls, crops


class PeerServer(Process):
    """Another server."""

    def __init__(self, name: str, setting: peers.Setting) -> None:
        super().__init__(f"service.bench.peers.{name}", environment=setting.environment)
        self.http_port = setting.port

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.http_port), timeout=1):
                return self  # its workers may still load: the first row waits for an answer, see `load`
            time.sleep(0.1)
        self.__exit__(None, None, None)
        raise StartupError("the peer did not start")

    def batches(self) -> tuple[float, float]:
        """Not known."""
        return 0.0, 0.0


class Loop(Process):
    """The bare loop."""

    def __init__(self, setting: Setting) -> None:
        super().__init__("service.bench.loop", json.dumps(asdict(setting)))

    def measure(self, wanted: Pass) -> Measured:
        return Measured(**self.exchange(wanted))


class Client(Process):
    """The load generator."""

    def __init__(self) -> None:
        super().__init__("service.bench.load")

    def drive(self, load: Load) -> Outcome:
        return Outcome(**self.exchange(load))


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def write_pictures(folder: Path, contents: Sequence[bytes]) -> list[Path]:
    """One file for each."""
    paths = [folder / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths
