"""Series about what models say beside keypoints: how many are there, and which classes they are of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter

from service.types import Pose


class HeadMetrics:
    """The series of all models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._looked = Counter(
            "reppose_presence",
            "Crops that a model with a presence output was shown, and whether what it looks for was there.",
            ["model", "present"],
            registry=registry,
        )
        self._classified = Counter(
            "reppose_classified",
            "Crops by their likeliest class, of those in which somebody was there.",
            ["model", "of", "label"],
            registry=registry,
        )

    def of(self, model: str) -> ModelHeadMetrics:
        """Those of one model."""
        return ModelHeadMetrics(self._looked, self._classified, model)


class ModelHeadMetrics:
    """The series of one model. May be used from many threads."""

    def __init__(self, looked: Counter, classified: Counter, model: str) -> None:
        self._present = {there: looked.labels(model, str(there).lower()) for there in (True, False)}
        self._class = cache(lambda of, label: classified.labels(model, of, label))

    def found(self, poses: Sequence[Pose]) -> None:
        """Count the people of one frame."""
        for pose in poses:
            if pose.heads is None:
                continue
            if pose.heads.presence is not None:
                self._present[pose.heads.present].inc()
            for each in pose.heads.classes if pose.heads.present else ():
                self._class(each.of, each.label).inc()
