"""Pick the store of the sessions."""

from __future__ import annotations

from service.errors import StartupError
from service.streams.store import MemoryStore, Observer, Store


def open_store(
    url: str | None,
    *,
    capacity: int,
    idle_s: float,
    timeout_s: float,
    most_bytes: int = 256 * 1024 * 1024,
    prefix: str = "reppose",
    observer: Observer | None = None,
) -> Store:
    """A `RedisStore` where there is a URL, else a `MemoryStore`. Connects to nothing yet.

    Args:
        url: of Redis, or None.
        capacity: most sessions in memory; Redis has limits of its own, as for the bytes.
        idle_s: how long a session is kept that nobody asks for.
        timeout_s: how long to wait for Redis.
        most_bytes: what the sessions in memory may take.
        prefix: of all names in Redis.
        observer: is told what happens.

    Raises:
        StartupError: the URL is none, or Redis's client is not installed.
    """
    if not url:
        return MemoryStore(capacity, idle_s, observer, most_bytes)
    try:
        from service.streams.redis_store import RedisStore
    except ImportError as error:
        raise StartupError(
            "a shared store of sessions needs the extra: pip install 'reppose[redis]'"
        ) from error
    return RedisStore(url, idle_s, timeout_s, prefix, observer)
