"""Every Prometheus series of the service. Base units; labels from closed sets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service import gpu_metrics
from service.access_metrics import AccessMetrics
from service.gpu_metrics import GpuCollector
from service.head_metrics import HeadMetrics
from service.histogram import Histogram, Series
from service.listener_metrics import ListenerMetrics
from service.stream_metrics import StreamMetrics
from service.types import Pose

_REQUEST_SECONDS = (
    0.002,
    0.005,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_STAGE_SECONDS = (
    0.0001,
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    5.0,
)
_BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_SCORES = tuple(tenth / 10 for tenth in range(1, 11))
_DISAGREEMENT_PX = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

STAGES = (
    "queue",
    "decode",
    "warp",
    "infer",
    "decode_keypoints",
    "render",
    "total",
    "smooth",
    "encode",
)
"""What a frame goes through: waiting, bytes to pixels, pixels to crops, crops to heatmaps, heatmaps to points, drawing
where that was asked for; `total` is all of that, with what is between. Then a stream smooths the points, and the answer
becomes JSON or a message. `warp`, `infer` and `decode_keypoints` are counted once per call of the net, the others once
per frame."""
REPLACED = ("stuck", "died")
"""Why workers are given up."""
REFUSED = ("full", "late", "expired", "gone")
"""Why frames leave the queue, or never enter it, without being looked at."""


class Metrics:
    """All series of the service; made once by the server and handed to the stages."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.requests = Counter(
            "reppose_requests",
            "Requests and stream frames that ended; outcome is 'ok', 'client_gone' or the code of an error.",
            ["transport", "method", "outcome"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "reppose_request_seconds",
            "From the arrival of a request to its answer.",
            ["transport", "method"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "reppose_stage_seconds",
            "Time in one stage; warp, infer and decode_keypoints are counted once per call of the model, the others "
            "once per frame. total is all before the answer is smoothed and encoded.",
            ["model", "stage"],
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._batch_crops = Histogram(
            "reppose_batch_crops",
            "Crops in one call of the model.",
            ["model"],
            buckets=_BATCH_SIZES,
            registry=registry,
        )
        self._images = Counter("reppose_images", "Images that were answered.", ["model"], registry=registry)
        self._people = Counter(
            "reppose_people", "Poses of people in images that were answered.", ["model"], registry=registry
        )
        self._scores = Histogram(
            "reppose_pose_score",
            "Score of a pose that was answered: the mean of its keypoints.",
            ["model"],
            buckets=_SCORES,
            registry=registry,
        )
        self._disagreement = Histogram(
            "reppose_decoder_disagreement_pixels",
            "Largest distance between what two decoders find for the same keypoint of a person, in pixels of the "
            "image; of requests that compare decoders.",
            ["model"],
            buckets=_DISAGREEMENT_PX,
            registry=registry,
        )
        self._refused = Counter(
            "reppose_queue_refused",
            "Frames that no worker looked at; reason is 'full' (no room in the queue), 'late' (the answer would have "
            "come after the deadline), 'expired' (the deadline passed in the queue) or 'gone' (the client left).",
            ["model", "reason"],
            registry=registry,
        )
        self._gpus: GpuCollector | None = None
        self._watched: dict[str, tuple[Callable[[], int], Callable[[], float]]] = {}
        self._queue_depth = Gauge(
            "reppose_queue_depth", "Frames that wait for a worker.", ["model"], registry=registry
        )
        self._queue_capacity = Gauge(
            "reppose_queue_capacity",
            "Most frames that may wait; one more is refused.",
            ["model"],
            registry=registry,
        )
        self._worker_busy = Gauge(
            "reppose_worker_busy_seconds",
            "How long the slowest worker has been at its present batch; one that hangs makes it grow.",
            ["model"],
            registry=registry,
        )
        self._workers_replaced = Counter(
            "reppose_workers_replaced",
            "Workers that were given up, and replaced; reason is 'stuck' or 'died'.",
            ["model", "reason"],
            registry=registry,
        )
        self._model_info = Gauge(
            "reppose_model_info",
            "1 for every model that is served.",
            ["model", "version", "skeleton", "default"],
            registry=registry,
        )
        self._model_load_seconds = Gauge(
            "reppose_model_load_seconds",
            "From opening a model's graph to the end of its warm-up.",
            ["model"],
            registry=registry,
        )
        self._model_memory = Gauge(
            "reppose_model_memory_bytes",
            "How much the process grew, in resident memory, while it loaded and warmed up this model. What other "
            "work took or gave back meanwhile is counted in, and memory that an earlier model left may be used again.",
            ["model"],
            registry=registry,
        )
        self.reloads = Counter(
            "reppose_reloads",
            "Times that the models were read again; outcome is 'ok' or 'failed'.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("ok", "failed"):  # a series that begins with 1 has not increased, by Prometheus
            self.reloads.labels(outcome)
        self.streams = StreamMetrics(registry, self.stage)
        """Of streams and sessions."""
        self._heads = HeadMetrics(registry)
        self.listeners = ListenerMetrics(registry)
        """Of connections."""
        self.access = AccessMetrics(registry)
        """Of who was let in."""
        self.ready = Gauge("reppose_ready", "1 while the service takes requests.", registry=registry)

    @cache  # noqa: B019 - lives as long as the process, and has few entries: to look up a child by its labels is dear
    def _answered(self, transport: str, method: str, outcome: str) -> tuple[Counter, Series]:
        return (
            self.requests.labels(transport, method, outcome),
            self.request_seconds.labels(transport, method),
        )

    def answered(
        self, transport: str, method: str, outcome: str, seconds: float, trace_id: str | None = None
    ) -> None:
        """Count one request that ended; where it was traced, as an example of its duration."""
        count, spent = self._answered(transport, method, outcome)
        count.inc()
        spent.observe(seconds, trace_id)

    @cache  # noqa: B019 - as above
    def stage(self, model: str, version: str, stage: str) -> Series:
        """One of STAGES of a model, for those who have its answers."""
        return self._stage_seconds.labels(f"{model}@{version}", stage)

    def stages(self, reference: str, *, has_heads: bool = False) -> StageMetrics:
        """The series of one model's stages, and of what it says beside keypoints if it does."""
        return StageMetrics(
            {stage: self._stage_seconds.labels(reference, stage) for stage in STAGES},
            self._batch_crops.labels(reference),
            self._images.labels(reference),
            self._people.labels(reference),
            self._scores.labels(reference),
            self._disagreement.labels(reference),
            {reason: self._workers_replaced.labels(reference, reason) for reason in REPLACED},
            {reason: self._refused.labels(reference, reason) for reason in REFUSED},
            self._heads.of(reference).found if has_heads else None,
        )

    def forget_models(self) -> None:
        """Drop what is reported of single models at present; counts of the past stay."""
        for gauge in (
            self._queue_depth,
            self._queue_capacity,
            self._worker_busy,
            self._model_info,
            self._model_load_seconds,
            self._model_memory,
        ):
            gauge.clear()
        self._watched.clear()

    def watch_queue(
        self, reference: str, depth: Callable[[], int], capacity: int, busy_s: Callable[[], float]
    ) -> None:
        """Report a model's queue and workers; `depth` and `busy_s` are asked at each scrape."""
        watched = self._watched
        watched[reference] = (depth, busy_s)

        # Each gauge is part of a circle and lives on until that is collected; the model must not live on with it.
        def present_depth() -> int:
            return watched[reference][0]()

        def present_busy_s() -> float:
            return watched[reference][1]()

        self._queue_depth.labels(reference).set_function(present_depth)
        self._worker_busy.labels(reference).set_function(present_busy_s)
        self._queue_capacity.labels(reference).set(capacity)

    def watch_gpus(self, library: str = gpu_metrics.LIBRARY) -> None:
        """Report the GPUs from now on, where the driver's library is there."""
        if self._gpus is None:
            with contextlib.suppress(OSError):
                self._gpus = GpuCollector(library)
                self.registry.register(self._gpus)

    def serves(self, name: str, version: str, skeleton: str, *, default: bool) -> None:
        """Note a model that is ready to answer."""
        self._model_info.labels(name, version, skeleton, str(default).lower()).set(1)

    def loaded(self, reference: str, load_s: float, memory_bytes: int) -> None:
        """Note what it took to load a model."""
        self._model_load_seconds.labels(reference).set(load_s)
        self._model_memory.labels(reference).set(memory_bytes)


def resident_bytes() -> int:
    """Memory that this process holds at present; 0 where there is no /proc."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class StageMetrics:
    """Where one model's time goes, and what it answers. May be used from many threads."""

    def __init__(
        self,
        seconds: dict[str, Series],
        crops: Series,
        images: Counter,
        people: Counter,
        scores: Series,
        disagreement: Series,
        replaced: dict[str, Counter],
        refused: dict[str, Counter],
        found: Callable[[Sequence[Pose]], None] | None = None,
    ) -> None:
        self.found = found
        """Counts what a model said of the people of a frame; None where it says nothing but keypoints."""
        self._seconds = seconds
        self._crops = crops
        self._images, self._people = images, people
        self._scores, self._disagreement = scores, disagreement
        self._replaced, self._refused = replaced, refused

    def spent(self, stage: str, seconds: float) -> None:
        """Time spent in one of STAGES."""
        self._seconds[stage].observe(seconds)

    def ran(self, crops: int) -> None:
        """The model was called with this many crops."""
        self._crops.observe(crops)

    def answered(self, total_s: Sequence[float], scores: Sequence[float]) -> None:
        """Images of a batch were answered, each after so long, with poses of these scores, all in all."""
        self._seconds["total"].observe_all(total_s)
        self._images.inc(len(total_s))
        self._people.inc(len(scores))
        self._scores.observe_all(scores)

    def compared(self, disagreement_px: float) -> None:
        """The decoders' points for a person are at most this far apart."""
        self._disagreement.observe(disagreement_px)

    def batch_taken(self, waited_s: Sequence[float]) -> None:
        """Frames left the queue after waiting this long."""
        self._seconds["queue"].observe_all(waited_s)

    def refused(self, reason: str) -> None:
        """A frame will not be looked at, for one of REFUSED."""
        self._refused[reason].inc()

    def worker_replaced(self, reason: str) -> None:
        """A worker was given up, for one of REPLACED."""
        self._replaced[reason].inc()
