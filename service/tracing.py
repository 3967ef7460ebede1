"""Spans of requests and their stages, by OpenTelemetry, which is there only with the extra `tracing`.

Nothing is measured for a trace alone: stages that are timed for the metrics anyway are noted by `Trace.stage`, and when
the request ends they become spans with the times that they had. A request that is not sampled notes nothing.

- One server span per request, whose parent is that of the caller's `traceparent` (W3C Trace Context).
- A stream has a span for as long as it is open. Its frames are traces of their own, linked to it and sampled as it is:
  a trace of an hour of video would be too long for anyone.
- A batch is a trace of its own, linked to those of its frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from service import outcomes
from service.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span

TRACEPARENT, TRACESTATE, TRACERESPONSE = "traceparent", "tracestate", "traceresponse"
_EXPORT_S = 5.0
"""How long a collector may take to accept spans."""

_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace | None:
    """The trace that this task works for."""
    return _current.get()


def sampled() -> Trace | None:
    """The trace that this task works for, if it is recorded."""
    trace = _current.get()
    return trace if trace is not None and trace.sampled else None


def exemplar() -> str | None:
    """Id of the trace that this task works for, if it is recorded; for those who count what they do."""
    trace = _current.get()
    return trace.id if trace is not None and trace.sampled else None


def spent(stage: str, began_s: float) -> float:
    """Seconds since `began_s`, by `time.perf_counter`; noted as a stage of the trace that this task works for."""
    ended_s = time.perf_counter()
    trace = _current.get()
    if trace is not None and trace.sampled:
        trace.stage(stage, began_s, ended_s)
    return ended_s - began_s


@contextlib.contextmanager
def ending(trace: Trace | None) -> Iterator[None]:
    """A request that ends when the block does, however it does."""
    try:
        yield
    except asyncio.CancelledError:
        if trace is not None:
            trace.outcome = outcomes.CLIENT_GONE
        raise
    finally:
        if trace is not None:
            trace.end(trace.outcome)


class Trace:
    """One span and its stages. `stage` may be called from any thread, the rest belongs to the event loop's."""

    __slots__ = ("_offset_ns", "_span", "_stages", "_tracer", "id", "outcome", "sampled", "span_id")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        context = span.get_span_context()
        self.id = f"{context.trace_id:032x}"
        self.span_id = f"{context.span_id:016x}"
        self.sampled: bool = context.trace_flags.sampled
        self.outcome = outcomes.OK
        """What `ending` tells; to be changed by whoever knows better."""
        self._tracer, self._span = tracer, span
        self._offset_ns = time.time_ns() - time.perf_counter_ns()
        self._stages: list[tuple[str, float, float, Mapping[str, Any] | None]] = []

    @property
    def response(self) -> str:
        """The value of `traceresponse`: which span answered."""
        return f"00-{self.id}-{self.span_id}-{self.sampled:02x}"

    def stage(
        self, name: str, began_s: float, ended_s: float, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """A part of the request, by `time.perf_counter`."""
        self._stages.append((name, began_s, ended_s, attributes))

    def follow(self, name: str, began_s: float) -> Trace:
        """A trace of its own with a link to this one, sampled likewise; what this task does now belongs to it."""
        trace = Trace(self._tracer, self._tracer.root(name, [self], self._at_ns(began_s)))
        _current.set(trace)
        return trace

    def end(
        self, outcome: str, *, name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """The request has ended; `outcome` as in the metrics."""
        span = self._span
        if not self.sampled:
            return
        for stage in self._stages:
            self._tracer.child(span, stage, self._offset_ns)
        if name is not None:
            span.update_name(name)
        self._tracer.close_span(span, outcome, attributes)

    def batch(self, others: Sequence[Trace], began_s: float, attributes: Mapping[str, Any]) -> None:
        """This trace's frame was in a batch with those of the others, which has ended now."""
        span = self._tracer.root("batch", others, self._at_ns(began_s))
        span.set_attributes(attributes)
        span.end()

    def _at_ns(self, moment_s: float) -> int:
        return int(moment_s * 1e9) + self._offset_ns


class Tracer:
    """Begins traces. Made by `open_tracer`, or over a provider that a test has.

    Args:
        provider: made by `provide`.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("reppose")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Any]) -> Trace:
        """A request has arrived; what this task does from now on belongs to it.

        Args:
            name: of the span, one of few.
            headers: `traceparent` and `tracestate`, where they were sent; one that is malformed begins a new trace.
            attributes: of the span.
        """
        context = self._propagator.extract(headers) if headers else None
        kind = self._api.SpanKind.SERVER
        trace = Trace(self, self._tracer.start_span(name, context, kind, attributes))
        _current.set(trace)
        return trace

    def root(self, name: str, linked: Sequence[Trace], began_ns: int) -> Span:
        """A span of a new trace, linked to those of others and sampled as they are."""
        links = [self._api.Link(each._span.get_span_context()) for each in linked]
        nowhere = self._api.set_span_in_context(self._api.INVALID_SPAN)
        return self._tracer.start_span(name, nowhere, links=links, start_time=began_ns)

    def child(
        self, span: Span, stage: tuple[str, float, float, Mapping[str, Any] | None], offset_ns: int
    ) -> None:
        """A stage as a span below another."""
        name, began_s, ended_s, attributes = stage
        context = self._api.set_span_in_context(span)
        began_ns, ended_ns = (int(moment_s * 1e9) + offset_ns for moment_s in (began_s, ended_s))
        self._tracer.start_span(name, context, attributes=attributes, start_time=began_ns).end(ended_ns)

    def close_span(self, span: Span, outcome: str, attributes: Mapping[str, Any] | None) -> None:
        """End a span of a request or a frame."""
        span.set_attributes({"reppose.outcome": outcome, **(attributes or {})})
        if outcome == outcomes.INTERNAL:
            span.set_status(self._api.StatusCode.ERROR)
        if outcome != outcomes.OK:
            span.set_attribute("error.type", outcome)
        span.end()

    async def close(self, timeout_s: float) -> None:
        """Send what has not been sent, and no more, as far as the collector takes it in time."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="tracing-end", daemon=True).start()
        try:
            async with asyncio.timeout(timeout_s):
                await done.wait()
        except TimeoutError:
            logging.getLogger("reppose").warning(
                "the last spans were not sent: the collector does not take them"
            )


def provide(processor: SpanProcessor, *, share: float, name: str, version: str) -> TracerProvider:
    """What samples: as the caller says, else as that does which a span is linked to, else a share of the traces."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import (
        ALWAYS_OFF,
        ALWAYS_ON,
        ParentBased,
        Sampler,
        TraceIdRatioBased,
    )

    by_share = TraceIdRatioBased(share)

    class AsLinked(Sampler):
        def should_sample(
            self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None
        ):
            if links:
                by = ALWAYS_ON if any(each.context.trace_flags.sampled for each in links) else ALWAYS_OFF
            else:
                by = by_share
            return by.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

        def get_description(self) -> str:
            return f"AsLinked({by_share.get_description()})"

    resource = Resource.create({"service.name": name, "service.version": version})
    provider = TracerProvider(ParentBased(AsLinked()), resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def open_tracer(endpoint: str, *, share: float, name: str, version: str) -> Tracer | None:
    """What sends traces to a collector; None where there is no endpoint.

    Args:
        endpoint: URL that takes OTLP over HTTP, in protobuf.
        share: of the traces that begin here, 0 to 1.
        name, version: of the service.

    Raises:
        StartupError: OpenTelemetry is not installed.
    """
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartupError(
            f"REPPOSE_TRACING__ENDPOINT needs the extra tracing, pip install 'reppose[tracing]': {error}"
        ) from error
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=_EXPORT_S))
    return Tracer(provide(processor, share=share, name=name, version=version))
