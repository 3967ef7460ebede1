"""Where sessions wait between the requests of clients that hold no connection.

A store keeps bytes under an owner and a name. The owner is part of the key: to anybody else a session does not exist.
Every entry has a revision; who saves says which one they read, so that two replicas that continue one session at the
same time cannot overwrite each other in silence: the later one gets a SessionConflict.

`MemoryStore` is for one process, `redis_store.RedisStore` for many; `opening.open_store` picks one.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from enum import StrEnum
from typing import NamedTuple, Protocol

from service.errors import InvalidRequest, Overloaded, SessionConflict

NEW = 0
"""The revision of a session that is not in the store yet."""
OVERHEAD_BYTES = 768
"""What an entry of a `MemoryStore` takes beside its texts and bytes: 410 on CPython 3.11, and more
while the table grows."""
NAME = re.compile(r"[A-Za-z0-9._~-]{1,64}")


class Event(StrEnum):
    """What happened to a session in a store."""

    OPENED = "opened"
    EXPIRED = "expired"
    """Nobody asked for it for too long."""
    EVICTED = "evicted"
    """It made room for another one."""
    CLOSED = "closed"
    CONFLICT = "conflict"
    """A save was refused because somebody else had saved."""


class Observer(Protocol):
    """Is told what happens, for metrics."""

    def count(self, event: Event, number: int = 1) -> None:
        """It happened to so many sessions."""
        ...


class Unobserved:
    """Nobody looks."""

    def count(self, event: Event, number: int = 1) -> None:
        """Nothing."""


class Stored(NamedTuple):
    """What a store keeps of a session."""

    state: bytes
    revision: int
    """1 and up."""


class Store(Protocol):
    """Sessions by owner and name. Times are seconds on a clock that only moves forward."""

    async def load(self, owner: str, name: str, now_s: float) -> Stored | None:
        """The session; None where this owner has none of this name, or it was idle for too long.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        ...

    async def save(self, owner: str, name: str, state: bytes, revision: int, now_s: float) -> int:
        """Keep a session for another idle period.

        Args:
            owner: whose it is.
            name: as `check_name` allows.
            state: the bytes.
            revision: as loaded, or NEW for one that is not there yet.
            now_s: the time.

        Returns:
            Its new revision.

        Raises:
            SessionConflict: the store has another revision of it, or none.
            Overloaded: it alone is larger than the store.
            StoreUnavailable: the store does not answer.
        """
        ...

    async def delete(self, owner: str, name: str, now_s: float) -> bool:
        """Forget a session; whether there was one. Raises StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def new_name() -> str:
    """A name that nobody can guess."""
    return secrets.token_urlsafe(16)


def check_name(name: str) -> str:
    """The name of a session, if it is one.

    Raises:
        InvalidRequest: it is too long or has other characters than those of an unreserved URL part.
    """
    if not NAME.fullmatch(name):
        raise InvalidRequest("a session's name has 1 to 64 letters, digits or characters of ._~-", "session")
    return name


def size_of(owner: str, name: str, state: bytes) -> int:
    """About what a session takes in memory, in bytes: what it holds, and what Python adds."""
    return len(state) + 4 * len(owner) + len(name) + OVERHEAD_BYTES


class MemoryStore:
    """Sessions of one process.

    Args:
        capacity: most sessions; one more evicts that which was not asked for the longest.
        idle_s: how long one is kept that nobody asks for.
        observer: is told what happens.
        most_bytes: what all of them may take, by `size_of`; beyond it they are evicted in the same order.
    """

    def __init__(
        self,
        capacity: int,
        idle_s: float,
        observer: Observer | None = None,
        most_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        if capacity < 1 or most_bytes < 1 or not idle_s > 0:
            raise ValueError("capacity, most_bytes and idle_s must be positive")
        self._capacity, self._most_bytes, self._idle_s = capacity, most_bytes, idle_s
        self._observer = Unobserved() if observer is None else observer
        self._kept: OrderedDict[tuple[str, str], tuple[Stored, float]] = OrderedDict()
        self.bytes = 0
        """What the sessions take."""

    def __len__(self) -> int:
        return len(self._kept)

    def expire(self, now_s: float) -> int:
        """Drop what was idle for too long, and say how many; every other call does so too."""
        gone = 0
        while self._kept:
            key, (_, used_s) = next(iter(self._kept.items()))
            if now_s - used_s < self._idle_s:
                break
            self._drop(key)
            gone += 1
        if gone:
            self._observer.count(Event.EXPIRED, gone)
        return gone

    async def load(self, owner: str, name: str, now_s: float) -> Stored | None:
        """As in `Store`; being asked for counts as use."""
        self.expire(now_s)
        found = self._kept.get((owner, name))
        if found is None:
            return None
        self._use((owner, name), found[0], now_s)
        return found[0]

    async def save(self, owner: str, name: str, state: bytes, revision: int, now_s: float) -> int:
        """As in `Store`."""
        self.expire(now_s)
        key = (owner, name)
        found = self._kept.get(key)
        if (found[0].revision if found else NEW) != revision:
            self._observer.count(Event.CONFLICT)
            raise SessionConflict("the session was continued elsewhere, or is gone")
        needed = size_of(owner, name, state)
        if needed > self._most_bytes:
            raise Overloaded(f"the session takes {needed} bytes, of {self._most_bytes} that all may take")
        if found is None:
            self._observer.count(Event.OPENED)
        else:
            self._drop(key)
        while len(self._kept) >= self._capacity or self.bytes + needed > self._most_bytes:
            self._drop(next(iter(self._kept)))
            self._observer.count(Event.EVICTED)
        self.bytes += needed
        self._use(key, Stored(bytes(state), revision + 1), now_s)
        return revision + 1

    async def delete(self, owner: str, name: str, now_s: float) -> bool:
        """As in `Store`."""
        self.expire(now_s)
        there = (owner, name) in self._kept
        if there:
            self._drop((owner, name))
            self._observer.count(Event.CLOSED)
        return there

    async def close(self) -> None:
        """Nothing to let go of."""

    def _drop(self, key: tuple[str, str]) -> None:
        stored, _ = self._kept.pop(key)
        self.bytes -= size_of(*key, stored.state)

    def _use(self, key: tuple[str, str], stored: Stored, now_s: float) -> None:
        self._kept[key] = (stored, now_s)
        self._kept.move_to_end(key)
