"""Ask the model about one frame of a stream: where people are expected, or in the whole frame."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

from service.errors import InvalidBoxes
from service.streams.contract import Opened, StreamFrame
from service.streams.session import Session
from service.types import Box, Frame, Options, Prediction


class Predict(Protocol):
    """`Predictor.predict`."""

    async def __call__(
        self, frame: Frame, options: Options, *, wait_for_room: bool = False, deadline_s: float = math.inf
    ) -> Prediction:
        """Answer one frame."""
        ...


async def look(
    session: Session,
    opened: Opened,
    predict: Predict,
    frame: StreamFrame,
    time_s: float,
    *,
    wait_for_room: bool,
    deadline_s: float,
    max_boxes: int,
) -> tuple[Prediction, bool]:
    """What is seen in a frame, and whether it was looked at where people were expected.

    Raises:
        What `Predictor.predict` raises.
    """
    asked, sent = frame.options, frame.options.boxes
    expected = None if sent is not None else session.plan(time_s)
    if expected is not None:
        options = _options(asked, opened, expected[:max_boxes])
        try:
            prediction = await predict(
                frame.frame, options, wait_for_room=wait_for_room, deadline_s=deadline_s
            )
        except InvalidBoxes:  # outside of a frame that is smaller than the last one
            pass
        else:
            if prediction.size == session.size:
                return prediction, True
    options = _options(asked, opened, sent)
    prediction = await predict(frame.frame, options, wait_for_room=wait_for_room, deadline_s=deadline_s)
    return prediction, False


def _options(asked: Options, opened: Opened, boxes: tuple[Box, ...] | None) -> Options:
    return replace(asked, boxes=boxes, model=opened.model, decoder=opened.decoder, render=False)
