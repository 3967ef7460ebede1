"""`python -m service.probe`: exit 0 where the service of this environment is ready. A container engine's health check.

It asks `/healthz/ready` of the address in REPPOSE_HTTP__HOST and REPPOSE_HTTP__PORT, or in the file that REPPOSE_CONFIG
names; over TLS where REPPOSE_TLS__CERTIFICATE is set, with REPPOSE_TLS__PROBE_CERTIFICATE where clients must show one.
Nothing but the standard library is imported: it runs every few seconds beside the service, on its processors.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Where to ask a service that listens on all addresses."""


def ready(host: str, port: int, timeout_s: float = 3.0, context: ssl.SSLContext | None = None) -> str | None:
    """None where the service is ready, else what it said or why it could not be asked; by TLS with a context."""
    if context is None:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    try:
        connection.request("GET", "/healthz/ready")
        answer = connection.getresponse()
        said = answer.read(1024).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"{answer.status} {said}"


def encryption(certificate: str) -> ssl.SSLContext:
    """To ask this very container over TLS: on the way to itself there is nobody to be told apart, and the names in the
    service's certificate are those by which others know it.

    Args:
        certificate: a PEM file with the certificate to show, and its key; empty to show none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate)
    return context


def main(environment: Mapping[str, str]) -> int:
    """The exit code; the reason goes to stdout, which the engine keeps."""
    file = environment.get("REPPOSE_CONFIG")
    given = tomllib.loads(Path(file).read_text("utf-8")) if file else {}

    def setting(group: str, name: str, default: object) -> str:
        return environment.get(
            f"REPPOSE_{group}__{name}".upper(), str(given.get(group, {}).get(name, default))
        )

    host = setting("http", "host", "127.0.0.1")
    try:
        encrypted = setting("tls", "certificate", "")
        context = encryption(setting("tls", "probe_certificate", "")) if encrypted else None
        reason = ready(_ALL.get(host, host), int(setting("http", "port", 8000)), context=context)
    except OSError as error:
        reason = f"cannot read the certificate of the probe: {error}"
    if reason is None:
        return 0
    print(reason)
    return 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
