"""Settings of what the service tells about itself."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from service.settings.group import Group, Port

Share = Annotated[float, Field(ge=0, le=1)]


class LogSettings(Group):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important lines to write."""
    format: Literal["auto", "json", "text"] = "auto"
    """auto writes text to a terminal and JSON lines elsewhere."""
    requests: bool = True
    """Write a line for requests and streams that end."""
    share: Share = 1.0
    """Share of the successful requests that get such a line; what fails always has one."""


class MetricsSettings(Group):
    """Where Prometheus finds the metrics."""

    host: str = "127.0.0.1"
    """Address to listen on where `port` is set; 0.0.0.0 for all of them."""
    port: Port | None = None
    """Port of `/metrics`, which the REST listener then does not have; 0 takes any free one and logs it. Unset, the REST
    listener answers it."""


class TracingSettings(Group):
    """Spans of requests and their stages, by OpenTelemetry; needs the extra `tracing`."""

    endpoint: str = ""
    """Where a collector takes OTLP over HTTP, as http://127.0.0.1:4318/v1/traces; empty for no tracing. What else
    there is to say about the way there, such as headers, OpenTelemetry's own variables OTEL_EXPORTER_OTLP_* do."""
    share: Share = 1.0
    """Share of the traces that begin here to record; a caller that sends a traceparent decides for its own."""
    name: Annotated[str, Field(min_length=1)] = "reppose"
    """What the service is called in traces."""

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        if value:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("must be a URL that begins with http:// or https://")
            if parts.username is not None:
                raise ValueError("must hold no credentials; OTEL_EXPORTER_OTLP_HEADERS may")
        return value
