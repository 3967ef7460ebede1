"""Token buckets: what they promise over any time, whatever is asked for when."""

from __future__ import annotations

import threading

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.auth.rates import Account, Accounts, Bucket, Limits
from service.errors import RateLimited

RATES = st.floats(0.01, 1e9)
ASKED = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e9)), min_size=1, max_size=40)
"""(seconds since the one before, tokens)."""


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@given(rate=RATES, burst=RATES, asked=ASKED)
def test_no_time_grants_more_than_its_share(
    rate: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    clock = Clock()
    bucket = Bucket(rate, burst, clock)
    granted: list[tuple[float, float]] = []
    for after_s, count in asked:
        clock.now_s += after_s
        if bucket.take(count) == 0:
            granted.append((clock.now_s, count))
    for first in range(len(granted)):
        taken = 0.0
        for time_s, count in granted[first:]:
            share = burst + rate * (time_s - granted[first][0])
            assert taken + min(count, burst) <= share * (1 + 1e-9)
            taken += count


@given(rate=RATES, burst=RATES, asked=ASKED)
def test_who_waits_as_long_as_told_gets_it(
    rate: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    clock = Clock()
    bucket = Bucket(rate, burst, clock)
    for after_s, count in asked:
        clock.now_s += after_s
        wait_s = bucket.take(count)
        if wait_s:
            assert wait_s <= (burst + max(0, -bucket._level)) / rate * (1 + 1e-9)
            clock.now_s += wait_s * (1 + 1e-6) + 1e-6 * clock.now_s
            assert bucket.take(count) == 0


@given(rate=RATES, burst=RATES, counts=st.lists(st.floats(0, 1e9), min_size=1, max_size=40))
def test_lenders_who_wait_out_their_debt_keep_to_the_rate(
    rate: float, burst: float, counts: list[float]
) -> None:
    clock = Clock()
    bucket = Bucket(rate, burst, clock)
    for count in counts:
        bucket.borrow(count)
        clock.now_s += bucket.debt_s()
    assume(sum(counts) > burst)
    assert sum(counts) == pytest.approx(burst + rate * clock.now_s, rel=1e-6, abs=burst)
    assert clock.now_s >= (sum(counts) - burst) / rate * (1 - 1e-6)


@given(rate=RATES, burst=RATES, idle_s=st.floats(0, 1e6))
def test_a_rest_fills_it_and_no_more(rate: float, burst: float, idle_s: float) -> None:
    clock = Clock()
    bucket = Bucket(rate, burst, clock)
    assert bucket.take(burst) == 0
    clock.now_s += burst / rate + idle_s
    assert bucket.take(burst * (1 - 1e-6)) == 0
    assert bucket.take(burst) > 0


def test_an_image_larger_than_the_burst_takes_a_full_bucket_and_then_some() -> None:
    clock = Clock()
    bucket = Bucket(10, 100, clock)
    assert bucket.take(1) == 0
    assert bucket.take(250) == pytest.approx(0.1)
    clock.now_s += 0.1
    assert bucket.take(250) == 0
    assert bucket.take(1) == pytest.approx(15.1)


def test_many_threads_get_no_more_than_there_is() -> None:
    bucket = Bucket(1e-9, 1000)
    granted = []

    def take() -> None:
        granted.append(sum(bucket.take(1) == 0 for _ in range(500)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 1000


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_a_bucket_that_never_fills_is_none(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Bucket(rate, burst)


def test_an_account_says_what_was_too_much_and_when_to_come_back() -> None:
    clock, refused = Clock(), []
    account = Account(
        Limits(frames_per_s=2, frames_burst=1, pixels_per_s=100, streams=1), refused.append, clock
    )
    account.frame()
    with pytest.raises(RateLimited, match="requests and frames") as caught:
        account.frame()
    assert caught.value.retry_after_s == pytest.approx(0.5)
    account.pixels(60)
    with pytest.raises(RateLimited, match="pixels") as caught:
        account.pixels(60)
    assert caught.value.retry_after_s == pytest.approx(0.2)
    account.open_stream()
    with pytest.raises(RateLimited, match="open streams"):
        account.open_stream()
    account.close_stream()
    account.open_stream()
    assert refused == ["frames_per_s", "pixels_per_s", "streams"]


def test_no_limit_is_no_limit() -> None:
    account = Account(Limits())
    for _ in range(1000):
        account.frame()
        account.pixels(10**9)
        account.open_stream()
    assert account.lend_frame() == 0
    assert not account.counts_pixels


def test_accounts_are_bounded_and_begin_anew_with_other_limits() -> None:
    accounts = Accounts(capacity=2)
    limits = Limits(frames_per_s=1)
    first = accounts.of("a", limits)
    assert accounts.of("a", limits) is first
    accounts.of("b", limits)
    accounts.of("a", limits)
    accounts.of("c", limits)  # b was not asked for the longest
    assert accounts.of("a", limits) is first
    assert accounts.of("a", Limits(frames_per_s=2)) is not first
    assert len(accounts) == 2


def test_streams_count_on_under_other_limits_and_however_many_others_come() -> None:
    accounts = Accounts(capacity=2)
    before = accounts.of("a", Limits(streams=2))
    before.open_stream()
    for stranger in "bcde":
        accounts.of(stranger, Limits(streams=2))
    assert len(accounts) == 2
    after = accounts.of("a", Limits(streams=1))
    with pytest.raises(RateLimited, match="open streams"):
        after.open_stream()
    before.close_stream()
    after.open_stream()
    assert after.open_streams == 1


def test_there_is_an_end_to_those_who_make_no_room() -> None:
    accounts = Accounts(capacity=2)
    for owner in "abcd":
        accounts.of(owner, Limits(streams=1)).open_stream()
    assert len(accounts) == 4, "their streams are bounded elsewhere"
