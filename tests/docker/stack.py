"""The compose project in containers of its own, on free ports, and what asks it for poses."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests.docker import standins

PROJECT = "reppose-test"
PORTS = ("HTTP_PORT", "GRPC_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "ENVOY_HTTP_PORT", "ENVOY_GRPC_PORT")
REPLICAS = ("replica-1", "replica-2")
SERVICES = ("service", "prometheus", "redis", "envoy", *REPLICAS)
PATIENCE_S = 60.0


def free_ports() -> dict[str, int]:
    """A free port for each of PORTS."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = {name: each.getsockname()[1] for name, each in zip(PORTS, free, strict=True)}
    for each in free:
        each.close()
    return ports


class Stack:
    """What docker-compose.yml describes; Grafana is left out, which has no stand-in."""

    def __init__(self) -> None:
        self.ports = free_ports()
        os.environ |= {name: str(port) for name, port in self.ports.items()}

    def compose(self, *command: str, check: bool = True) -> str:
        """Run docker-compose on the project."""
        words = ("docker-compose", "--project-name", PROJECT, "--profile", "scale", *command)
        return standins.run(*words, check=check).stdout

    def up(self) -> None:
        """Start everything and wait until Envoy answers for the replicas."""
        self.compose("up", "--detach", "--no-build", *SERVICES)
        self.await_replicas(2)

    def down(self) -> None:
        """Remove everything."""
        self.compose("down", "--volumes", "--timeout", "10", check=False)

    def container(self, service: str) -> str:
        """Its id."""
        return self.compose("ps", "--quiet", service).strip()

    def state(self, service: str) -> dict[str, Any]:
        """What the engine says of its container."""
        return json.loads(standins.run("docker", "inspect", self.container(service)).stdout)[0]["State"]

    def url(self, port: str) -> str:
        """Of a published HTTP port."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def channel(self, port: str) -> grpc.Channel:
        """To a published gRPC port, over a connection of its own."""
        return grpc.insecure_channel(
            f"127.0.0.1:{self.ports[port]}", options=(("grpc.use_local_subchannel_pool", 1),)
        )

    def replicas_seen(self, prefix: str) -> dict[str, dict[str, set[str]]]:
        """By session of this prefix, which replicas answered it, by protocol; from Envoy's access log."""
        seen: dict[str, dict[str, set[str]]] = {}
        for line in standins.run("docker", "logs", self.container("envoy")).stdout.splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            if (entry.get("session") or "").startswith(prefix):
                protocol = "grpc" if entry["path"].startswith("/reppose.v1") else "http"
                seen.setdefault(entry["session"], {}).setdefault(protocol, set()).add(entry["replica"])
        return seen

    def await_replicas(self, count: int) -> None:
        """Wait until requests without a session reach this many replicas."""
        deadline = time.monotonic() + PATIENCE_S
        with httpx.Client(trust_env=False, timeout=5) as client:
            while time.monotonic() < deadline:
                ready = self.ready_in_envoy(client)
                if ready >= count:
                    return
                time.sleep(0.5)
        raise AssertionError(f"Envoy sees {ready} of {count} replicas\n{self.compose('ps')}")

    def ready_in_envoy(self, client: httpx.Client) -> int:
        """Replicas that Envoy holds for healthy in both clusters."""
        code = (
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9901/clusters').read().decode())"
        )
        done = standins.run("docker", "exec", self.container("envoy"), "python", "-c", code, check=False)
        lines = [line for line in done.stdout.splitlines() if "::health_flags::" in line]
        healthy = [line.split("::")[0] for line in lines if line.endswith("::healthy")]
        return min(healthy.count("http"), healthy.count("grpc"))


@dataclass
class Load:
    """Requests over both protocols from many threads, until told to stop. One request of each thread at a time.

    No client tries again by itself: what fails here failed for good.
    """

    stack: Stack
    picture: bytes
    threads: int = 4
    answered: int = 0
    failures: list[tuple[float, float, str]] = field(default_factory=list)
    """(begin, end, what) by `time.monotonic`."""

    def __enter__(self) -> Load:
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._running = [
            threading.Thread(target=work, args=(number,))
            for work in (self._http, self._grpc)
            for number in range(self.threads)
        ]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()

    def await_answers(self, count: int) -> None:
        """Wait until this many more were answered."""
        goal, deadline = self.answered + count, time.monotonic() + PATIENCE_S
        while self.answered < goal:
            assert time.monotonic() < deadline, f"{self.answered} of {goal}: {self.failures[-3:]}"
            time.sleep(0.05)

    def _note(self, begun: float, failure: str | None) -> None:
        with self._lock:
            if failure is None:
                self.answered += 1
            else:
                self.failures.append((begun, time.monotonic(), failure))

    def _http(self, number: int) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            count = 0
            while not self._stop.is_set():
                count += 1
                headers = {"Content-Type": "image/jpeg", "x-session-id": f"load-{number}-{count % 7}"}
                begun = time.monotonic()
                try:
                    answer = client.post(
                        f"{self.stack.url('ENVOY_HTTP_PORT')}/v1/pose", content=self.picture, headers=headers
                    )
                    failure = (
                        None if answer.status_code == 200 else f"http {answer.status_code} {answer.text}"
                    )
                except httpx.HTTPError as error:
                    failure = f"http {error!r}"
                self._note(begun, failure)

    def _grpc(self, number: int) -> None:
        with self.stack.channel("ENVOY_GRPC_PORT") as channel:
            stub, count = pose_pb2_grpc.PoseServiceStub(channel), 0
            while not self._stop.is_set():
                count += 1
                begun, failure = time.monotonic(), None
                try:
                    metadata = (("x-session-id", f"load-{number}-{count % 7}"),)
                    stub.Estimate(pb.EstimateRequest(image=self.picture), timeout=30, metadata=metadata)
                except grpc.RpcError as error:
                    failure = f"grpc {error.code()} {error.details()}"
                self._note(begun, failure)
