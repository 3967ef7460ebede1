"""What a stream or a session begins with: what waits in the store, what a resume token holds, or nothing."""

from __future__ import annotations

from typing import Protocol

from pydantic import ValidationError

from service import decoding
from service.errors import InvalidRequest, InvalidToken
from service.logs import facts, log
from service.registry import Registry
from service.streams import state
from service.streams.contract import Clocks, Opened, Rules, StreamConfig
from service.streams.session import Session
from service.streams.state import SessionConfig
from service.streams.store import NEW, Store, check_name
from service.streams.token import Signer


class Observer(Protocol):
    """Is told what happens, for metrics."""

    def resumed(self, source: str) -> None:
        """Something was continued, from the `store` or from a `token`."""
        ...


class Beginnings:
    """Opens sessions, and signs them for others to open.

    Args:
        registry: the models.
        store: where sessions wait.
        signer: of the resume tokens.
        observer: is told what happens.
        rules: what streams may do.
        clocks: what time it is.
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        signer: Signer,
        observer: Observer,
        rules: Rules,
        clocks: Clocks,
    ) -> None:
        self._registry, self._store, self._signer = registry, store, signer
        self._observer, self._rules, self._clocks = observer, rules, clocks

    async def begin(self, config: StreamConfig, owner: str) -> tuple[Session, Opened, int]:
        """The session of a stream, what it came to be, and its revision in the store.

        Raises:
            UnknownModel, UnknownDecoder, InvalidRequest, InvalidToken, BrokenSession, StoreUnavailable: it cannot be.
        """
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

    def sign(self, session: Session, owner: str) -> str:
        """A token; empty where the session is too large for one."""
        try:
            return self._signer.sign(session.to_bytes(), session.config.model, owner, self._clocks.wall())
        except InvalidToken as error:
            log.warning("no resume token", extra=facts(why=str(error)))
            return ""

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
            where = [str(each) for each in fault["loc"]]
            raise InvalidRequest(f"{'.'.join(where)}: {fault['msg']}", where[0]) from error
        return Session(settings, model.skeleton.sigmas, calibration=model.manifest.score_calibration)

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
        model = self._registry.get(settings.model)
        return Session(settings, model.skeleton.sigmas, begin, model.manifest.score_calibration)
