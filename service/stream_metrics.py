"""The Prometheus series of streams and sessions; a part of `metrics.Metrics`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from service import status, tracing
from service.histogram import Histogram, Series
from service.streams.contract import Answered, Dropped, DropReason, Outcome
from service.streams.smoothing import Reset
from service.streams.store import Event
from service.types import Prediction

_AGE_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0)


class StreamMetrics:
    """Hears about streams (`hub.Observer`) and about the store of the sessions (`store.Observer`).

    Args:
        registry: to be collected from.
        stage: the series of a model, its version and one of `metrics.STAGES`.
    """

    def __init__(self, registry: CollectorRegistry, stage: Callable[[str, str, str], Series]) -> None:
        self._stage = stage
        self._streams = Gauge(
            "reppose_streams", "Streams with a configuration that are open.", ["transport"], registry=registry
        )
        self._ended = Counter(
            "reppose_streams_ended",
            "Streams with a configuration that ended or were refused; outcome is 'ok' or the code of an error.",
            ["transport", "outcome"],
            registry=registry,
        )
        self._sessions = Gauge(
            "reppose_sessions",
            "Sessions kept in this process's memory; those of a shared store are not counted.",
            registry=registry,
        )
        self._events = Counter(
            "reppose_session_events",
            "What happened to sessions in the store: opened, closed, expired, evicted (for room), or a save that was "
            "refused because of a conflict. A shared store expires sessions by itself and tells nobody.",
            ["event"],
            registry=registry,
        )
        self._resumed = Counter(
            "reppose_sessions_resumed",
            "Times that something was continued, from the store or from a token.",
            ["source"],
            registry=registry,
        )
        self._frames = Counter(
            "reppose_stream_frames",
            "Frames of streams and sessions; outcome is 'ok', 'dropped' or the code of an error.",
            ["outcome"],
            registry=registry,
        )
        self._drops = Counter(
            "reppose_stream_frames_dropped", "Frames that were not looked at.", ["reason"], registry=registry
        )
        self._age = Histogram(
            "reppose_stream_frame_age_seconds",
            "From the arrival of a frame of a stream to its answer, the mailbox included.",
            buckets=_AGE_SECONDS,
            registry=registry,
        ).labels()
        self._resets = Counter(
            "reppose_smoothing_resets",
            "Times that a person's past was forgotten: after a gap, or because of a jump.",
            ["reason"],
            registry=registry,
        )
        self._ok = self._frames.labels(status.OK)
        self._dropped = self._frames.labels("dropped")
        self._by_reason = {reason: self._drops.labels(reason.value) for reason in DropReason}
        self._by_reset = {reason: self._resets.labels(reason.value) for reason in Reset}
        self._by_event = {event: self._events.labels(event.value) for event in Event}
        for source in ("store", "token"):
            self._resumed.labels(source)

    def watch_sessions(self, count: Callable[[], int]) -> None:
        """Report the sessions in memory; `count` is asked at each scrape."""
        self._sessions.set_function(count)

    def opened(self, transport: str) -> None:
        """A stream begins."""
        self._streams.labels(transport).inc()

    def closed(self, transport: str) -> None:
        """A stream that was opened is no longer there."""
        self._streams.labels(transport).dec()

    def ended(self, transport: str, failure: Exception | None) -> None:
        """A stream has come to its end, or could not be opened."""
        outcome = status.OK if failure is None else status.status_of(failure).code
        self._ended.labels(transport, outcome).inc()

    def encoded(self, prediction: Prediction, seconds: float) -> None:
        """The answer to a frame became JSON or a message."""
        self._stage(prediction.model, prediction.version, "encode").observe(seconds)

    def resumed(self, source: str) -> None:
        """Something was continued."""
        self._resumed.labels(source).inc()

    def count(self, event: Event, number: int = 1) -> None:
        """Something happened to sessions in the store."""
        self._by_event[event].inc(number)

    def frame(self, outcome: Outcome) -> None:
        """A frame has its outcome."""
        if isinstance(outcome, Answered):
            self._ok.inc()
            self._age.observe(outcome.age_s, tracing.exemplar())
            seen = outcome.prediction
            self._stage(seen.model, seen.version, "smooth").observe(outcome.smooth_s)
            for pose in outcome.poses:
                if pose.reset is not None:
                    self._by_reset[pose.reset].inc()
        elif isinstance(outcome, Dropped):
            self._dropped.inc()
            self._by_reason[outcome.reason].inc()
        else:
            self._frames.labels(status.status_of(outcome.error).code).inc()
