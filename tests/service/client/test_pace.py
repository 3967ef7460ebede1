"""The pace of a live stream, against a made-up service and clock."""

from __future__ import annotations

import itertools

import pytest

from service.client.pace import Pace, Rates


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def drive(pace: Pace, clock: Clock, capacity_hz: float, seconds: float, numbers: itertools.count) -> int:
    """Send at the pace to a service that looks at so many frames a second, in order; frames that were sent."""
    free_s, sent, until_s = clock.now_s, 0, clock.now_s + seconds
    while clock.now_s < until_s:
        clock.now_s += pace.wait_s()
        number = next(numbers)
        pace.sent(number)
        sent += 1
        free_s = max(free_s, clock.now_s)
        waited_ms = (free_s - clock.now_s) * 1e3
        if waited_ms > 200:
            pace.dropped(number)
        else:
            free_s += 1 / capacity_hz
            pace.answered(number, waited_ms)
    return sent


def test_the_rate_finds_the_capacity_falls_with_it_and_rises_again() -> None:
    clock, numbers = Clock(), itertools.count()
    pace = Pace(Rates(start_hz=15, most_hz=60), clock)
    drive(pace, clock, 40, 60, numbers)
    for capacity_hz in (40, 8, 40):
        drive(pace, clock, capacity_hz, 60, numbers)  # to settle
        sent_hz = drive(pace, clock, capacity_hz, 60, numbers) / 60
        assert 0.7 * capacity_hz < sent_hz < 1.1 * capacity_hz


def test_the_rate_rises_by_so_much_a_second_and_stops_at_the_most() -> None:
    clock, numbers = Clock(), itertools.count()
    pace = Pace(Rates(start_hz=10, most_hz=20, rise_hz=2), clock)
    drive(pace, clock, 1e6, 2, numbers)
    assert pace.rate_hz == pytest.approx(14, rel=0.05)
    drive(pace, clock, 1e6, 10, numbers)
    assert pace.rate_hz == 20


def test_frames_that_were_on_their_way_lower_the_rate_only_once() -> None:
    clock = Clock()
    pace = Pace(Rates(start_hz=20, fall=0.5), clock)
    for number in range(4):
        pace.sent(number)
    for number in range(4):
        pace.dropped(number)
    assert pace.rate_hz == 10
    pace.sent(4)
    pace.answered(4, waited_ms=51)
    assert pace.rate_hz == 5


def test_the_rate_never_falls_below_the_least() -> None:
    pace = Pace(Rates(start_hz=2, least_hz=1), Clock())
    for number in range(20):
        pace.sent(number)
        pace.dropped(number)
    assert pace.rate_hz == 1


def test_a_pause_is_not_made_up_for() -> None:
    clock = Clock()
    pace = Pace(Rates(start_hz=10), clock)
    clock.now_s += 60
    waits = []
    for number in range(3):
        waits.append(pace.wait_s())
        pace.sent(number)
    assert waits == pytest.approx([0, 0, 0.1])


@pytest.mark.parametrize("wrong", [{"least_hz": 0}, {"start_hz": 100}, {"fall": 1}, {"rise_hz": 0}])
def test_rates_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="rates"):
        Rates(**wrong)
