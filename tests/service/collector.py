"""A collector of traces on a real socket: takes OTLP over HTTP and remembers the spans."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SOON_S = 20.0


@dataclass
class Received:
    """What a collector was sent."""

    url: str
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def wait(self, enough: Callable[[list[Span]], Any]) -> Any:
        """What `enough` says of the spans as soon as that is anything; fails if it stays nothing."""
        deadline = time.monotonic() + SOON_S
        while time.monotonic() < deadline:
            if found := enough(list(self.spans)):
                return found
            time.sleep(0.02)
        raise AssertionError(f"only {[span.name for span in self.spans]}")


def attributes(span: Span) -> dict[str, Any]:
    """Of a span, as plain values."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@contextmanager
def collecting(*, answer_s: float = 0.0) -> Iterator[Received]:
    """A collector, which takes `answer_s` for each answer."""
    leaving = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if leaving.wait(answer_s):
                return
            request = ExportTraceServiceRequest.FromString(body)
            for each in request.resource_spans:
                received.resources.append(
                    {one.key: one.value.string_value for one in each.resource.attributes}
                )
                received.spans += [span for scope in each.scope_spans for span in scope.spans]
            received.headers.append(dict(self.headers))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    received = Received(f"http://127.0.0.1:{server.server_port}/v1/traces")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        leaving.set()
        server.shutdown()
        server.server_close()
        thread.join()
