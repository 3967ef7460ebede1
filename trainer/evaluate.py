"""Measure a net on annotated people, with the same crops and decoders that the service uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model_zoo import codecs, geometry, skeletons
from model_zoo.manifest import BundleManifest, Codec
from model_zoo.outputs import (
    ClassesOutput,
    DepthOutput,
    HeatmapOutput,
    KeypointsOutput,
    Output,
    PresenceOutput,
)
from model_zoo.scores import calibrated
from model_zoo.skeletons import Skeleton
from trainer import metrics, reliability
from trainer.data.people import Person, pictures
from trainer.errors import DataError
from trainer.metrics import Score
from trainer.progress import track

WITHIN = 0.1
"""Of the long side of the labelled box: a keypoint that near is right, and its calibrated score the chance of that."""


class Net(Protocol):
    """What can be measured; a net answers heatmaps or, where it has none, keypoints."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) raw crops -> (B, K, H, W) heatmaps."""
        ...

    def keypoints(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) raw crops -> (B, K, 3): x and y in crop pixels, and score."""
        ...

    def further(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """(B, h, w, 3) raw crops -> what the net answers beside those, by name of the manifest's output."""
        ...


Points = NDArray[np.floating[Any]]


def crops(
    people: list[Person], size: tuple[int, int], padding: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Everybody's crop about the labelled box: (N, h, w, 3) uint8, and the (N, 2, 3) maps from picture to crop.

    Raises:
        DataError: nobody, or a picture that cannot be read.
    """
    if not people:
        raise DataError("there is nobody to measure")
    matrices = geometry.crop_affine(np.stack([person.box for person in people]), size, padding=padding)
    batch = np.empty((len(people), *size, 3), np.uint8)
    for index, (_, image) in enumerate(track(pictures(people), "Cropping people", total=len(people))):
        geometry.crop(image, matrices[index], size, out=batch[index])
    return batch, matrices


def predict(
    net: Net,
    images: NDArray[np.uint8],
    matrices: NDArray[np.float64],
    codec: Codec | None,
    decoder: str | None,
    stride: float | None,
    batch: int = 32,
) -> tuple[Points, Points]:
    """Keypoints of N crops.

    Args:
        net: the net, torch or ONNX.
        images: (N, h, w, 3).
        matrices: (N, 2, 3) from picture to crop.
        codec: how the net writes keypoints as heatmaps.
        decoder: name of the decoder; None for a net that answers keypoints itself.
        stride: crop pixels per cell of a heatmap.
        batch: crops per call of the net.

    Returns:
        points (N, K, 2) in pixels of the pictures, and scores (N, K).
    """
    to_picture = geometry.invert(matrices)
    if decoder is None:
        found = np.concatenate(
            [net.keypoints(images[at : at + batch]) for at in range(0, len(images), batch)]
        )
        return geometry.apply(to_picture, found[..., :2].astype(np.float64)), found[..., 2]
    decode = codecs.decoder(decoder)
    parts = [decode(net(images[at : at + batch]), codec) for at in range(0, len(images), batch)]
    cells = np.concatenate([points for points, _ in parts])
    scores = np.concatenate([score for _, score in parts])
    return geometry.apply(to_picture, geometry.cells_to_pixels(cells, stride)), scores


def scores(net: Net, people: list[Person], manifest: BundleManifest, decoder: str | None) -> list[Score]:
    """Every figure that the labels of a set allow: PCK@0.2, PCKh@0.5 with a labelled head, OKS-AP with a labelled face.

    Of a net with further heads also the AUC of presence, the accuracy of classes and the error of depth; and of all
    probabilities, scores of keypoints among them where they are calibrated, the expected calibration error.

    Args:
        net: the net that the manifest describes.
        people: one annotated set.
        manifest: crop, codec and skeleton.
        decoder: name of the decoder; None for a net that answers keypoints itself.
    """
    skeleton = skeletons.skeleton(manifest.skeleton)
    images, matrices = crops(people, manifest.input.size, manifest.input.padding)
    stride = None if decoder is None else manifest.heatmaps.stride
    found = further_scores(net, people, images, matrices, manifest.outputs, skeleton)
    found += _calibration_errors(net, people, images, manifest.outputs)
    labelled = np.stack([person.visible for person in people]).any(axis=0)

    def has(*names: str) -> bool:
        return all(name in skeleton.keypoints and labelled[skeleton.index(name)] for name in names)

    if not labelled.any():
        if not found:
            raise DataError("the set has no labels of anything that this net answers")
        return found
    points, confidence = predict(net, images, matrices, manifest.codec, decoder, stride)
    if decoder is not None:  # the graph's own keypoints have been calibrated in the graph
        confidence = calibrated(confidence, manifest.score_calibration)
    more, found = found, []
    if has(*metrics.LIMBS):
        found.append(metrics.pck(people, points, skeleton))
    if has("neck", "head_top"):
        found.append(metrics.pckh(people, points, skeleton))
    if has(*skeletons.COCO17.keypoints):
        found.append(metrics.oks_ap(people, points, confidence, skeleton))
    if not set(metrics.LIMBS) <= set(skeleton.keypoints):
        found.append(metrics.pck_box(people, points, skeleton))
        found.append(metrics.mean_error(people, points, skeleton))
    if not found:
        raise DataError("the set has too few labelled keypoints for any of PCK, PCKh and OKS-AP")
    if manifest.score_calibration is not None:
        right = near(people, points)
        known = np.stack([person.visible for person in people]) > 0
        count = int(known.any(axis=1).sum())
        more.append(_calibration_error("score", confidence[known], right[known], count))
    return found + more


def near(people: list[Person], points: Points) -> NDArray[np.bool_]:
    """(N, K): which of the (N, K, 2) points of pictures lie within `WITHIN` of their labels."""
    sizes = np.stack([person.box[2:] for person in people]).max(axis=1)
    off = np.linalg.norm(points - np.stack([person.points for person in people]), axis=-1)
    return off <= WITHIN * sizes[:, None]


def further(net: Net, images: NDArray[np.uint8], batch: int = 32) -> dict[str, NDArray[np.float32]]:
    """What further heads say of (N, h, w, 3) crops, by name of the output, so many crops at a time."""
    parts = [net.further(images[at : at + batch]) for at in range(0, len(images), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def allows(people: list[Person], outputs: Sequence[Output]) -> bool:
    """Whether `further_scores` has anything to say about a set."""
    for output in outputs:
        if isinstance(output, PresenceOutput):
            known = {person.presence for person in people} >= {0.0, 1.0}
        elif isinstance(output, ClassesOutput):
            known = any(
                each.presence != 0 and getattr(each, output.of, None) in output.labels for each in people
            )
        else:
            known = isinstance(output, DepthOutput) and any(person.depth is not None for person in people)
        if known:
            return True
    return False


def further_scores(
    net: Net,
    people: list[Person],
    images: NDArray[np.uint8],
    matrices: NDArray[np.float64],
    outputs: Sequence[Output],
    skeleton: Skeleton,
) -> list[Score]:
    """Every figure about presence, classes and depth that the labels of a set allow.

    Args:
        net: with these outputs.
        people: one annotated set.
        images: (N, h, w, 3), their crops.
        matrices: (N, 2, 3) from picture to crop.
        outputs: of the net's manifest; those of keypoints are passed over.
        skeleton: of the net.
    """
    outputs = [each for each in outputs if not isinstance(each, HeatmapOutput | KeypointsOutput)]
    said = further(net, images) if outputs else {}
    found: list[Score | None] = []
    for output in outputs:
        answer = said[output.name]
        if isinstance(output, PresenceOutput):
            found.append(metrics.presence_auc(people, answer))
        elif isinstance(output, ClassesOutput):
            found.append(metrics.class_accuracy(people, answer, output.of, output.labels))
        else:
            scale = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))  # crop pixels per pixel of the picture
            z = answer * output.scale / scale[:, None]
            found.append(metrics.depth_error(people, z, skeleton, output.root))
    return [each for each in found if each is not None]


def _calibration_errors(
    net: Net, people: list[Person], images: NDArray[np.uint8], outputs: Sequence[Output]
) -> list[Score]:
    """Of presence where both kinds are labelled, and of the likeliest of each kind of classes."""
    outputs = [each for each in outputs if isinstance(each, PresenceOutput | ClassesOutput)]
    said = further(net, images) if outputs else {}
    found = []
    for output in outputs:
        answer = np.asarray(said[output.name], np.float64)
        if isinstance(output, PresenceOutput):
            known = np.array([person.presence is not None for person in people])
            there = np.array([person.presence == 1 for person in people])[known]
            if there.any() and not there.all():
                found.append(_calibration_error("presence", answer[known], there, int(known.sum())))
            continue
        labels = [getattr(each, output.of, None) if each.presence != 0 else None for each in people]
        rows = [row for row, label in enumerate(labels) if label in output.labels]
        if rows:
            truth = np.array([output.labels.index(labels[row]) for row in rows])
            right = answer[rows].argmax(axis=-1) == truth
            found.append(_calibration_error(output.of, answer[rows].max(axis=-1), right, len(rows)))
    return found


def _calibration_error(of: str, probabilities: Points, true: NDArray[np.bool_], people: int) -> Score:
    error = reliability.expected_error(reliability.reliability(probabilities, true))
    return Score(f"{of} ECE", 100 * error, people, {}, "less")
