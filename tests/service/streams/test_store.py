"""Stores of sessions: the same promises in memory and in a real Redis."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import uuid
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.errors import InvalidRequest, Overloaded, SessionConflict, StartupError, StoreUnavailable
from service.streams.opening import open_store
from service.streams.redis_store import RedisStore
from service.streams.store import NEW, Event, MemoryStore, check_name, new_name, size_of


class Counted(Counter):
    """An observer."""

    def count(self, event, number=1):
        self[event] += number


@pytest.fixture(params=["memory", "redis"])
def opened(request):
    """Makes a store, closed afterwards; all of one test see the same sessions."""
    if request.param == "redis":
        server, prefix = request.getfixturevalue("redis_server"), uuid.uuid4().hex
    memory = {}

    @asynccontextmanager
    async def make(observer=None, idle_s=60.0):
        if request.param == "memory":
            store = memory.setdefault("it", MemoryStore(100, idle_s, observer))
        else:
            store = RedisStore(server.url, idle_s, 5.0, prefix, observer)
        yield store
        await store.close()

    return make


def test_a_session_is_opened_continued_and_closed(opened):
    async def scenario():
        seen = Counted()
        async with opened(seen) as store:
            assert await store.load("a", "one", 0.0) is None
            assert await store.save("a", "one", b"\x00first\xff", NEW, 0.0) == 1
            assert await store.load("a", "one", 1.0) == (b"\x00first\xff", 1)
            assert await store.save("a", "one", b"second", 1, 2.0) == 2
            assert await store.load("a", "one", 3.0) == (b"second", 2)
            assert await store.delete("a", "one", 4.0)
            assert not await store.delete("a", "one", 4.0)
            assert await store.load("a", "one", 5.0) is None
        assert seen == {Event.OPENED: 1, Event.CLOSED: 1}

    asyncio.run(scenario())


def test_a_session_is_there_for_its_owner_only(opened):
    async def scenario():
        async with opened() as store:
            await store.save("alice", "one", b"hers", NEW, 0.0)
            assert await store.load("bob", "one", 0.0) is None
            assert not await store.delete("bob", "one", 0.0)
            with pytest.raises(SessionConflict):
                await store.save("bob", "one", b"his", 1, 0.0)
            assert await store.save("bob", "one", b"his", NEW, 0.0) == 1
            assert (await store.load("alice", "one", 0.0)).state == b"hers"

    asyncio.run(scenario())


def test_of_two_who_continue_one_session_one_is_refused(opened):
    async def scenario():
        seen = Counted()
        async with opened(seen) as here, opened(seen) as there:
            await here.save("a", "one", b"0", NEW, 0.0)
            one, other = await here.load("a", "one", 0.0), await there.load("a", "one", 0.0)
            await there.save("a", "one", b"there", other.revision, 0.0)
            with pytest.raises(SessionConflict):
                await here.save("a", "one", b"here", one.revision, 0.0)
            with pytest.raises(SessionConflict):
                await here.save("a", "one", b"here", NEW, 0.0)
            assert (await here.load("a", "one", 0.0)).state == b"there"
        assert seen[Event.CONFLICT] == 2

    asyncio.run(scenario())


def test_no_update_is_lost_when_many_count_at_once(opened):
    """Every one reads, adds one and saves, until it succeeds: the sum is exact."""

    async def add(store, times):
        for _ in range(times):
            while True:
                found = await store.load("a", "sum", 0.0)
                await asyncio.sleep(0)
                try:
                    await store.save("a", "sum", str(int(found.state) + 1).encode(), found.revision, 0.0)
                except SessionConflict:
                    continue
                break

    async def scenario():
        async with opened() as one, opened() as other:
            await one.save("a", "sum", b"0", NEW, 0.0)
            await asyncio.gather(*(add(store, 10) for store in (one, other) for _ in range(4)))
            assert await other.load("a", "sum", 0.0) == (b"80", 81)

    asyncio.run(scenario())


def test_a_session_that_is_gone_cannot_be_continued(opened):
    async def scenario():
        async with opened() as store:
            await store.save("a", "one", b"0", NEW, 0.0)
            await store.delete("a", "one", 0.0)
            with pytest.raises(SessionConflict):
                await store.save("a", "one", b"1", 1, 0.0)

    asyncio.run(scenario())


def test_in_redis_what_is_idle_expires_and_being_asked_for_is_use(redis_server):
    async def scenario():
        prefix = uuid.uuid4().hex
        store, inside = RedisStore(redis_server.url, 60.0, 5.0, prefix), Redis.from_url(redis_server.url)
        await store.save("secret credential", "one", b"0", NEW, 0.0)
        (key,) = await inside.keys(f"{prefix}:*")
        assert b"secret" not in key
        await inside.pexpire(key, 20_000)
        await store.load("secret credential", "one", 0.0)
        assert 50_000 < await inside.pttl(key) <= 60_000
        await inside.pexpire(key, 20_000)
        await store.save("secret credential", "one", b"1", 1, 0.0)
        assert 50_000 < await inside.pttl(key) <= 60_000
        await inside.pexpire(key, 1)
        await asyncio.sleep(0.05)
        assert await store.load("secret credential", "one", 0.0) is None
        await inside.aclose()
        await store.close()

    asyncio.run(scenario())


def test_a_redis_that_is_gone_is_said_to_be(own_redis):
    async def scenario():
        store = RedisStore(own_redis.url, 60.0, 2.0)
        await store.save("a", "one", b"0", NEW, 0.0)
        await store.ping()
        own_redis.stop()
        for call in (
            lambda: store.load("a", "one", 0.0),
            lambda: store.save("a", "one", b"1", 1, 0.0),
            lambda: store.delete("a", "one", 0.0),
            store.ping,
        ):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await call()
        await store.close()

    asyncio.run(scenario())


def test_in_memory_what_is_idle_expires_and_being_asked_for_is_use():
    async def scenario():
        seen = Counted()
        store = MemoryStore(10, 60.0, seen)
        await store.save("a", "one", b"1", NEW, 0.0)
        await store.save("a", "two", b"2", NEW, 10.0)
        assert await store.load("a", "one", 50.0) is not None
        assert await store.load("a", "two", 70.0) is None
        assert await store.load("a", "one", 109.9) is not None
        assert store.expire(1000.0) == 1
        assert len(store) == 0
        assert seen == {Event.OPENED: 2, Event.EXPIRED: 2}
        with pytest.raises(SessionConflict):
            await store.save("a", "one", b"1", 1, 1000.0)

    asyncio.run(scenario())


def test_in_memory_the_longest_unused_makes_room():
    async def scenario():
        seen = Counted()
        store = MemoryStore(2, 60.0, seen)
        await store.save("a", "one", b"1", NEW, 0.0)
        await store.save("a", "two", b"2", NEW, 1.0)
        await store.load("a", "one", 2.0)
        await store.save("a", "three", b"3", NEW, 3.0)
        assert [await store.load("a", name, 4.0) is not None for name in ("one", "two", "three")] == [
            True,
            False,
            True,
        ]
        assert seen == {Event.OPENED: 3, Event.EVICTED: 1}

    asyncio.run(scenario())


def test_in_memory_bytes_are_bounded_and_what_was_saved_last_is_kept():
    async def scenario():
        seen = Counted()
        store = MemoryStore(100, 60.0, seen, most_bytes=3 * size_of("a", "one", bytes(1000)))
        for name in ("one", "two", "six"):
            await store.save("a", name, bytes(1000), NEW, 0.0)
        await store.save("a", "one", bytes(1001), 1, 1.0)  # it grows; the longest unused makes room
        assert [await store.load("a", name, 2.0) is not None for name in ("one", "two", "six")] == [
            True,
            False,
            True,
        ]
        with pytest.raises(Overloaded, match="of 5325 that all may take"):
            await store.save("a", "six", bytes(9000), 1, 3.0)
        assert await store.load("a", "six", 4.0) == (bytes(1000), 1)
        assert seen == {Event.OPENED: 3, Event.EVICTED: 1}

    asyncio.run(scenario())


def test_in_memory_sessions_take_no_more_than_is_said():
    async def scenario():
        store = MemoryStore(10_000, 60.0, most_bytes=4_000_000)
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            await store.save(f"owner {number}", f"name-{number}", bytes(number % 3000), NEW, number / 1e6)
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert 1000 < len(store) < 9000
        assert held < store.bytes <= 4_000_000

    asyncio.run(scenario())


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from("lsd"),
            st.sampled_from("ab"),
            st.sampled_from("xyz"),
            st.floats(0, 40),
            st.integers(0, 1500),
        ),
        max_size=40,
    )
)
def test_in_memory_there_are_never_more_than_allowed_and_the_counts_add_up(calls):
    async def scenario():
        seen, now, sizes = Counted(), 0.0, {}
        store = MemoryStore(3, 60.0, seen, most_bytes=4000)
        for kind, owner, name, step, size in calls:
            now += step
            found = await store.load(owner, name, now)
            assert found is None or len(found.state) == sizes[owner, name]
            if kind == "s":
                await store.save(owner, name, bytes(size), found.revision if found else NEW, now)
                sizes[owner, name] = size
                assert (await store.load(owner, name, now)).state == bytes(size)
            elif kind == "d":
                assert await store.delete(owner, name, now) == (found is not None)
            assert len(store) <= 3
            gone = seen[Event.EXPIRED] + seen[Event.EVICTED] + seen[Event.CLOSED]
            assert len(store) == seen[Event.OPENED] - gone
            kept = [key for key in sizes if await store.load(*key, now) is not None]
            assert store.bytes == sum(size_of(*key, bytes(sizes[key])) for key in kept) <= 4000

    asyncio.run(scenario())


def test_names():
    assert len({new_name() for _ in range(100)}) == 100
    assert check_name(new_name())
    for wrong in ("", "a" * 65, "a b", "a/b", "a:b", "é", "a\n"):
        with pytest.raises(InvalidRequest):
            check_name(wrong)


def test_the_store_is_picked_by_its_url():
    common = {"capacity": 5, "idle_s": 1.0, "timeout_s": 1.0}
    assert isinstance(open_store(None, **common), MemoryStore)
    assert isinstance(open_store("", **common), MemoryStore)
    assert isinstance(open_store("redis://127.0.0.1:1/0", **common), RedisStore)
    with pytest.raises(StartupError, match="no usable URL"):
        open_store("http://127.0.0.1", **common)


def test_a_store_without_room_is_refused():
    with pytest.raises(ValueError, match="positive"):
        MemoryStore(1, 1.0, most_bytes=0)
    for capacity, idle_s in ((0, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match="positive"):
            MemoryStore(capacity, idle_s)
