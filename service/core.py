"""Everything between the transports and the models: which are loaded, what runs them, who answers with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
from prometheus_client import CollectorRegistry

from model_zoo import skeletons
from model_zoo.bundle import Bundle
from service import cpus, heads, runner
from service.batcher import Batcher
from service.images import ImageLimits
from service.logs import facts, log
from service.metrics import Metrics, StageMetrics, resident_bytes
from service.pipeline import Device
from service.predictor import Predictor
from service.registry import Registry, ServedModel
from service.runner import ON_GPU, Runner
from service.settings import Settings
from service.stages import Stages

_NO_TIME_S = 0.0
_PREPARERS_PER_CPU = 2
"""Workers that wait for a device, on average every other one of them, keep the processors busy with the others."""


@dataclass(frozen=True)
class Core:
    """Everything between the transports and the models."""

    registry: Registry
    predictor: Predictor
    metrics: Metrics
    limits: ImageLimits

    async def load(self, settings: Settings) -> None:
        """Load every model and start its workers; those that run already and are no longer there, or not the same,
        make room at once and finish what they have accepted. An error leaves everything as it was.

        Raises:
            StartupError: a bundle is missing, broken, or cannot be loaded.
        """
        cv2.setNumThreads(1)  # the workers are the threads
        lineup = await asyncio.to_thread(
            self.registry.prepare,
            settings.models.roots,
            settings.models.default,
            lambda found: _open_model(found, settings, self.limits, self.metrics),
        )
        served = set(self.registry)
        fresh = [model for model in lineup.models.values() if model not in served]
        try:
            for model in fresh:
                model.batcher.start()
        except BaseException:  # those that run already would go on for ever, unasked
            await asyncio.gather(*(model.stop(_NO_TIME_S) for model in fresh))
            raise
        leaving = self.registry.swap(lineup)
        self.metrics.forget_models()
        for model in self.registry:
            self.metrics.watch_queue(
                model.reference,
                lambda each=model: each.batcher.depth,
                model.batcher.capacity,
                lambda each=model: each.batcher.busy_s,
            )
            self.metrics.serves(
                model.bundle.name,
                model.bundle.version,
                model.manifest.skeleton,
                default=model is self.registry.default,
            )
            self.metrics.loaded(model.reference, model.load_s, model.memory_bytes)
            if model.provider in ON_GPU:
                self.metrics.watch_gpus()
        await asyncio.gather(*(model.stop(settings.drain.timeout_s) for model in leaving))

    async def stop(self, timeout_s: float) -> bool:
        """Finish what waits and stop the workers; whether all of it was finished in time."""
        return all(await asyncio.gather(*(model.stop(timeout_s) for model in self.registry)))


def build_core(settings: Settings) -> Core:
    """The core, not yet loaded."""
    limits = ImageLimits(
        settings.limits.image_bytes, settings.limits.image_pixels, settings.limits.image_side
    )
    registry = Registry()
    predictor = Predictor(registry, limits, settings.limits.boxes, settings.models.min_presence)
    return Core(registry, predictor, Metrics(CollectorRegistry()), limits)


def _open_model(found: Bundle, settings: Settings, limits: ImageLimits, metrics: Metrics) -> ServedModel:
    precision = settings.models.precision
    if precision == "auto":
        precision = "fp32" if found.int8_path is None else "int8"
    began_s, held_bytes = time.perf_counter(), resident_bytes()
    loaded = runner.load(found, precision, settings.models.provider)
    loaded.warm_up(settings.batch.size)
    load_s, grown_bytes = time.perf_counter() - began_s, resident_bytes() - held_bytes
    reference = f"{found.name}@{found.version}"
    stage_metrics = metrics.stages(reference, has_heads=bool(heads.outputs(found.manifest)))
    device = _device(loaded, settings, reference, stage_metrics)
    stages = Stages(
        loaded,
        skeletons.skeleton(found.manifest.skeleton),
        limits,
        settings.batch.size,
        stage_metrics,
        device,
    )
    workers = settings.batch.workers or cpus.usable() * (1 if device is None else _PREPARERS_PER_CPU)
    return ServedModel(
        found,
        Batcher(
            stages.open_worker,
            workers=workers,
            size=settings.batch.size,
            capacity=settings.batch.queue,
            processors=_processors(workers, settings.batch.pin),
            observer=stage_metrics,
            stuck_s=settings.batch.stuck_s,
            name=reference,
        ),
        precision,
        loaded.provider,
        load_s,
        max(0, grown_bytes),
        device,
    )


def _device(loaded: Runner, settings: Settings, reference: str, stage_metrics: StageMetrics) -> Device | None:
    """A thread of its own for the calls of the net, where the settings say so or the net runs on a GPU."""
    batch = settings.batch
    fused = loaded.provider not in ON_GPU if batch.mode == "auto" else batch.mode == "fused"
    if fused:
        return None
    return Device(
        size=batch.size,
        window_s=batch.window_ms / 1e3,
        ran=stage_metrics.ran,
        stuck_s=batch.stuck_s / 2,  # before the batcher gives up those who wait for it
        name=f"{reference}-net",
    )


def _processors(workers: int, pin: str) -> Sequence[int]:
    """As `cpus.tied`; says so where a wish cannot be granted."""
    processors = cpus.tied(workers, pin)
    if pin == "on" and not processors:
        log.warning(
            "more workers than processors: not pinned",
            extra=facts(workers=workers, cpus=len(cpus.affinity())),
        )
    return processors
