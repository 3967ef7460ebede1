"""`python -m service.probe`: exit 0 where the service of this environment is ready. A container engine's health check.

It asks `/healthz/ready` of the address in REPPOSE_HTTP__HOST and REPPOSE_HTTP__PORT, or in the file that REPPOSE_CONFIG
names. Nothing but the standard library is imported: it runs every few seconds beside the service, on its processors.
"""

from __future__ import annotations

import http.client
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Where to ask a service that listens on all addresses."""


def ready(host: str, port: int, timeout_s: float = 3.0) -> str | None:
    """None where the service is ready, else what it said or why it could not be asked."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz/ready")
        answer = connection.getresponse()
        said = answer.read(1024).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"{answer.status} {said}"


def main(environment: Mapping[str, str]) -> int:
    """The exit code; the reason goes to stdout, which the engine keeps."""
    file = environment.get("REPPOSE_CONFIG")
    http = tomllib.loads(Path(file).read_text("utf-8")).get("http", {}) if file else {}
    host = environment.get("REPPOSE_HTTP__HOST", http.get("host", "127.0.0.1"))
    reason = ready(_ALL.get(host, host), int(environment.get("REPPOSE_HTTP__PORT", http.get("port", 8000))))
    if reason is None:
        return 0
    print(reason)
    return 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
