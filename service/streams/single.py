"""Frames of sessions whose clients hold no stream: each one loads the session, takes it on by a frame, and saves it."""

from __future__ import annotations

import time
from collections.abc import Callable

from service import tracing
from service.errors import SessionConflict
from service.streams.beginning import Beginnings
from service.streams.contract import Answered, Clocks, Failed, Opened, Rules, StreamConfig, StreamFrame
from service.streams.live import Observer
from service.streams.looking import Predict, look
from service.streams.order import check_sequence
from service.streams.store import Store, check_name


class Singles:
    """Answers single frames.

    Args:
        predict: `Predictor.predict`.
        store: where the sessions wait.
        beginnings: opens them.
        observer: is told of every frame.
        rules: what streams may do.
        clocks: what time it is.
        streamed: owner and name -> whether a stream has this session.
    """

    def __init__(
        self,
        predict: Predict,
        store: Store,
        beginnings: Beginnings,
        observer: Observer,
        rules: Rules,
        clocks: Clocks,
        streamed: Callable[[str, str], bool],
    ) -> None:
        self._predict, self._store, self._beginnings = predict, store, beginnings
        self._observer, self._rules, self._clocks, self._streamed = observer, rules, clocks, streamed

    async def answer(
        self, config: StreamConfig, owner: str, frame: StreamFrame, *, numbered: bool, deadline_s: float
    ) -> tuple[Answered, Opened]:
        """Answer one frame; the session is begun where there is none.

        Args:
            config: with the session's name.
            owner: whose it is.
            frame: the frame.
            numbered: its `sequence` means something.
            deadline_s: as `Predictor.predict` takes it.

        Raises:
            What `Beginnings.begin` and `Predictor.predict` raise; SessionConflict where a stream has the session, or
            somebody else continued it at the same time.
        """
        try:
            answer, opened = await self._answer(config, owner, frame, numbered, deadline_s)
        except Exception as error:
            self._observer.frame(Failed(frame.sequence, error))
            raise
        self._observer.frame(answer)
        return answer, opened

    async def _answer(
        self, config: StreamConfig, owner: str, frame: StreamFrame, numbered: bool, deadline_s: float
    ) -> tuple[Answered, Opened]:
        arrived_s = self._clocks.monotonic()
        name = check_name(config.session or "")
        if self._streamed(owner, name):
            raise SessionConflict("a stream has this session")
        session, opened, revision = await self._beginnings.begin(config, owner)
        sequence = check_sequence(frame.sequence, session.sequence) if numbered else None
        time_s = self._clocks.wall() if frame.timestamp_s is None else frame.timestamp_s
        session.check_time(time_s)
        prediction, planned = await look(
            session,
            opened,
            self._predict,
            frame,
            time_s,
            wait_for_room=False,
            deadline_s=deadline_s,
            max_boxes=self._rules.boxes,
        )
        began_s = time.perf_counter()
        poses = session.update(time_s, prediction.poses, prediction.size, planned=planned, sequence=sequence)
        smooth_s = tracing.spent("smooth", began_s)
        if self._streamed(owner, name):
            raise SessionConflict("a stream has taken this session meanwhile")
        now_s = self._clocks.monotonic()
        await self._store.save(owner, name, session.to_bytes(), revision, now_s)
        token = self._beginnings.sign(session, owner) if frame.want_token else None
        return Answered(sequence, prediction, poses, now_s - arrived_s, token, smooth_s), opened
