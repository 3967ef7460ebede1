"""Pick the decoder of the request or of the manifest, and find keypoints with it: the graph's own or one of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from model_zoo import codecs, geometry
from model_zoo.errors import HeatmapError, UnknownDecoder
from model_zoo.manifest import BundleManifest, Codec
from model_zoo.scores import calibrated
from service.types import Floats, Heatmaps

MAX_NAME = 64
"""Longest name that is looked at."""
NET = "net"
"""Name of the decoder of a net that answers keypoints by itself, without heatmaps."""
FAR_PX = 1e6
"""No keypoint lies so far from the frame's corner; the map to a crop of a box much larger than this has no inverse."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder under the name that it was asked for by."""

    name: str
    function: Callable[[Floats, Codec], tuple[Floats, Floats]] | None
    """Reads heatmaps; None for the decoder inside the graph."""


def own(manifest: BundleManifest) -> str:
    """Name of the decoder of a request that names none."""
    if manifest.heatmaps is not None:
        return manifest.codec.decoder
    return manifest.keypoints_output.decoder or NET


def names(manifest: BundleManifest) -> list[str]:
    """What a request may name: with heatmaps all decoders, else the graph's own."""
    return [own(manifest)] if manifest.heatmaps is None else sorted(codecs.decoders())


def pick(manifest: BundleManifest, name: str | None, *, on_heatmaps: bool = False) -> Decoder:
    """The decoder of this name, or the manifest's own for None; the graph's where it has that one.

    Args:
        manifest: of the model.
        name: as in a request.
        on_heatmaps: rather one of ours, since the heatmaps are needed anyway.

    Raises:
        UnknownDecoder: nobody offers it, or the model has no heatmaps for it.
    """
    name = own(manifest) if name is None else name[:MAX_NAME]
    if manifest.heatmaps is None:
        if name != own(manifest):
            raise UnknownDecoder(f"{manifest.name} has no heatmaps; its only decoder is {own(manifest)}")
        return Decoder(name, None)
    inside = manifest.keypoints_output
    if inside is not None and inside.decoder == name and not on_heatmaps:
        return Decoder(name, None)
    return Decoder(name, codecs.decoder(name))


def in_frame(manifest: BundleManifest, heatmaps: Floats, crop_map: Floats) -> Heatmaps:
    """One crop's (K, H, W) heatmaps with their place in the frame; `crop_map` is (2, 3), frame to crop."""
    to_frame = geometry.invert(crop_map)
    stride = manifest.heatmaps.stride
    first = geometry.apply(to_frame, geometry.cells_to_pixels(np.zeros((1, 2)), stride))
    return Heatmaps(
        np.array(heatmaps, np.float32),  # of its own: a view would keep the whole batch
        np.concatenate([to_frame[:, :2] * stride, first.T], axis=1),
    )


def read(
    decoder: Decoder, manifest: BundleManifest, answer: Floats, crop_maps: ArrayLike
) -> tuple[Floats, Floats]:
    """Find the keypoints of a batch of crops in the frames they were cut from.

    Args:
        decoder: as picked.
        manifest: of the model that answered.
        answer: (N, K, H, W) heatmaps, or (N, K, 3) keypoints for the decoder inside the graph.
        crop_maps: (N, 2, 3) from pixels of the frame to pixels of the crop, as `geometry.crop_affine` gives them.

    Returns:
        points (N, K, 2) in pixels of the frame, scores (N, K) between 0 and 1.

    Raises:
        HeatmapError: the net gave numbers that no decoder can read, or the decoder, maybe somebody's plug-in,
            answered other shapes, or numbers that are not finite or far from any frame.
    """
    if decoder.function is None:
        pixels, scores = answer[..., :2], answer[..., 2]
    else:
        pixels, scores = map(np.asarray, decoder.function(answer, manifest.codec))
    expected = (len(answer), len(manifest.keypoints))
    if pixels.shape != (*expected, 2) or scores.shape != expected:
        raise HeatmapError(
            f"decoder {decoder.name!r} answered points {pixels.shape} and scores {scores.shape}; "
            f"expected {(*expected, 2)} and {expected}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at below
        if decoder.function is not None:
            pixels = geometry.cells_to_pixels(pixels, manifest.heatmaps.stride)
        points = geometry.apply(geometry.invert(crop_maps), pixels)
        if not (points.min() > -FAR_PX and points.max() < FAR_PX and np.isfinite(scores).all()):
            raise HeatmapError(
                f"decoder {decoder.name!r} answered numbers that are not finite, or far from any frame"
            )
    scores = np.minimum(np.maximum(scores, 0.0), 1.0)
    if decoder.function is None:  # the graph has calibrated them
        return points, scores
    return points, calibrated(scores, manifest.score_calibration)
