"""Prometheus series of who was let in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

REASONS = (
    "no_credential",
    "bad_credential",
    "expired",
    "wrong_role",
    "frames_per_s",
    "pixels_per_s",
    "streams",
)


class AccessMetrics:
    """What is refused because of who asks, or how often."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refused = Counter(
            "reppose_access_refused",
            "Requests, streams and frames refused because of who asked or how often; reason is 'no_credential', "
            "'bad_credential', 'expired', 'wrong_role', or the limit that was reached: 'frames_per_s', "
            "'pixels_per_s', 'streams'.",
            ["reason"],
            registry=registry,
        )
        self._reread = Counter(
            "reppose_credential_rereads",
            "Times that the files of credentials were read again; outcome is 'ok' or 'failed'.",
            ["outcome"],
            registry=registry,
        )
        for reason in REASONS:  # a series that begins with 1 has not increased, by Prometheus
            self._refused.labels(reason)
        for outcome in ("ok", "failed"):
            self._reread.labels(outcome)

    def refused(self, reason: str) -> None:
        """Count a refusal, by one of REASONS."""
        self._refused.labels(reason).inc()

    def reread(self, outcome: str) -> None:
        """Count a reading of the files, `ok` or `failed`."""
        self._reread.labels(outcome).inc()
