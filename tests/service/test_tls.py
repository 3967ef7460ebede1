"""TLS and certificates of clients, over both protocols, on real sockets."""

from __future__ import annotations

import re
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import probe, tls
from service.client import Client, ClientError, credentials
from service.pb.reppose.v1 import pose_pb2 as pb
from service.pb.reppose.v1.pose_pb2_grpc import PoseServiceStub
from tests.service import serving
from tests.service.certificates import Authority, Pair
from tests.service.conftest import Scene

WAIT_S = 30.0


@dataclass(frozen=True)
class Estate:
    """An authority, a stranger, and the files of one service."""

    ours: Authority
    stranger: Authority
    folder: Path
    environment: dict[str, str]

    def show(self, pair: Pair) -> None:
        """Put another pair in the place of the service's."""
        pair.write(self.folder, "server")


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    ours = Authority()
    certificate, key = ours.issue().write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(ours.pem)
    environment = {
        "REPPOSE_TLS__CERTIFICATE": str(certificate),
        "REPPOSE_TLS__KEY": str(key),
        "REPPOSE_TLS__REREAD_S": "0.1",
        "REPPOSE_BATCH__WORKERS": "1",
    }
    return Estate(ours, Authority("stranger"), tmp_path, environment)


def asking(estate: Estate, how: str) -> dict[str, str]:
    return estate.environment | {
        "REPPOSE_TLS__CLIENT_CA": str(estate.folder / "ca.crt"),
        "REPPOSE_TLS__CLIENT_CERTIFICATES": how,
    }


def https(service: serving.Service) -> tuple[str, int]:
    return "127.0.0.1", service.wait_for("listening")["http_port"]


def trusting(authority: Authority, client: Pair | None = None, folder: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if client is not None:
        context.load_cert_chain(*client.write(folder, "client"))
    return context


def http_status(service: serving.Service, context: ssl.SSLContext) -> int:
    host, port = https(service)
    with httpx.Client(verify=context, trust_env=False, timeout=WAIT_S) as client:
        return client.get(f"https://{host}:{port}/healthz/ready").status_code


def grpc_channel(service: serving.Service, trusted: bytes, client: Pair | None = None) -> grpc.Channel:
    shown = (client.key, client.certificate) if client else (None, None)
    return grpc.secure_channel(service.target, grpc.ssl_channel_credentials(trusted, *shown))


def grpc_model(channel: grpc.Channel, scene: Scene) -> str:
    return PoseServiceStub(channel).Estimate(pb.EstimateRequest(image=scene.png), timeout=WAIT_S).model


def grpc_failure(channel: grpc.Channel, scene: Scene) -> grpc.StatusCode:
    with channel, pytest.raises(grpc.RpcError) as error:
        grpc_model(channel, scene)
    return error.value.code()


def shown_over_http(service: serving.Service) -> bytes:
    """The certificate, in DER, of a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(https(service), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        return encrypted.getpeercert(binary_form=True)


def shown_over_grpc(service: serving.Service) -> bytes:
    host, port = service.target.split(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)), timeout=WAIT_S))


def wait_until(told: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_both_protocols_are_encrypted_and_plain_is_refused(
    estate: Estate, tiny_bundle_root: Path, scene: Scene
) -> None:
    with serving.running(tiny_bundle_root, **estate.environment) as service:
        assert service.wait_for("listening")["http"].startswith("https://")
        assert http_status(service, trusting(estate.ours)) == 200
        with grpc_channel(service, estate.ours.pem) as channel:
            assert grpc_model(channel, scene) == "tiny"

        host, port = https(service)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{host}:{port}/healthz/ready", trust_env=False, timeout=WAIT_S)
        assert grpc_failure(grpc.insecure_channel(service.target), scene) is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            http_status(service, trusting(estate.stranger))
        assert grpc_failure(grpc_channel(service, estate.stranger.pem), scene) is grpc.StatusCode.UNAVAILABLE
        assert http_status(service, trusting(estate.ours)) == 200
    assert all(isinstance(line, dict) for line in service.lines), service.text


@pytest.mark.parametrize("port_of", ["http_port", "grpc_port"])
def test_old_versions_are_refused(port_of: str, estate: Estate, tiny_bundle_root: Path) -> None:
    def version(most: ssl.TLSVersion) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")  # else it is this side that refuses
        context.set_alpn_protocols(["h2"] if port_of == "grpc_port" else [])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = most
        with (
            socket.create_connection(("127.0.0.1", port), WAIT_S) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            return encrypted.version()

    with serving.running(tiny_bundle_root, **estate.environment) as service:
        port = service.wait_for("listening")[port_of]
        assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            version(ssl.TLSVersion.TLSv1_1)


def test_clients_must_show_a_certificate_of_ours(
    estate: Estate, tiny_bundle_root: Path, scene: Scene
) -> None:
    member, other = estate.ours.issue("member"), estate.stranger.issue("other")
    with serving.running(tiny_bundle_root, **asking(estate, "required")) as service:
        for pair in (None, other):
            with pytest.raises(httpx.TransportError):
                http_status(service, trusting(estate.ours, pair, estate.folder))
            channel = grpc_channel(service, estate.ours.pem, pair)
            assert grpc_failure(channel, scene) is grpc.StatusCode.UNAVAILABLE
        assert http_status(service, trusting(estate.ours, member, estate.folder)) == 200
        with grpc_channel(service, estate.ours.pem, member) as channel:
            assert grpc_model(channel, scene) == "tiny"


def test_clients_may_show_a_certificate_but_no_strange_one(estate: Estate, tiny_bundle_root: Path) -> None:
    member, other = estate.ours.issue("member"), estate.stranger.issue("other")
    with serving.running(tiny_bundle_root, **asking(estate, "optional")) as service:
        for pair in (None, member):
            assert http_status(service, trusting(estate.ours, pair, estate.folder)) == 200
        with pytest.raises(httpx.TransportError):
            http_status(service, trusting(estate.ours, other, estate.folder))


def test_a_new_pair_is_shown_without_a_restart_and_open_connections_live_on(
    estate: Estate, tiny_bundle_root: Path, scene: Scene
) -> None:
    first, second = estate.ours.issue(), estate.ours.issue(ends=datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC))
    estate.show(first)
    with serving.running(tiny_bundle_root, **estate.environment) as service, connected(
        service, estate
    ) as client, grpc_channel(service, estate.ours.pem) as channel:  # fmt: skip
        frames = iter([pb.EstimateStreamRequest(sequence=0, frame=pb.EstimateRequest(image=scene.png))])
        assert client.get("/healthz/ready").status_code == 200
        connection = client.get("/metrics").extensions["network_stream"].get_extra_info("socket")
        began = connection.getsockname()
        assert grpc_model(channel, scene) == "tiny"
        assert shown_over_http(service) == shown_over_grpc(service) == first.der

        estate.show(second)
        service.wait_for("certificates read")
        wait_until(lambda: shown_over_http(service) == second.der)
        assert shown_over_grpc(service) == second.der
        answer = client.get("/metrics")
        assert answer.extensions["network_stream"].get_extra_info("socket").getsockname() == began
        told = re.search("^reppose_tls_certificate_expiry_timestamp_seconds (.*)$", answer.text, re.MULTILINE)
        assert float(told[1]) == datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()
        assert 'reppose_tls_certificate_rereads_total{outcome="ok"} 1.0' in answer.text
        assert (
            next(PoseServiceStub(channel).EstimateStream(frames, timeout=WAIT_S)).prediction.model == "tiny"
        )


@contextmanager
def connected(service: serving.Service, estate: Estate) -> Iterator[httpx.Client]:
    host, port = https(service)
    with httpx.Client(
        base_url=f"https://{host}:{port}", verify=trusting(estate.ours), trust_env=False, timeout=WAIT_S
    ) as client:
        yield client


def test_a_bad_pair_changes_nothing(estate: Estate, tiny_bundle_root: Path) -> None:
    first, second = estate.ours.issue(), estate.ours.issue()
    estate.show(first)
    with serving.running(tiny_bundle_root, **estate.environment) as service:
        (estate.folder / "server.crt").write_bytes(second.certificate)  # the key is still the first's
        why = service.wait_for("certificates not read, those before stay")["why"]
        assert "key values mismatch" in why
        assert str(estate.folder / "server.crt") in why
        assert shown_over_http(service) == shown_over_grpc(service) == first.der
        (estate.folder / "server.key").write_bytes(second.key)
        service.wait_for("certificates read")
        assert shown_over_http(service) == shown_over_grpc(service) == second.der
        (estate.folder / "server.crt").unlink()
        wait_until(lambda: sum(line["message"].startswith("certificates not") for line in service.lines) > 1)
        assert shown_over_http(service) == second.der
    assert "PRIVATE" not in service.text


def test_another_authority_of_clients_shuts_out_those_of_the_old_one(
    estate: Estate, tiny_bundle_root: Path, scene: Scene
) -> None:
    """Also where a client tries to go on with the session of an earlier connection, which TLS would not check again."""
    member, other = estate.ours.issue("member"), estate.stranger.issue("other")
    with serving.running(tiny_bundle_root, **asking(estate, "required")) as service:
        older = trusting(estate.ours, member, estate.folder)
        older.maximum_version = ssl.TLSVersion.TLSv1_2  # whose sessions a server remembers by itself
        with pytest.raises((ssl.SSLError, ConnectionError)):
            tls_session(service, older)
        context = trusting(estate.ours, member, estate.folder)
        session = tls_session(service, context)
        (estate.folder / "ca.crt").write_bytes(estate.stranger.pem)
        service.wait_for("certificates read")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            tls_session(service, context, session)
        with pytest.raises(httpx.TransportError):
            http_status(service, trusting(estate.ours, member, estate.folder))
        channel = grpc_channel(service, estate.ours.pem, member)
        assert grpc_failure(channel, scene) is grpc.StatusCode.UNAVAILABLE
        assert http_status(service, trusting(estate.ours, other, estate.folder)) == 200
        with grpc_channel(service, estate.ours.pem, other) as channel:
            assert grpc_model(channel, scene) == "tiny"


def tls_session(
    service: serving.Service, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSession | None:
    """That of a connection over which something was answered."""
    with (
        socket.create_connection(https(service), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as encrypted,
    ):
        encrypted.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not (answer := encrypted.recv(9)):  # how version 1.3 may tell that a certificate will not do
            raise ConnectionResetError
        assert answer == b"HTTP/1.1 "
        return encrypted.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_of_grpc_outlives_the_authority_of_its_client(
    version: ssl.TLSVersion, estate: Estate, tiny_bundle_root: Path
) -> None:
    with serving.running(tiny_bundle_root, **asking(estate, "required")) as service:
        context = trusting(estate.ours, estate.ours.issue("member"), estate.folder)
        context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        session = http2_session(service, context)
        http2_session(service, context, session)
        (estate.folder / "ca.crt").write_bytes(estate.stranger.pem)
        service.wait_for("certificates read")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            http2_session(service, context, session)


def http2_session(
    service: serving.Service, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSession | None:
    """That of a connection over which the two have greeted each other."""
    address = "127.0.0.1", service.wait_for("listening")["grpc_port"]
    with (
        socket.create_connection(address, WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as encrypted,
    ):
        encrypted.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        acknowledged = b"\x04\x01" + bytes(4)  # our settings: the server has let us in
        received = b""
        while acknowledged not in received:
            if not (more := encrypted.recv(4096)):
                raise ConnectionResetError
            received += more
        return encrypted.session


@pytest.mark.parametrize("how", ["plain", "encrypted", "with a certificate"])
def test_the_health_probe_finds_the_service_ready(how: str, estate: Estate, tiny_bundle_root: Path) -> None:
    environment = {"plain": {}, "encrypted": estate.environment}.get(how, asking(estate, "required"))
    if how == "with a certificate":
        pair = estate.ours.issue("probe")
        (estate.folder / "probe.pem").write_bytes(pair.certificate + pair.key)
        environment |= {"REPPOSE_TLS__PROBE_CERTIFICATE": str(estate.folder / "probe.pem")}
    with serving.running(tiny_bundle_root, **environment) as service:
        asked = environment | {"REPPOSE_HTTP__PORT": str(service.wait_for("listening")["http_port"])}
        assert probe.main(asked) == 0
        if how == "with a certificate":
            del asked["REPPOSE_TLS__PROBE_CERTIFICATE"]
            assert probe.main(asked) == 1
        file = estate.folder / "reppose.toml"
        file.write_text(f"[tls]\ncertificate = '{environment.get('REPPOSE_TLS__CERTIFICATE', '')}'")
        from_file = {"REPPOSE_CONFIG": str(file), "REPPOSE_HTTP__PORT": asked["REPPOSE_HTTP__PORT"]}
        assert probe.main(from_file) == (1 if how == "with a certificate" else 0)


def test_the_client_speaks_tls_and_shows_a_certificate(
    estate: Estate, tiny_bundle_root: Path, scene: Scene
) -> None:
    member, ca = estate.ours.issue("member"), estate.folder / "ca.crt"
    shown = estate.folder / "member.pem"
    shown.write_bytes(member.certificate + member.key)
    (estate.folder / "stranger.crt").write_bytes(estate.stranger.pem)
    with serving.running(tiny_bundle_root, **asking(estate, "required")) as service:
        with Client(service.target, credentials=credentials(ca, shown)) as client:
            assert client.estimate(scene.png).model == "tiny@2"
        for wrong in (credentials(ca), credentials(estate.folder / "stranger.crt", shown), credentials()):
            with Client(service.target, credentials=wrong) as client, pytest.raises(ClientError):
                client.estimate(scene.png, timeout_s=WAIT_S)


def test_the_client_says_what_is_wrong_with_its_files(estate: Estate) -> None:
    with pytest.raises(ValueError, match=r"server\.crt holds no private key"):
        credentials(certificate=estate.folder / "server.crt")
    with pytest.raises(ValueError, match=r"server\.key holds no certificate"):
        credentials(ca=estate.folder / "server.key")
    with pytest.raises(FileNotFoundError):
        credentials(ca=estate.folder / "nowhere.crt")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda estate: (estate.folder / "server.key").unlink(), "cannot read"),
        (lambda estate: (estate.folder / "server.crt").write_bytes(b"garbage"), "no certificate in PEM"),
        (lambda estate: (estate.folder / "server.crt").write_bytes(estate.stranger.pem), "mismatch"),
    ],
)
def test_bad_files_end_the_start_in_one_line(
    change: Callable[[Estate], None], told: str, estate: Estate, tiny_bundle_root: Path
) -> None:
    change(estate)
    service = serving.Service(tiny_bundle_root, **estate.environment)
    assert service.ended() == 1
    assert told in service.text
    assert "Traceback" not in service.text


@pytest.mark.parametrize("year", [1951, 1999, 2026, 2049, 2050, 2051, 9999])
def test_the_end_of_a_certificate_is_what_cryptography_says(year: int, tmp_path: Path) -> None:
    ends = datetime(year, 12, 31, 23, 59, 58, tzinfo=UTC)
    pair = Authority().issue(ends=ends)
    assert tls.not_after(pair.der) == ends.timestamp()
    later = Authority().issue(ends=datetime(9999, 12, 31, tzinfo=UTC))
    path = tmp_path / "chain.pem"
    path.write_bytes(b"# chain\n" + later.certificate + pair.certificate)
    assert tls.expiry(path) == min(ends, datetime(9999, 12, 31, tzinfo=UTC)).timestamp()


_DER = Authority().issue().der


@given(st.integers(0, len(_DER) - 1), st.binary(max_size=8), st.integers(0, 8))
def test_whatever_a_certificate_holds_is_read_or_refused(at: int, put: bytes, cut: int) -> None:
    try:
        found = tls.not_after(_DER[:at] + put + _DER[at + cut :])
    except ValueError:
        return
    assert isinstance(found, float)
