"""The book of one stream: which frames wait for an answer, and what a new connection must be told.

Knows no socket. In file mode every frame is kept until it was answered *and* is part of a resume token, since whoever
continues from a token must see again what came after it; answers that come a second time are left out. In live mode
nothing is sent twice: what the broken connection left unanswered is lost, and said to be.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from service.client.answers import LOST, SUPERSEDED, Answer, answer_from
from service.pb.reppose.v1 import pose_pb2 as pb


@dataclass(eq=False, slots=True)
class _Entry:
    """One frame."""

    request: pb.EstimateStreamRequest
    answer: Answer | None = None
    sent: bool = False
    delivered: bool = False


class Book:
    """All frames of a stream, numbered from 0.

    Args:
        config: what the stream is; a resume token in it is where it begins.
        token_every: a token is asked for after so many frames.
    """

    def __init__(self, config: pb.StreamConfig, token_every: int = 16) -> None:
        if token_every < 1:
            raise ValueError(f"token_every must be at least 1, not {token_every}")
        self.live = config.mode != pb.STREAM_MODE_FILE
        self.token = config.resume_token
        """The last one; empty while there is none."""
        self.opened: pb.Opened | None = None
        """How the stream was opened, the last time."""
        self._config, self._token_every = config, token_every
        self._entries: dict[int, _Entry] = {}
        self._outbox: deque[int] = deque()
        self._ready: deque[Answer] = deque()
        self._count = 0  # frames so far, which is the next one's number
        self._next = 0  # the next to be delivered
        self._base: int | None = None  # sequence at the service of frame 0
        self._covered = -1  # the last frame that the token holds
        self._asked: int | None = None  # the frame whose answer shall hold a token
        self._since = token_every  # frames sent since that was last asked for

    @property
    def waiting(self) -> int:
        """Frames that were not sent yet."""
        return len(self._outbox)

    @property
    def unanswered(self) -> int:
        """Frames that were sent and have no answer yet."""
        return sum(1 for entry in self._entries.values() if entry.sent and entry.answer is None)

    @property
    def pending(self) -> int:
        """Frames without an answer, sent or not."""
        return sum(1 for entry in self._entries.values() if entry.answer is None)

    @property
    def kept(self) -> int:
        """Frames in memory."""
        return len(self._entries)

    def add(self, request: pb.EstimateStreamRequest) -> int:
        """Take a frame; its number. In live mode it takes the place of one that was not sent yet."""
        if self.live:
            while self._outbox:
                old = self._outbox.popleft()
                self._settle(old, Answer(old, dropped=SUPERSEDED))
        number = self._count
        self._count += 1
        self._entries[number] = _Entry(request)
        self._outbox.append(number)
        return number

    def config(self) -> pb.EstimateStreamRequest:
        """The first message of a connection."""
        config = pb.StreamConfig()
        config.CopyFrom(self._config)
        config.resume_token = self.token
        return pb.EstimateStreamRequest(config=config)

    def begin(self, opened: pb.Opened) -> None:
        """The service has opened the stream: what must be sent is in the outbox again."""
        self.opened = opened
        last = opened.last_sequence if opened.resumed else -1
        if self._base is None:
            self._base = last + 1
        self._asked, self._since = None, self._token_every
        self._outbox.clear()
        for number, entry in list(self._entries.items()):
            if self._entries.get(number) is not entry or (
                entry.answer and (self.live or not entry.answer.poses)
            ):
                continue
            if entry.answer is None and entry.sent and (self.live or number + self._base <= last):
                self._settle(number, Answer(number, dropped=LOST))
            elif entry.answer is None or (number > self._covered and number + self._base > last):
                entry.sent = False
                self._outbox.append(number)

    def forget_token(self) -> None:
        """The service does not take the token: what comes next is a new video to it."""
        self.token = ""

    def next_request(self) -> tuple[int, pb.EstimateStreamRequest] | None:
        """The next message to send and its frame's number; None while there is none."""
        if not self._outbox:
            return None
        number = self._outbox.popleft()
        entry = self._entries[number]
        entry.sent = True
        entry.request.sequence = self._base + number
        entry.request.want_token = self._asked is None and self._since >= self._token_every
        if entry.request.want_token:
            self._asked, self._since = number, 0
        self._since += 1
        return number, entry.request

    def take(self, message: pb.EstimateStreamResponse) -> Answer | None:
        """Note a message of the service; the answer in it, unless it came before."""
        kind = message.WhichOneof("outcome")
        if kind == "closing":
            if message.closing.resume_token:
                last = message.sequence - self._base if message.closing.has_sequence else self._covered
                self._cover(message.closing.resume_token, last)
            return None
        number = message.sequence - self._base
        if kind == "tracked" and message.tracked.resume_token:
            self._cover(message.tracked.resume_token, number)
        if number == self._asked:
            self._asked = None
            if not (kind == "tracked" and message.tracked.resume_token):
                self._since = self._token_every  # the next frame asks again
        entry = self._entries.get(number)
        if entry is None or entry.answer is not None or kind not in {"tracked", "dropped", "error"}:
            return None
        answer = answer_from(message, number)
        self._settle(number, answer)
        return answer

    def lose(self) -> None:
        """There will be no other connection: what has no answer is lost."""
        self._outbox.clear()
        for number, entry in list(self._entries.items()):
            if entry.answer is None:
                self._settle(number, Answer(number, dropped=LOST))

    def next_answer(self) -> Answer | None:
        """The next answer in the order of the frames; None while there is none."""
        return self._ready.popleft() if self._ready else None

    def _settle(self, number: int, answer: Answer) -> None:
        self._entries[number].answer = answer
        while (entry := self._entries.get(self._next)) is not None and entry.answer is not None:
            self._ready.append(entry.answer)
            entry.delivered = True
            self._drop_if_done(self._next)
            self._next += 1

    def _cover(self, token: str, last: int) -> None:
        self.token, self._covered = token, last
        for number in list(self._entries):
            self._drop_if_done(number)

    def _drop_if_done(self, number: int) -> None:
        entry = self._entries[number]
        if not entry.delivered:
            return
        # Only what was taken in must be seen again: a frame that failed leaves no trace in what is remembered.
        if self.live or entry.answer.poses is None or number <= self._covered:
            del self._entries[number]
