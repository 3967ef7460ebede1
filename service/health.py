"""Whether the service takes requests, and if not, why. Asked by both transports, set by the server alone."""

from __future__ import annotations


class Readiness:
    """Ready, or the reason why not."""

    def __init__(self, reason: str | None = "the service is starting") -> None:
        self.reason = reason
        """Why the service is not ready; None when it is."""

    @property
    def ready(self) -> bool:
        """Whether requests are welcome."""
        return self.reason is None
