"""The use case: a frame and its options -> a prediction.

`Predictor` runs on the event loop: it picks model and decoder, refuses what is wrong with the request itself, and
queues a `Job`; `stages.Stages`, in the model's worker threads, knows the order of what is done with it.
"""

from __future__ import annotations

import math
import time

from model_zoo.manifest import BundleManifest
from service import decoding, heads, tracing
from service.errors import InvalidBoxes, InvalidRequest, NotReady
from service.images import ImageLimits
from service.looks import BOX_SIDES_PX, Job
from service.registry import Registry
from service.types import Box, Frame, Options, Prediction


class Predictor:
    """Answers frames with the models of a registry."""

    def __init__(
        self,
        registry: Registry,
        limits: ImageLimits,
        max_boxes: int,
        min_presence: float = heads.MIN_PRESENCE,
    ) -> None:
        self._registry = registry
        self._min_presence = min_presence
        self._limits = limits
        self._max_boxes = max_boxes

    async def predict(
        self,
        frame: Frame,
        options: Options,
        *,
        wait_for_room: bool = False,
        deadline_s: float = math.inf,
    ) -> Prediction:
        """Answer one frame. Cancelling this takes the frame out of the queue.

        Args:
            frame: as sent.
            options: as sent.
            wait_for_room: wait where the queue is full, instead of being refused.
            deadline_s: by `time.monotonic`; when the client will no longer want the answer.

        Raises:
            UnknownModel, UnknownDecoder, InvalidBoxes, InvalidImage, ImageTooLarge, InvalidRequest: the request is
                wrong.
            Overloaded: the queue is full.
            DeadlineExceeded: the answer cannot come in time, or did not.
            NotReady: the service starts or stops.
        """
        since_s = time.perf_counter()
        model = self._registry.get(options.model)
        self._limits.check_bytes(len(frame.data))
        if options.boxes is not None:
            self._check_boxes(options.boxes)
        while True:
            job = _job(frame, options, model.manifest, self._min_presence, since_s)
            if not wait_for_room:
                return await model.batcher.submit(job, deadline_s)
            try:
                answer = await model.batcher.submit_with_room(job, deadline_s)
            except NotReady:
                successor = self._registry.get(options.model)
                if successor is model:
                    raise
                model = successor  # it was replaced while this frame waited for room
            else:
                return await answer

    def _check_boxes(self, boxes: tuple[Box, ...]) -> None:
        """Refuse what no frame could make right."""
        if not 0 < len(boxes) <= self._max_boxes:
            raise InvalidBoxes(f"send 1 to {self._max_boxes} boxes, or none to have the person found")
        low, high = BOX_SIDES_PX
        for number, box in enumerate(boxes):
            if len(box) != 4 or not all(map(math.isfinite, box)):
                raise InvalidBoxes(f"box {number} is not four finite numbers x, y, width, height")
            if not all(low <= side <= high for side in box[2:]):
                raise InvalidBoxes(
                    f"width and height of box {number} must lie between {low:g} and {high:g} pixels"
                )


def _job(
    frame: Frame, options: Options, manifest: BundleManifest, min_presence: float, since_s: float
) -> Job:
    """Raises InvalidRequest, UnknownDecoder."""
    if options.heatmaps and manifest.heatmaps is None:
        raise InvalidRequest(f"{manifest.name} has no heatmaps to give", field="heatmaps")
    if options.heatmaps and options.render:
        raise InvalidRequest("a picture has no room for heatmaps; ask for one of them", field="heatmaps")
    on_heatmaps = options.compare or options.heatmaps
    decoder = decoding.pick(manifest, options.decoder, on_heatmaps=on_heatmaps)
    asked = heads.checked(options.min_presence)
    return Job(
        frame=frame,
        boxes=options.boxes,
        decoder=decoder,
        render=options.render,
        compare=options.compare,
        heatmaps=options.heatmaps,
        min_presence=min_presence if asked is None else asked,
        since_s=since_s,
        trace=tracing.sampled(),
    )
