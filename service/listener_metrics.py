"""Prometheus series of connections and of what protects them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

REASONS = (
    "connections",
    "header_bytes",
    "headers",
    "header_time",
    "body_time",
    "bodies_bytes",
    "malformed",
    "message_time",
)


class ListenerMetrics:
    """Connections, and those that were refused or cut off."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._refused = Counter(
            "reppose_connections_refused",
            "Connections and calls refused or cut off before a whole request had come; reason is the limit: "
            "'connections', 'header_bytes', 'headers', 'header_time', 'body_time', 'bodies_bytes', 'message_time' "
            "(of gRPC), or 'malformed'.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:  # a series that begins with 1 has not increased, by Prometheus
            self._refused.labels(reason)

    def refused(self, reason: str) -> None:
        """Count one, by one of REASONS."""
        self._refused.labels(reason).inc()

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Show how many connections HTTP has."""
        Gauge(
            "reppose_http_connections", "Open connections of the HTTP listener.", registry=self._registry
        ).set_function(count)

    def watch_certificate(self, expires_s: Callable[[], float]) -> Callable[[str], None]:
        """Show when the service's certificate expires; what is returned counts that it was read, `ok` or `failed`."""
        Gauge(
            "reppose_tls_certificate_expiry_timestamp_seconds",
            "When the first of the certificates that the service shows expires, in seconds since 1970.",
            registry=self._registry,
        ).set_function(expires_s)
        rereads = Counter(
            "reppose_tls_certificate_rereads",
            "Times that the certificates were read again; outcome is 'ok' or 'failed'.",
            ["outcome"],
            registry=self._registry,
        )
        for outcome in ("ok", "failed"):
            rereads.labels(outcome)
        return lambda outcome: rereads.labels(outcome).inc()
