"""What travels through the service: a frame with its options goes in, a prediction comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""
Box = tuple[float, float, float, float]
"""x, y (left and top edge), width, height in pixels of the frame."""


class BoxSource(StrEnum):
    """Where the box of a pose comes from."""

    REQUEST = "request"
    """The client named it."""
    FOUND = "found"
    """Laid around the joints that the model was sure of when it saw the whole frame."""
    IMAGE = "image"
    """The whole frame: the look at it was the surer one, or too few joints were sure to place a box."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image as a client sent it."""

    data: bytes
    """The file's bytes, still encoded."""
    pixels_size: tuple[int, int] | None = None
    """(height, width) where `data` is no file but bare pixels: rows from the top, 3 bytes RGB each."""
    meter: Callable[[int], None] | None = None
    """Told how many pixels the frame has by its header, before it is decoded, from another thread; may refuse it by an
    error, which is the frame's answer."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to do with a frame."""

    boxes: tuple[Box, ...] | None = None
    """One person each; None to have the person found."""
    model: str | None = None
    """`name` or `name@version`; None for the default model."""
    decoder: str | None = None
    """Name of the decoder; None for the model's own."""
    render: bool = False
    """Draw the poses on the frame as well."""
    compare: bool = False
    """Say what every decoder finds."""
    heatmaps: bool = False
    """Give the heatmaps as well."""
    min_presence: float | None = None
    """Least probability of presence, 0 to 1; None for the service's own."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one decoder finds in the heatmaps of a person."""

    decoder: str
    points: Floats
    """As in `Pose`."""
    scores: Floats
    """As in `Pose`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all decoders find in the same heatmaps."""

    readings: tuple[Reading, ...]
    disagreement_px: float
    """Largest distance between two decoders' points for the same keypoint, in pixels of the frame."""


@dataclass(frozen=True, slots=True)
class Heatmaps:
    """What the net saw of one person, before any decoder."""

    values: Floats
    """(K, height, width) float32, as the net answered."""
    to_frame: Floats
    """(2, 3) from cells x, y, (0, 0) being the centre of the first cell, to pixels of the frame."""


@dataclass(frozen=True, slots=True)
class Classified:
    """Which of several classes somebody is of, a gesture say."""

    of: str
    """What there are classes of."""
    labels: tuple[str, ...]
    """Names of the C classes."""
    probabilities: Floats
    """(C,), rounded to 1/10000."""
    chosen: int
    """Index of the class that counts: the likeliest one, or in a video the one that has been for a while."""

    @property
    def label(self) -> str:
        """Name of the class that counts."""
        return self.labels[self.chosen]

    @property
    def probability(self) -> float:
        """Of the class that counts."""
        return float(self.probabilities[self.chosen])


@dataclass(frozen=True, slots=True)
class Heads:
    """What a model says of somebody beside the keypoints."""

    presence: float | None
    """Probability that anybody is there, rounded to 1/10000; None of a model that does not tell."""
    present: bool
    """Whether that is enough; True of a model that does not tell."""
    least: float
    """What is enough."""
    classes: tuple[Classified, ...]
    depth: Floats | None
    """(K,) z relative to the root keypoint in pixels of the frame, larger is farther, rounded to 1/1000; None of a
    model without depth."""


@dataclass(frozen=True, slots=True)
class Pose:
    """One person."""

    box: Box
    """The person's box without the context that the model sees around it."""
    box_source: BoxSource
    points: Floats
    """(K, 2) x, y in pixels of the frame, rounded to 1/1000."""
    scores: Floats
    """(K,) 0 to 1, rounded to 1/10000."""
    score: float
    """Mean of `scores`, rounded likewise."""
    comparison: Comparison | None = None
    """Where it was asked for."""
    heatmaps: Heatmaps | None = None
    """Where they were asked for."""
    heads: Heads | None = None
    """What there is beside keypoints; None of a model without any of it."""

    @property
    def present(self) -> bool:
        """Whether somebody is there, so that keypoints mean anything."""
        return self.heads is None or self.heads.present


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one frame went. What it shared with others of its batch counts in full."""

    queue_s: float
    """From the request to a worker."""
    decode_s: float
    """Bytes to pixels."""
    infer_s: float
    """In the net, over all calls that this frame was part of."""
    batch: int
    """Most crops of such a call, those of other frames included."""

    def header(self, total_s: float) -> str:
        """The value of `Server-Timing` (W3C), times in milliseconds.

        Args:
            total_s: from the arrival of the request to its answer, as the transport measured it.
        """
        spent = {"queue": self.queue_s, "decode": self.decode_s, "infer": self.infer_s, "total": total_s}
        times = (f"{name};dur={seconds * 1e3:.3f}" for name, seconds in spent.items())
        return ", ".join((*times, f'batch;desc="{self.batch}"'))


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one frame."""

    model: str
    version: str
    decoder: str
    size: tuple[int, int]
    """(height, width) of the frame after its EXIF orientation."""
    keypoints: tuple[str, ...]
    """Names of the K keypoints."""
    poses: tuple[Pose, ...]
    timing: Timing
    picture: bytes | None = None
    """A PNG of the frame with the poses drawn, where that was asked for."""
