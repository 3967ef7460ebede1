"""A real service in a process of its own, on real sockets."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

START_S = 60.0


class Service:
    """One process of `python -m service`. Its environment holds no setting but those given."""

    def __init__(self, root: Path | str, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("REPPOSE_")}
        given = {
            "REPPOSE_MODELS__ROOTS": str(root),
            "REPPOSE_MODELS__DEFAULT": "tiny",
            "REPPOSE_HTTP__PORT": "0",
            "REPPOSE_GRPC__PORT": "0",
            "REPPOSE_BATCH__PIN": "off",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=clean | given | environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.lines: list[dict[str, Any] | str] = []
        self._new: queue.Queue[dict[str, Any] | str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        """Of the REST service."""
        return f"http://127.0.0.1:{self.wait_for('listening')['http_port']}"

    @property
    def target(self) -> str:
        """Of the gRPC service."""
        return f"127.0.0.1:{self.wait_for('listening')['grpc_port']}"

    @property
    def text(self) -> str:
        """Everything written to stderr so far."""
        return "\n".join(line if isinstance(line, str) else json.dumps(line) for line in self.lines)

    def wait_for(self, message: str, **facts: Any) -> dict[str, Any]:
        """The first log line with this message and these facts; fails if the process ends before it."""
        deadline = time.monotonic() + START_S
        while True:
            for line in list(self.lines):
                if isinstance(line, dict) and line["message"] == message and facts.items() <= line.items():
                    return line
            if self._new.get(timeout=max(0.0, deadline - time.monotonic())) is None:
                raise AssertionError(f"the service ended without {message!r}:\n{self.text}")

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Send the signal that asks for an orderly end."""
        self.process.send_signal(number)

    def ended(self, timeout_s: float = 30.0) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def _read(self) -> None:
        with self.process.stderr as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = text.rstrip()
                self.lines.append(line)
                self._new.put(line)
        self._new.put(None)


@contextmanager
def running(root: Path | str, **environment: str) -> Iterator[Service]:
    """A service that is ready; it must end well when it is asked to."""
    service = Service(root, **environment)
    try:
        service.wait_for("ready")
        yield service
        service.terminate()
        assert service.ended() == 0, service.text
    finally:
        service.process.kill()
        service.ended()


def post(service: Service, data: bytes, *, media: str = "image/png", **query: Any) -> httpx.Response:
    """POST an image."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        headers = {"Content-Type": media}
        return client.post(f"{service.url}/v1/pose", content=data, params=query, headers=headers)


def get(service: Service, path: str) -> httpx.Response:
    """GET a path."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.get(f"{service.url}{path}")
