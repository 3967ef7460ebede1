"""The secure variant of the compose project, for real: keys, TLS, and a Prometheus that has a key."""

from __future__ import annotations

import os
import shutil
import ssl
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import httpx
import pytest

from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1 import pose_pb2_grpc
from tests import tiny_model
from tests.docker import standins
from tests.docker.stack import PATIENCE_S, PORTS, free_ports
from tests.docker.test_containers import image  # noqa: F401
from tests.ops.tools import ROOT
from tests.service.certificates import NOW, Authority

pytestmark = pytest.mark.docker

PROJECT = "reppose-secure"
FILES = ("--file", "docker-compose.yml", "--file", "docker/compose.secure.yml")


class Secure:
    """A copy of the project with secrets of its own, so that those of the working tree stay as they are."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, free_ports()
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "docker", folder / "docker", ignore=shutil.ignore_patterns("secrets"))
        self._secrets = folder / "docker/secrets"
        standins.run(sys.executable, str(folder / "docker/make_secrets.py"))
        (self._secrets / "metrics_key").write_text(self.key("prometheus", "metrics"))
        self.mine = self.key("me", "predict")
        self.authority = Authority()
        made = self.authority.issue("service", NOW + timedelta(days=5), hosts=("service", "localhost"))
        (self._secrets / "tls_certificate").write_bytes(made.certificate + self.authority.pem)
        (self._secrets / "tls_key").write_bytes(made.key)
        for path in self._secrets.iterdir():
            path.chmod(0o644)

    def key(self, name: str, role: str) -> str:
        """A new one, in the file of keys."""
        command = (sys.executable, "-m", "service", "key", name, "--role", role)
        return standins.run(*command, "--file", str(self._secrets / "keys")).stdout.strip()

    def compose(self, *command: str, check: bool = True) -> str:
        """Run docker-compose on the copy."""
        words = ("docker-compose", "--project-name", PROJECT, "--project-directory", str(self.folder))
        files = (str(self.folder / each) if each.endswith(".yml") else each for each in FILES)
        return standins.run(*words, *files, *command, check=check).stdout

    def url(self, scheme: str, port: str) -> str:
        """Of a published port."""
        return f"{scheme}://localhost:{self.ports[port]}"


@pytest.fixture(scope="module")
def secure(image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:  # noqa: F811
    """The service and Prometheus, up and healthy."""
    standins.prometheus()
    project = Secure(tmp_path_factory.mktemp("secure"))
    os.environ |= {name: str(port) for name, port in project.ports.items()}
    project.compose("down", "--volumes", check=False)
    try:
        project.compose(
            "up", "--detach", "--no-build", "service", "prometheus"
        )  # waits until the service is healthy
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "10", check=False)
        for name in PORTS:
            os.environ.pop(name, None)


def test_who_has_a_key_is_answered_over_tls(secure: Secure) -> None:
    picture = tiny_model.encode(tiny_model.paint((64, 48), radius=1), "JPEG")
    trusted = ssl.create_default_context(cadata=secure.authority.pem.decode())
    with httpx.Client(base_url=secure.url("https", "HTTP_PORT"), verify=trusted, trust_env=False) as client:
        sent = {"content": picture, "headers": {"Content-Type": "image/jpeg"}}
        assert client.post("/v1/pose", **sent).status_code == 401
        sent["headers"] |= {"Authorization": f"Bearer {secure.mine}"}
        assert client.post("/v1/pose", **sent).status_code == 200
        assert client.get("/metrics", headers=sent["headers"]).status_code == 403
    with grpc.secure_channel(
        f"localhost:{secure.ports['GRPC_PORT']}", grpc.ssl_channel_credentials(secure.authority.pem)
    ) as channel:
        stub = pose_pb2_grpc.PoseServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Estimate(pb.EstimateRequest(image=picture), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        credential = (("authorization", f"Bearer {secure.mine}"),)
        assert stub.Estimate(pb.EstimateRequest(image=picture), timeout=30, metadata=credential).poses
    with pytest.raises(httpx.TransportError):
        httpx.get(secure.url("http", "HTTP_PORT"), trust_env=False)


def test_prometheus_scrapes_it(secure: Secure) -> None:
    deadline = time.monotonic() + PATIENCE_S
    query = {"query": 'reppose_ready{job="reppose",instance="service"}'}
    while True:
        answer = httpx.get(
            secure.url("http", "PROMETHEUS_PORT") + "/api/v1/query", params=query, trust_env=False
        )
        if found := answer.json()["data"]["result"]:
            assert found[0]["value"][1] == "1"
            return
        assert time.monotonic() < deadline, secure.compose("logs", "prometheus")
        time.sleep(1)


def test_the_container_says_of_itself_that_all_is_well(secure: Secure) -> None:
    command = ("exec", "-T", "-e", "REPPOSE_HTTP__PORT=0", "-e", "REPPOSE_GRPC__PORT=0", "service")
    said = secure.compose(*command, "reppose-serve", "doctor")
    assert "keys in /run/secrets/keys: 2" in said
    assert "warning  certificate" in said
    assert "0 failed" in said
