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

from pydantic import ValidationError

from service import decoding
from service.errors import (
    DeadlineExceeded,
    InvalidRequest,
    InvalidToken,
    NotReady,
    Overloaded,
    ServiceError,
    SessionConflict,
    StoreUnavailable,
)
from service.logs import facts, log
from service.registry import Registry
from service.streams import live, state
from service.streams import store as stores
from service.streams.contract import (
    MAX_SEQUENCE,
    Answered,
    Failed,
    Opened,
    StreamConfig,
    StreamFrame,
)
from service.streams.live import Clocks, Predict, Stream
from service.streams.session import Session
from service.streams.state import SessionConfig
from service.streams.store import NEW, Store, check_name
from service.streams.token import Signer

CLOCKS = Clocks(time.monotonic, time.time)
_ROUNDS = 4
"""How often per idle time, at least, everything is looked after."""


class Observer(live.Observer, Protocol):
    """Is told what happens, for metrics."""

    def opened(self, transport: str) -> None:
        """A stream begins."""

    def closed(self, transport: str) -> None:
        """A stream has ended."""

    def resumed(self, source: str) -> None:
        """Something was continued, from the `store` or from a `token`."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What streams may do."""

    streams: int = 256
    """Most open streams."""
    mailbox: int = 16
    """Most frames that may wait in a live stream."""
    max_age_s: float = 1.0
    """After this long a live frame is not worth an answer."""
    idle_s: float = 60.0
    """How long a stream may be silent."""
    save_s: float = 5.0
    """How often the session of an open stream is saved."""
    in_flight: int = 1
    """Most frames of a stream without tracking in a model's queue."""
    window: int = 16
    """Most unanswered frames of a file stream."""
    boxes: int = 32
    """Most boxes of one frame."""
    log: bool = True
    """Write a line for every stream that has ended."""


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
        rules: Rules = Rules(),
        clocks: Clocks = CLOCKS,
    ) -> None:
        self._predict, self._registry, self._store = predict, registry, store
        self._signer, self._observer, self._rules, self._clocks = signer, observer, rules, clocks
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
                session, opened, revision = await self._begin(config, owner)
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

    async def frame(
        self,
        config: StreamConfig,
        owner: str,
        frame: StreamFrame,
        *,
        numbered: bool,
        deadline_s: float,
    ) -> tuple[Answered, Opened]:
        """Answer one frame of a session whose client holds no stream; the session is begun where there is none.

        Args:
            config: with the session's name.
            owner: whose it is.
            frame: the frame.
            numbered: its `sequence` means something.
            deadline_s: as `Predictor.predict` takes it.

        Raises:
            What `open` and `Predictor.predict` raise; SessionConflict where a stream has the session, or somebody else
            continued it at the same time.
        """
        try:
            answer, opened = await self._frame(config, owner, frame, numbered, deadline_s)
        except Exception as error:
            self._observer.frame(Failed(frame.sequence, error))
            raise
        self._observer.frame(answer)
        return answer, opened

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

    async def _frame(
        self, config: StreamConfig, owner: str, frame: StreamFrame, numbered: bool, deadline_s: float
    ) -> tuple[Answered, Opened]:
        if self._draining:
            raise NotReady("the service is stopping")
        arrived_s = self._clocks.monotonic()
        if (owner, config.session) in self._by_name:
            raise SessionConflict("a stream has this session")
        session, opened, revision = await self._begin(config, owner)
        sequence = frame.sequence if numbered else None
        if numbered and not (-1 if session.sequence is None else session.sequence) < sequence <= MAX_SEQUENCE:
            raise InvalidRequest(
                f"sequence must rise up to 2^63 - 1: {sequence} follows {session.sequence}", "sequence"
            )
        time_s = self._clocks.wall() if frame.timestamp_s is None else frame.timestamp_s
        session.check_time(time_s)
        prediction, planned = await live.look(
            session,
            opened,
            self._predict,
            frame,
            time_s,
            wait_for_room=False,
            deadline_s=deadline_s,
            max_boxes=self._rules.boxes,
        )
        poses = session.update(time_s, prediction.poses, prediction.size, planned=planned, sequence=sequence)
        if (owner, config.session) in self._by_name:
            raise SessionConflict("a stream has taken this session meanwhile")
        now_s = self._clocks.monotonic()
        await self._store.save(owner, check_name(config.session or ""), session.to_bytes(), revision, now_s)
        token = self._sign(session, owner) if frame.want_token else None
        return Answered(sequence, prediction, poses, now_s - arrived_s, token), opened

    async def _begin(self, config: StreamConfig, owner: str) -> tuple[Session, Opened, int]:
        """The session of a stream, what it came to be, and its revision in the store."""
        revision, found, source = NEW, None, ""
        if config.session is not None:
            stored = await self._store.load(owner, check_name(config.session), self._clocks.monotonic())
            if stored is not None:
                found, revision = stored
                source = "store"
        if config.resume_token is not None:
            found = self._signer.open(config.resume_token, owner, self._clocks.wall()).state
            source = "token"
        session = self._new(config) if found is None else self._continued(found, config)
        model = self._registry.get(session.config.model)
        opened = Opened(
            model=session.config.model,
            decoder=decoding.pick(model.manifest, config.decoder).name,
            smoothing=session.config.smoothing,
            parameters=session.config.parameters,
            tracking=session.config.tracking,
            mode=config.mode,
            mailbox=1 if config.mailbox is None else config.mailbox,
            max_age_s=min(config.max_age_s or self._rules.max_age_s, self._rules.max_age_s),
            resumed=found is not None,
            last_sequence=session.sequence,
            last_time_s=session.time_s,
        )
        if not 1 <= opened.mailbox <= self._rules.mailbox:
            raise InvalidRequest(f"mailbox must lie between 1 and {self._rules.mailbox}", "mailbox")
        if not opened.max_age_s > 0:
            raise InvalidRequest("the longest age of a frame must be positive", "max_age_ms")
        if source:
            self._observer.resumed(source)
        return session, opened, revision

    def _new(self, config: StreamConfig) -> Session:
        model = self._registry.get(config.model)
        asked = {"smoothing": config.smoothing, "tracking": config.tracking}
        try:
            settings = SessionConfig(
                model=model.reference,
                keypoints=len(model.manifest.keypoints),
                parameters={name: float(value) for name, value in config.parameters.items()},
                **{name: value for name, value in asked.items() if value is not None},
            )
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            raise InvalidRequest(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}", "smoothing"
            ) from error
        return Session(settings, model.skeleton.sigmas)

    def _continued(self, data: bytes, config: StreamConfig) -> Session:
        """The session of these bytes, if it is what the client says that it is."""
        settings, begin = state.from_bytes(data)
        same = {
            "model": config.model in (None, settings.model, settings.model.partition("@")[0]),
            "smoothing": config.smoothing in (None, settings.smoothing),
            "parameters": not config.parameters or dict(config.parameters) == settings.parameters,
            "tracking": config.tracking in (None, settings.tracking),
        }
        for field, holds in same.items():
            if not holds:
                was = getattr(settings, field)
                raise InvalidRequest(f"the session was opened with {field} {was!r}", field)
        return Session(settings, self._registry.get(settings.model).skeleton.sigmas, begin)

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
            sign=lambda each: self._sign(each, owner),
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

    def _sign(self, session: Session, owner: str) -> str:
        """A token; empty where the session is too large for one."""
        try:
            return self._signer.sign(session.to_bytes(), session.config.model, owner, self._clocks.wall())
        except InvalidToken as error:
            log.warning("no resume token", extra=facts(why=str(error)))
            return ""

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
