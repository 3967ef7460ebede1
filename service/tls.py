"""Certificates of both listeners: read at the start, and again when their files change, without a restart.

What is read is checked as a whole (the key belongs to the certificate, the authorities are some) before it is used, and
what is used is the same for both protocols. A pair that is broken changes nothing: the one before goes on, and the log
says why. Every handshake gets what is there when it begins, so that connections that are open live on.
"""

from __future__ import annotations

import contextlib
import math
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from service.changes import Watched
from service.errors import StartupError
from service.logs import facts, log

MOST_BYTES = 1024 * 1024
"""Longest file that is read."""
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0
_MOST_LENGTH_BYTES = 4


class BadCertificate(StartupError):
    """Files of certificates that cannot be read, or do not belong together."""


@dataclass(frozen=True)
class Paths:
    """Where the certificates are."""

    certificate: Path
    """PEM: the service's own and those between it and the root."""
    key: Path
    """PEM: its private key."""
    client_ca: Path | None = None
    """PEM: the authorities of clients; None asks clients for nothing."""
    client_required: bool = False
    """Whether a client without a certificate is refused."""

    @property
    def all(self) -> tuple[Path, ...]:
        """Those that there are."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)


@dataclass(frozen=True)
class Identity:
    """What the files held, all of it good together."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext
    expires_s: float
    """When the first of the service's certificates expires, in seconds since 1970."""


def expiry(path: Path) -> float:
    """When the first of the certificates of a PEM file expires, in seconds since 1970.

    Raises:
        BadCertificate: the file cannot be read, or holds no certificate.
    """
    return _expiry(_bytes_of(path), path)


def read(paths: Paths) -> Identity:
    """Everything that the files hold. Raises BadCertificate."""
    certificate, key = _bytes_of(paths.certificate), _bytes_of(paths.key)
    client_ca = None if paths.client_ca is None else _bytes_of(paths.client_ca)
    expires_s = _expiry(certificate, paths.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # OpenSSL takes files only. What was read before must be what is loaded: the files may change in between.
        with _in_memory(certificate) as certificate_file, _in_memory(key) as key_file:
            context.load_cert_chain(certificate_file, key_file, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise BadCertificate(
            f"{paths.certificate} and {paths.key} are no certificate and its key: {_reason(error)}"
        ) from None
    if client_ca is not None:
        _ask_clients(context, client_ca, paths)
    return Identity(certificate, key, client_ca, context, expires_s)


def _ask_clients(context: ssl.SSLContext, client_ca: bytes, paths: Paths) -> None:
    try:
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise BadCertificate(f"{paths.client_ca} holds no authorities: {_reason(error)}") from None
    context.verify_mode = ssl.CERT_REQUIRED if paths.client_required else ssl.CERT_OPTIONAL
    # A session that is resumed would let a client in again whose authority is no longer among these. Without tickets
    # version 1.3 has none, while version 1.2 would still find it in a cache that Python cannot switch off.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


class Certificates:
    """What both listeners show, and ask for.

    Args:
        paths: the files.
        every_s: how often to look whether one of them has changed.

    Raises:
        BadCertificate: they cannot be read, or do not belong together.
    """

    def __init__(self, paths: Paths, every_s: float = 2.0) -> None:
        self._paths = paths
        self._heard: Callable[[str], None] = lambda outcome: None
        self._watched = Watched(paths.all, self.reread, every_s)
        self._identity = read(paths)
        self.context = self._identity.context
        """For the HTTP listener: good for ever, as it passes every handshake on to what was read last."""
        self.context.sni_callback = self._pass_on
        self.grpc_credentials = self._credentials()
        """For the gRPC listener, good for ever as well."""

    @property
    def expires_s(self) -> float:
        """When what is shown expires, in seconds since 1970."""
        return self._identity.expires_s

    def heard(self, listener: Callable[[str], None]) -> None:
        """Tell this `ok` or `failed` each time that the files were read again."""
        self._heard = listener

    def start(self) -> None:
        """Begin to look whether the files change."""
        self._watched.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._watched.stop()

    def reread(self) -> None:
        """Read the files again, changed or not; where they are broken all stays as it was, and the log says why."""
        self._watched.seen()
        try:
            self._identity = read(self._paths)
        except BadCertificate as error:
            log.error("certificates not read, those before stay", extra=facts(why=str(error)))
            self._heard("failed")
        else:
            log.info("certificates read", extra=facts(expires=_date(self.expires_s)))
            self._heard("ok")

    def _pass_on(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """OpenSSL calls this in every handshake, whether or not the client names a host."""
        connection.context = self._identity.context

    def _credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            _for_grpc(self._identity),
            lambda: _for_grpc(self._identity),
            require_client_authentication=self._paths.client_required,
        )


def _for_grpc(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key, identity.certificate)], identity.client_ca
    )


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadCertificate(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise BadCertificate(f"{path} is larger than {MOST_BYTES} bytes")
    return data


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """The path of a file that is on no disk."""
    file = os.memfd_create("reppose-tls", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.write(data)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)


def _no_password() -> str:
    """Else OpenSSL would ask for one on the terminal."""
    raise ValueError("the key has a password")


def _reason(error: Exception) -> str:
    return (
        (getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error))
        .lower()
        .replace("_", " ")
    )


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _expiry(pem: bytes, path: Path) -> float:
    """Raises BadCertificate."""
    blocks = pem.decode("ascii", "replace").split(_BEGIN)[1:]
    if not blocks:
        raise BadCertificate(f"{path} holds no certificate in PEM")
    first_s = math.inf
    for block in blocks:
        try:
            der = ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{block.partition(_END)[0]}{_END}")
            first_s = min(first_s, not_after(der))
        except ValueError as error:
            raise BadCertificate(f"{path} holds a broken certificate: {error}") from None
    return first_s


def not_after(der: bytes) -> float:
    """When a certificate expires, in seconds since 1970 (RFC 5280, section 4.1). Python's ssl does not tell.

    Raises:
        ValueError: it is no certificate.
    """
    certificate = _inside(memoryview(der), _SEQUENCE)
    fields = _inside(certificate, _SEQUENCE)
    tag, _, rest = _split(fields)
    if tag == _VERSION:
        fields = rest
    for _ in range(3):  # serial number, signature algorithm, issuer
        _, _, fields = _split(fields)
    _, _, after = _split(_inside(fields, _SEQUENCE))
    tag, text, _ = _split(after)
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(tag)
    if form is None:
        raise ValueError("no time where it should expire")
    stamp = bytes(text).decode("ascii")
    moment = datetime.strptime(stamp, form).replace(tzinfo=UTC)
    if tag == _UTC_TIME:  # two digits stand for 1950 to 2049 (RFC 5280, section 4.1.2.5.1)
        year = int(stamp[:2])
        moment = moment.replace(year=year + (1900 if year >= 50 else 2000))
    return moment.timestamp()


def _inside(data: memoryview, tag: int) -> memoryview:
    found, content, _ = _split(data)
    if found != tag:
        raise ValueError(f"tag {found:#x} in the place of {tag:#x}")
    return content


def _split(data: memoryview) -> tuple[int, memoryview, memoryview]:
    """(tag, content, what follows) of the first element of DER (X.690, section 8.1)."""
    if len(data) < 2:
        raise ValueError("it ends early")
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        count = length & 0x7F
        if not 0 < count <= _MOST_LENGTH_BYTES:
            raise ValueError("an element without an end")
        at += count
        length = int.from_bytes(data[2:at])
    if at + length > len(data):
        raise ValueError("it ends early")
    return tag, data[at : at + length], data[at + length :]
