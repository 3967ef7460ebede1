"""Sessions that several replicas share, in Redis.

One hash per session: `r` its revision, `s` its state. Redis forgets it after the idle time by itself, so that nothing
has to be swept. Saving compares the revision and writes in one script, which Redis runs as a whole: of two replicas
that continue one session at the same time one is refused. Names in Redis hold a digest of the owner, no credential.

Sources: Redis documentation on EVAL (atomicity of scripts) and PEXPIRE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from typing import TypeVar

from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.errors import SessionConflict, StartupError, StoreUnavailable
from service.streams.store import NEW, Event, Observer, Stored, Unobserved

_LOAD = """
local found = redis.call('HMGET', KEYS[1], 'r', 's')
if found[1] then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return found
"""
_SAVE = """
local revision = tonumber(redis.call('HGET', KEYS[1], 'r') or '0')
if revision ~= tonumber(ARGV[1]) then return -1 end
redis.call('HSET', KEYS[1], 'r', revision + 1, 's', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return revision + 1
"""

Answer = TypeVar("Answer")


class RedisStore:
    """Sessions of many processes. The times in the calls are not looked at: Redis has a clock of its own.

    Args:
        url: redis://, rediss:// or unix://, with password and database where wanted.
        idle_s: how long a session is kept that nobody asks for.
        timeout_s: how long to wait for Redis.
        prefix: of all names, so that others may use the same database.
        observer: is told what happens; never of expiry, which Redis does not tell.

    Raises:
        StartupError: no such URL.
    """

    def __init__(
        self,
        url: str,
        idle_s: float,
        timeout_s: float = 0.5,
        prefix: str = "reppose",
        observer: Observer | None = None,
    ) -> None:
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 1),  # once: for a connection that Redis closed while it was idle
            )
        except ValueError as error:
            raise StartupError(f"the sessions' store has no usable URL: {error}") from error
        self._idle_ms = max(1, round(idle_s * 1000))
        self._prefix = prefix
        self._observer = Unobserved() if observer is None else observer

    async def load(self, owner: str, name: str, now_s: float) -> Stored | None:
        """As in `Store`; being asked for counts as use."""
        revision, state = await _answer(self._redis.eval(_LOAD, 1, self._key(owner, name), self._idle_ms))
        return None if revision is None or state is None else Stored(state, int(revision))

    async def save(self, owner: str, name: str, state: bytes, revision: int, now_s: float) -> int:
        """As in `Store`. A save whose answer was lost may have been done: the next one is a SessionConflict then."""
        key = self._key(owner, name)
        after = await _answer(self._redis.eval(_SAVE, 1, key, revision, state, self._idle_ms))
        if after < 0:
            self._observer.count(Event.CONFLICT)
            raise SessionConflict("the session was continued elsewhere, or is gone")
        if revision == NEW:
            self._observer.count(Event.OPENED)
        return int(after)

    async def delete(self, owner: str, name: str, now_s: float) -> bool:
        """As in `Store`."""
        there = bool(await _answer(self._redis.delete(self._key(owner, name))))
        if there:
            self._observer.count(Event.CLOSED)
        return there

    async def ping(self) -> None:
        """Raise StoreUnavailable where Redis does not answer."""
        await _answer(self._redis.ping())

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _key(self, owner: str, name: str) -> str:
        digest = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._prefix}:session:{digest}:{name}"


async def _answer(call: Awaitable[Answer]) -> Answer:
    try:
        return await call
    except (RedisError, OSError) as error:
        raise StoreUnavailable("the sessions' store does not answer") from error
