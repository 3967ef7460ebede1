"""What a client needs to talk to a service over TLS."""

from __future__ import annotations

import re
from pathlib import Path

import grpc

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?\n-----END \1-----\n?", re.DOTALL)


def credentials(ca: Path | None = None, certificate: Path | None = None) -> grpc.ChannelCredentials:
    """For the `credentials` of a client.

    Args:
        ca: PEM file of the authorities to trust; None for those that gRPC comes with.
        certificate: PEM file of the certificate to show, and its key; None to show none.

    Raises:
        OSError: a file cannot be read.
        ValueError: it does not hold what it should.
    """
    roots = None if ca is None else b"".join(_blocks(ca, "CERTIFICATE"))
    if certificate is None:
        return grpc.ssl_channel_credentials(roots)
    key = _blocks(certificate, "PRIVATE KEY")[0]
    return grpc.ssl_channel_credentials(roots, key, b"".join(_blocks(certificate, "CERTIFICATE")))


def _blocks(path: Path, kind: str) -> list[bytes]:
    """The parts of a PEM file whose name ends so. gRPC wants them apart."""
    found = [part[0] for part in _BLOCK.finditer(path.read_bytes()) if part[1].decode().endswith(kind)]
    if not found:
        raise ValueError(f"{path} holds no {kind.lower()} in PEM")
    return found
