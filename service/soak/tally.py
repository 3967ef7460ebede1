"""What one stream sent and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

ANSWERED, DROPPED, FAILED = "answered", "dropped", "failed"


@dataclass
class Tally:
    """One stream. Times by the clock that all processes of a machine share."""

    name: str
    kind: str
    """`grpc live`, `websocket file`, `http`, ..."""
    sent: int = 0
    """Frames, numbered from 0."""
    answered: int = 0
    dropped: int = 0
    failed: int = 0
    out_of_order: int = 0
    """Answers that were not the next one's."""
    times_s: list[float] = field(default_factory=list)
    """When frames were answered, by `time.monotonic`."""
    ages_ms: list[float] = field(default_factory=list)
    """Of each of these: from its arrival at the service to its answer, as the service says."""
    fault: str = ""
    """What ended the stream too early, or the first frame's error."""

    @property
    def heard(self) -> int:
        """Frames that have an outcome."""
        return self.answered + self.dropped + self.failed

    def note(self, outcome: str, sequence: int, now_s: float, age_ms: float = 0.0, fault: str = "") -> None:
        """A frame has its outcome: one of those above."""
        self.out_of_order += sequence != self.heard
        setattr(self, outcome, getattr(self, outcome) + 1)
        if outcome == ANSWERED:
            self.times_s.append(now_s)
            self.ages_ms.append(age_ms)
        self.fault = self.fault or fault
