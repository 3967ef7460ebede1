"""How far two forms of a net are apart in what they answer on the same crops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_zoo import codecs, geometry
from model_zoo.manifest import Agreement
from trainer import graph
from trainer.config import RunConfig
from trainer.errors import ExportError
from trainer.evaluate import Net
from trainer.nets import further
from trainer.nets.pose import MAP_HEADS

TOLERANCE = 1e-3
"""Largest difference between heatmaps of two forms; their peak is 1."""
TOLERANCE_PX = 0.05
"""Largest difference between keypoints, in crop pixels, where the heatmap is sure of them, and between depths."""
TOLERANCE_PROBABILITY = 1e-4
"""Largest difference between probabilities."""
SURE = 0.3
"""Score from which a keypoint takes part in the comparison of positions: a flat map has no steady maximum."""

Numbers = NDArray[np.floating[Any]]


def measure(
    trained: Net, others: dict[str, Net], config: RunConfig, images: NDArray[np.uint8]
) -> list[Agreement]:
    """How far each of the others is from the net that was trained, at most.

    Args:
        trained: the net.
        others: by the name of their form; `ONNX Runtime` among them.
        config: the run.
        images: (N, h, w, 3) crops.
    """
    find = _of_maps if config.net.head in MAP_HEADS else _of_keypoints
    found, more = find(trained, others, config, images), further.outputs(config)
    if not more:
        return found
    expected = trained.further(images)
    apart = {}
    for name, each in others.items():
        answer = each.further(images)
        off = {
            output.name: float(np.abs(answer[output.name] - expected[output.name]).max()) for output in more
        }
        depth_px = off.pop(further.DEPTH, None)
        apart[name] = {"depth_px": depth_px, "probability": float(np.max([*off.values()])) if off else None}
    return [each.model_copy(update=apart.get(each.net, {})) for each in found]


def check(found: list[Agreement]) -> None:
    """Raise ExportError where a form is too far from the trained net."""
    for each in found:
        limits = {
            "in its heatmaps": (each.heatmap, TOLERANCE, ""),
            "in its keypoints": (each.points_px, TOLERANCE_PX, " px"),
            "in its probabilities": (each.probability, TOLERANCE_PROBABILITY, ""),
            "in its depths": (each.depth_px, TOLERANCE_PX, " px"),
        }
        for where, (apart, most, unit) in limits.items():
            if not (apart or 0.0) <= most:  # NaN is no agreement either
                form = each.net if each.heatmap is None and "decoder" in each.net else f"{each.net} net"
                raise ExportError(
                    f"the {form} differs from the trained one by {apart:.2g}{unit} {where}; "
                    f"at most {most}{unit} is accepted"
                )


def _of_maps(
    trained: Net, others: dict[str, Net], config: RunConfig, images: NDArray[np.uint8]
) -> list[Agreement]:
    expected = trained(images)
    maps = {name: each(images) for name, each in others.items()}
    points, scores = _decoded(expected, config)
    found = [
        Agreement(
            net=name,
            heatmap=float(np.abs(each - expected).max()),
            points_px=_farthest(_decoded(each, config)[0], points, scores),
        )
        for name, each in maps.items()
    ]
    if graph.decoder(config.codec) is not None:
        inside = others["ONNX Runtime"].keypoints(images)[..., :2]
        codecs_own, _ = _decoded(maps["ONNX Runtime"], config)
        found.append(Agreement(net="decoder in the graph", points_px=_farthest(inside, codecs_own, scores)))
    return found


def _of_keypoints(
    trained: Net, others: dict[str, Net], config: RunConfig, images: NDArray[np.uint8]
) -> list[Agreement]:
    expected = trained.keypoints(images)
    points, scores = expected[..., :2], expected[..., 2]
    return [
        Agreement(net=name, points_px=_farthest(each.keypoints(images)[..., :2], points, scores))
        for name, each in others.items()
    ]


def _farthest(some: Numbers, others: Numbers, scores: Numbers) -> float:
    """Largest distance of sure keypoints; a net that is sure of nothing is compared where it is surest; NaN
    where scores are."""
    sure = scores >= np.minimum(SURE, scores.max())
    return float(np.linalg.norm(some - others, axis=-1)[sure].max()) if sure.any() else math.nan


def _decoded(maps: NDArray[np.float32], config: RunConfig) -> tuple[Numbers, Numbers]:
    """Points in crop pixels and scores, by the decoder of `model_zoo.codecs`."""
    cells, scores = codecs.decoder(config.codec.decoder)(maps, config.codec)
    return geometry.cells_to_pixels(cells, config.net.stride), scores
