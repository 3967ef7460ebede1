"""The book of a stream against a service that is made up, stops and dies wherever it likes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client.book import Book
from service.pb.reppose.v1 import pose_pb2 as pb

FILE = pb.StreamConfig(mode=pb.STREAM_MODE_FILE)
BROKEN = b"broken"


class Service:
    """Takes frames in as the contract says; its memory is the list of them, and so is a token."""

    def __init__(self, config: pb.StreamConfig) -> None:
        self.memory: list[int] = json.loads(config.resume_token or "[]")
        last = self.memory[-1] if self.memory else 0
        self.opened = pb.Opened(resumed=bool(self.memory), last_sequence=last)
        self._last = self.memory[-1] if self.memory else -1

    def token(self) -> str:
        return json.dumps(self.memory)

    def answer(self, request: pb.EstimateStreamRequest) -> pb.EstimateStreamResponse:
        assert request.sequence > self._last, "a repeated sequence ends the stream"
        self._last = request.sequence
        response = pb.EstimateStreamResponse(sequence=request.sequence)
        if request.frame.image == BROKEN:
            response.error.CopyFrom(pb.Error(status=3, code="invalid_image"))
            return response
        self.memory.append(request.sequence)
        response.tracked.raw.model = str(self.memory)  # what was seen before decides what is answered
        if request.want_token:
            response.tracked.resume_token = self.token()
        return response

    def closing(self) -> pb.EstimateStreamResponse:
        closing = pb.Closing(resume_token=self.token(), has_sequence=bool(self.memory))
        return pb.EstimateStreamResponse(sequence=self.memory[-1] if self.memory else 0, closing=closing)


def frame(image: bytes = b"image") -> pb.EstimateStreamRequest:
    return pb.EstimateStreamRequest(frame=pb.EstimateRequest(image=image))


def answers(book: Book) -> list:
    return list(iter(book.next_answer, None))


CONNECTION = st.tuples(
    st.integers(0, 8),  # frames that come from the camera meanwhile
    st.integers(0, 12),  # frames that are sent
    st.integers(0, 12),  # frames of them that the service computes
    st.integers(0, 12),  # answers of them that arrive
    st.booleans(),  # whether the service says good-bye
)


@given(
    connections=st.lists(CONNECTION, max_size=12),
    broken=st.sets(st.integers(0, 60)),
    token_every=st.integers(1, 5),
)
def test_no_frame_of_a_file_is_lost_and_none_is_answered_twice(connections, broken, token_every) -> None:
    book, found, count = Book(FILE, token_every), [], 0
    for more, sent, computed, arrived, good_bye in [*connections, (0, 10**6, 10**6, 10**6, False)]:
        for _ in range(more):
            book.add(frame(BROKEN if count in broken else b"image"))
            count += 1
        service = Service(book.config().config)
        book.begin(service.opened)
        requests = []
        while len(requests) < sent and (item := book.next_request()):
            copy = pb.EstimateStreamRequest()
            copy.CopyFrom(item[1])
            requests.append(copy)
        replies = [service.answer(request) for request in requests[:computed]]
        arriving = replies if good_bye else replies[:arrived]
        for reply in [*arriving, *([service.closing()] if good_bye else [])]:
            book.take(reply)
        found += answers(book)
        assert book.unanswered <= book.pending <= book.kept <= count
    assert [each.sequence for each in found] == list(range(count))
    seen = []
    for each in found:
        if each.sequence in broken:
            assert each.error.code == "invalid_image"
        else:
            seen.append(each.sequence)
            assert each.poses.model == f"{seen}@", "as if there had been one service all along"


def test_what_is_kept_of_a_file_is_bounded_by_its_tokens() -> None:
    book = Book(FILE, token_every=4)
    service = Service(book.config().config)
    book.begin(service.opened)
    for number in range(100):
        book.add(frame(BROKEN if number % 4 == 0 else b"image"))  # who is asked for a token may have none
        book.take(service.answer(book.next_request()[1]))
        assert len(answers(book)) == 1
        assert book.kept <= 6
    assert json.loads(book.token)[-1] > 90


@given(
    steps=st.lists(st.sampled_from(["frame", "send", "answer", "break"]), max_size=60),
)
def test_live_frames_are_answered_once_in_order_and_never_sent_twice(steps) -> None:
    book, found, sent, count = Book(pb.StreamConfig()), [], [], 0
    service, waiting = Service(book.config().config), []
    book.begin(service.opened)
    for step in [*steps, "break", "send", "answer"]:
        if step == "frame":
            count = book.add(frame()) + 1
            assert book.waiting == 1
        elif step == "send" and (item := book.next_request()):
            waiting.append(item[1])
            sent.append(item[0])
        elif step == "answer" and waiting:
            book.take(service.answer(waiting.pop(0)))
        elif step == "break":
            waiting.clear()
            service = Service(book.config().config)
            book.begin(service.opened)
            assert book.unanswered == 0
        found += answers(book)
    assert [each.sequence for each in found] == list(range(count))
    assert len(set(sent)) == len(sent)
    assert {each.dropped for each in found} <= {None, "superseded", "lost"}
    assert book.kept == 0


def test_a_session_that_went_on_without_us_counts_from_where_it_is() -> None:
    book = Book(FILE)
    book.add(frame())
    book.begin(pb.Opened(resumed=True, last_sequence=41))
    assert book.next_request()[1].sequence == 42


def test_frames_that_a_session_holds_already_are_lost_and_not_sent_again() -> None:
    book = Book(FILE)
    for _ in range(3):
        book.add(frame())
    book.begin(pb.Opened())
    sent = [book.next_request()[1].sequence for _ in range(3)]
    book.begin(pb.Opened(resumed=True, last_sequence=1))  # saved, but its answers never came here
    assert sent == [0, 1, 2]
    assert [each.dropped for each in answers(book)] == ["lost", "lost"]
    assert book.next_request()[1].sequence == 2
    assert book.next_request() is None


def test_what_nobody_will_answer_is_lost() -> None:
    book = Book(FILE)
    for _ in range(3):
        book.add(frame())
    book.begin(pb.Opened())
    book.next_request()
    book.lose()
    assert [(each.sequence, each.dropped) for each in answers(book)] == [
        (0, "lost"),
        (1, "lost"),
        (2, "lost"),
    ]
    assert book.pending == 0


def test_a_book_needs_tokens() -> None:
    with pytest.raises(ValueError, match="token_every"):
        Book(FILE, token_every=0)
