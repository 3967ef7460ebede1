"""What is told about every request, over all transports alike: counted, logged, and traced."""

from __future__ import annotations

import random
import time

from service import logs, status, tracing
from service.metrics import Metrics
from service.tracing import Tracer


class Watch:
    """Hears of requests that begin and end.

    Args:
        metrics: counts them.
        tracer: what the transports begin the traces of requests by; None for none.
        log_requests: write a line for requests that end.
        share: of those that succeed, how many get their line.
    """

    def __init__(
        self,
        metrics: Metrics,
        tracer: Tracer | None = None,
        *,
        log_requests: bool = True,
        share: float = 1.0,
    ) -> None:
        self.metrics, self.tracer = metrics, tracer
        self._log_requests, self._share = log_requests, share

    def ended(
        self, transport: str, counted: str | None, outcome: str, since_s: float, **more: object
    ) -> None:
        """A request has ended.

        Args:
            transport: `http` or `grpc`.
            counted: its method or route, as the label of the metrics; None for one that they leave out.
            outcome: `ok`, `client_gone` or the code of an error.
            since_s: when it arrived, by `time.perf_counter`.
            more: facts for the log.
        """
        seconds = time.perf_counter() - since_s
        if counted is not None:
            self.metrics.answered(transport, counted, outcome, seconds, tracing.exemplar())
        if (counted is not None or outcome != status.OK) and self.logs(outcome):
            logs.request(transport=transport, **more, outcome=outcome, ms=round(seconds * 1e3, 2))

    def refused(self, transport: str, counted: str | None, outcome: str, **more: object) -> None:
        """A request was refused before anything of it was read; arguments as of `ended`."""
        if counted is not None:
            self.metrics.requests.labels(transport, counted, outcome).inc()
        if self.logs(outcome):
            logs.request(transport=transport, **more, outcome=outcome)

    def logs(self, outcome: str) -> bool:
        """Whether this one gets a line: what fails always does."""
        if not self._log_requests:
            return False
        return outcome != status.OK or self._share >= 1 or random.random() < self._share
