"""All open streams, and the sessions that outlive them: opening, continuing, saving, draining.

A stream with a session keeps its state here while it is open, and in the store from time to time and when it ends. Who
opens a session again, in this process, gets it from the stream that has it, and that stream ends: a client that lost
its connection must not wait until the service has noticed. Between processes the store's revisions decide.

Owners are whatever the service knows clients by; a session is found under its owner only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from service.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    ServiceError,
    SessionConflict,
    StoreUnavailable,
)
from service.logs import facts, log
from service.registry import Registry
from service.streams import beginning, live
from service.streams import store as stores
from service.streams.beginning import Beginnings
from service.streams.contract import (
    Answered,
    Clocks,
    Opened,
    Rules,
    StreamConfig,
    StreamFrame,
)
from service.streams.live import Stream
from service.streams.looking import Predict
from service.streams.session import Session
from service.streams.single import Singles
from service.streams.store import NEW, Store, check_name
from service.streams.token import Signer
from service.types import Prediction

CLOCKS = Clocks(time.monotonic, time.time)
RULES = Rules()
_ROUNDS = 4
"""How often per idle time, at least, everything is looked after."""


class Observer(live.Observer, beginning.Observer, Protocol):
    """Is told what happens, for metrics."""

    def opened(self, transport: str) -> None:
        """A stream begins."""

    def closed(self, transport: str) -> None:
        """A stream that was opened is no longer there."""

    def ended(self, transport: str, failure: Exception | None) -> None:
        """A stream has come to its end, or could not be opened."""

    def encoded(self, prediction: Prediction, seconds: float) -> None:
        """The answer to a frame of a stream became JSON or a message."""


@dataclass(eq=False, slots=True)
class _Held:
    """What the hub knows about an open stream."""

    stream: Stream
    owner: str
    name: str | None
    revision: int
    transport: str
    cut: Callable[[], None]
    saved_s: float
    saved: int | None
    """Sequence of the last frame that was saved."""


class Hub:
    """All open streams of a process.

    Args:
        predict: `Predictor.predict`.
        registry: the models.
        store: where sessions wait.
        signer: of the resume tokens.
        observer: is told what happens.
        rules: what streams may do.
        clocks: what time it is.
    """

    def __init__(
        self,
        predict: Predict,
        registry: Registry,
        store: Store,
        signer: Signer,
        observer: Observer,
        rules: Rules = RULES,
        clocks: Clocks = CLOCKS,
    ) -> None:
        self._predict, self._store, self._observer = predict, store, observer
        self._rules, self._clocks = rules, clocks
        self._beginnings = Beginnings(registry, store, signer, observer, rules, clocks)
        self._singles = Singles(
            predict, store, self._beginnings, observer, rules, clocks, lambda *key: key in self._by_name
        )
        self._held: dict[Stream, _Held] = {}
        self._by_name: dict[tuple[str, str], _Held] = {}
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._opening = 0
        self._draining = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._caretaker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._held)

    def start(self) -> None:
        """Begin to look after idle streams and unsaved sessions."""
        self._caretaker = asyncio.create_task(self._look_after())

    async def open(self, config: StreamConfig, owner: str, transport: str, cut: Callable[[], None]) -> Stream:
        """Open a stream; whoever does must `close` it.

        Args:
            config: what the client asks for.
            owner: whose it is.
            transport: label for the metrics.
            cut: ends the connection at once; called where a client does not read what it was sent.

        Raises:
            NotReady, Overloaded, UnknownModel, UnknownDecoder, InvalidRequest, InvalidToken, BrokenSession,
            StoreUnavailable: it cannot be.
        """
        try:
            return await self._open(config, owner, transport, cut)
        except Exception as error:
            self._observer.ended(transport, error)
            raise

    async def _open(
        self, config: StreamConfig, owner: str, transport: str, cut: Callable[[], None]
    ) -> Stream:
        if self._draining:
            raise NotReady("the service is stopping")
        if len(self._held) + self._opening >= self._rules.streams:
            raise Overloaded(f"{self._rules.streams} streams are open already; try again a little later")
        self._opening += 1
        try:
            async with self._turn(owner, config.session):
                if (rival := self._by_name.get((owner, config.session or ""))) is not None:
                    rival.stream.fail(SessionConflict("the session was opened again"))
                    await self._release(rival)
                session, opened, revision = await self._beginnings.begin(config, owner)
                if self._draining:
                    raise NotReady("the service is stopping")
                held = self._hold(session, opened, config.session, revision, owner, transport, cut)
        finally:
            self._opening -= 1
        return held.stream

    async def close(self, stream: Stream) -> None:
        """A stream's connection has ended: compute nothing more for it, and save its session."""
        held = self._held.pop(stream, None)
        if held is None:
            return
        try:
            async with self._turn(held.owner, held.name):
                await self._release(held)
        finally:
            self._observer.closed(held.transport)
            self._observer.ended(held.transport, stream.failure)
            if not self._held:
                self._quiet.set()
            if self._rules.log:
                failure = stream.failure
                log.info(
                    "stream",
                    extra=facts(
                        transport=held.transport,
                        mode=stream.opened.mode.value,
                        ended=None if failure is None else str(failure)[:200],
                        **stream.counts,
                    ),
                )

    def encoded(self, answer: Answered, seconds: float) -> None:
        """The answer to a frame has become JSON or a message."""
        self._observer.encoded(answer.prediction, seconds)

    async def frame(
        self,
        config: StreamConfig,
        owner: str,
        frame: StreamFrame,
        *,
        numbered: bool,
        deadline_s: float,
    ) -> tuple[Answered, Opened]:
        """Answer one frame of a session whose client holds no stream, see `single.Singles.answer`."""
        if self._draining:
            raise NotReady("the service is stopping")
        return await self._singles.answer(config, owner, frame, numbered=numbered, deadline_s=deadline_s)

    async def forget(self, owner: str, name: str) -> bool:
        """Forget a session; whether there was one. A stream that has it ends.

        Raises:
            InvalidRequest, StoreUnavailable.
        """
        check_name(name)
        async with self._turn(owner, name):
            held = self._by_name.get((owner, name))
            if held is not None:
                held.stream.fail(SessionConflict("the session was deleted"))
                await self._release(held)
            return await self._store.delete(owner, name, self._clocks.monotonic()) or held is not None

    async def drain(self, timeout_s: float) -> bool:
        """Open no more streams, and end all with a token; whether all have ended in time."""
        self._draining = True
        for stream in list(self._held):
            stream.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()
                return True
        for held in list(self._held.values()):
            held.cut()
        return False

    async def stop(self) -> None:
        """Let go of everything."""
        if self._caretaker is not None:
            self._caretaker.cancel()
            await asyncio.gather(self._caretaker, return_exceptions=True)
        for stream in list(self._held):
            await self.close(stream)
        await self._store.close()

    def _hold(
        self,
        session: Session,
        opened: Opened,
        name: str | None,
        revision: int,
        owner: str,
        transport: str,
        cut: Callable[[], None],
    ) -> _Held:
        rules = self._rules
        stream = Stream(
            session,
            opened,
            self._predict,
            sign=lambda each: self._beginnings.sign(each, owner),
            clocks=self._clocks,
            observer=self._observer,
            in_flight=rules.in_flight,
            window=rules.window,
            max_boxes=rules.boxes,
        )
        held = _Held(
            stream, owner, name, revision, transport, cut, self._clocks.monotonic(), session.sequence
        )
        self._held[stream] = held
        if name is not None:
            self._by_name[owner, name] = held
        self._quiet.clear()
        self._observer.opened(transport)
        return held

    async def _release(self, held: _Held) -> None:
        """Stop a stream and save its session; whoever opens it next has all of it."""
        await held.stream.stop()
        if held.name is None or self._by_name.get((held.owner, held.name)) is not held:
            return
        try:
            await self._save(held)
        except ServiceError as error:
            log.warning("a session was not saved", extra=facts(why=str(error)))
        finally:
            self._by_name.pop((held.owner, held.name), None)

    async def _save(self, held: _Held) -> None:
        """Raises SessionConflict, StoreUnavailable."""
        data, sequence = held.stream.session.to_bytes(), held.stream.session.sequence
        now_s = self._clocks.monotonic()
        try:
            held.revision = await self._store.save(held.owner, held.name, data, held.revision, now_s)
        except SessionConflict:
            if await self._store.load(held.owner, held.name, now_s) is not None:
                raise
            # it made room for others, which nobody else has noticed
            held.revision = await self._store.save(held.owner, held.name, data, NEW, now_s)
        held.saved_s, held.saved = now_s, sequence

    def _turn(self, owner: str, name: str | None) -> asyncio.Lock:
        """One at a time for each session; where there is none, nobody else is waited for."""
        return self._turns.setdefault((owner, name), asyncio.Lock()) if name is not None else asyncio.Lock()

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._rules.idle_s / _ROUNDS, self._rules.save_s))
            try:
                self._end_idle()
                await self._save_all()
            except Exception as error:
                log.error("failed to look after the streams", exc_info=error)

    def _end_idle(self) -> None:
        now_s, idle_s = self._clocks.monotonic(), self._rules.idle_s
        for held in list(self._held.values()):
            stream = held.stream
            if now_s - stream.moved_s < idle_s:
                continue
            if stream.ended_s is None:
                stream.fail(DeadlineExceeded(f"no message in {idle_s:g} s"))
            elif now_s - stream.ended_s >= min(idle_s, 5.0):
                held.cut()
        if isinstance(self._store, stores.MemoryStore):
            self._store.expire(now_s)

    async def _save_all(self) -> None:
        """Save what has changed, and keep what has not from expiring."""
        for held in list(self._by_name.values()):
            if (
                self._clocks.monotonic() - held.saved_s < self._rules.save_s
                or held.stream.ended_s is not None
            ):
                continue
            async with self._turn(held.owner, held.name):
                if self._by_name.get((held.owner, held.name)) is not held:
                    continue
                try:
                    await self._save(held)
                except SessionConflict:
                    held.stream.fail(SessionConflict("the session was continued elsewhere"))
                except StoreUnavailable as error:
                    log.warning("sessions were not saved", extra=facts(why=str(error)))
                    return
