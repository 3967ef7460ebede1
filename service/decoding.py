"""Pick the decoder of the request or of the manifest, and read a batch of heatmaps with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from model_zoo import codecs, geometry
from model_zoo.manifest import BundleManifest, Codec
from service.types import Floats

MAX_NAME = 64
"""Longest name that is looked at."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder under the name that it was asked for by."""

    name: str
    function: Callable[[Floats, Codec], tuple[Floats, Floats]]


def pick(manifest: BundleManifest, name: str | None) -> Decoder:
    """The decoder of this name, or the manifest's own for None. Raises UnknownDecoder."""
    name = manifest.codec.decoder if name is None else name[:MAX_NAME]
    return Decoder(name, codecs.decoder(name))


def read(
    decoder: Decoder, manifest: BundleManifest, heatmaps: Floats, crop_maps: ArrayLike
) -> tuple[Floats, Floats]:
    """Find the keypoints of a batch of crops in the frames they were cut from.

    Args:
        decoder: as picked.
        manifest: of the model that made the heatmaps.
        heatmaps: (N, K, H, W).
        crop_maps: (N, 2, 3) from pixels of the frame to pixels of the crop, as `geometry.crop_affine` gives them.

    Returns:
        points (N, K, 2) in pixels of the frame, scores (N, K) between 0 and 1.

    Raises:
        HeatmapError: the net gave numbers that no decoder can read.
    """
    cells, scores = decoder.function(heatmaps, manifest.codec)
    pixels = geometry.cells_to_pixels(cells, manifest.heatmaps.stride)
    return geometry.apply(geometry.invert(crop_maps), pixels), np.clip(scores, 0.0, 1.0)
