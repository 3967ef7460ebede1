"""Protobuf messages <-> the service's own types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from service.errors import InvalidRequest
from service.pb.reppose.v1 import pose_pb2 as pb
from service.status import Report
from service.streams.session import StreamPose
from service.types import (
    BoxSource,
    Classified,
    Comparison,
    Frame,
    Heads,
    Heatmaps,
    Options,
    Pose,
    Prediction,
    Reading,
)

_BOX_SOURCE = {
    BoxSource.REQUEST: pb.BOX_SOURCE_REQUEST,
    BoxSource.FOUND: pb.BOX_SOURCE_FOUND,
    BoxSource.IMAGE: pb.BOX_SOURCE_IMAGE,
}


def request_from(message: pb.EstimateRequest) -> tuple[Frame, Options]:
    """What a client asks for. Raises InvalidRequest where it sends two images in one."""
    boxes = tuple((box.x, box.y, box.width, box.height) for box in message.boxes)
    options = Options(
        boxes=boxes or None,
        model=message.model or None,
        decoder=message.decoder or None,
        compare=message.compare,
        heatmaps=message.heatmaps,
        min_presence=message.min_presence if message.HasField("min_presence") else None,
    )
    if not message.HasField("pixels"):
        return Frame(message.image), options
    if message.image:
        raise InvalidRequest("send an image or pixels, not both", field="pixels")
    pixels = message.pixels
    return Frame(pixels.rgb, (pixels.height, pixels.width)), options


def prediction_to(prediction: Prediction, answer: pb.EstimateResponse | None = None) -> pb.EstimateResponse:
    """An answer for the client.

    Args:
        prediction: what to say.
        answer: an empty message to say it in, such as that inside another one; None for a new one. A message that is
            put into another is copied whole, which takes longer than to fill it.
    """
    answer = pb.EstimateResponse() if answer is None else answer
    answer.model, answer.version, answer.decoder = prediction.model, prediction.version, prediction.decoder
    answer.image.height, answer.image.width = prediction.size
    for pose in prediction.poses:
        _fill_pose(answer.poses.add(), pose, prediction.keypoints)
    return answer


def error_to(report: Report) -> pb.Error:
    """An error of one frame of a stream."""
    number, _ = report.status.grpc.value
    return pb.Error(status=number, code=report.status.code, message=report.message, field=report.field or "")


def _fill_pose(message: pb.Pose, pose: Pose, names: tuple[str, ...]) -> None:
    if pose.heads is not None:
        _fill_pose_with_heads(message, pose, pose.heads, names)
    else:
        _fill_plain_pose(message, pose, names)


def _fill_pose_with_heads(message: pb.Pose, pose: Pose, heads: Heads, names: tuple[str, ...]) -> None:
    if heads.present:
        _fill_plain_pose(message, pose, names)
        if heads.depth is not None:
            for keypoint, z in zip(message.keypoints, heads.depth.tolist(), strict=True):
                keypoint.z = z
        fill_classes(message.classes, heads.classes)
    else:
        box = message.box
        box.x, box.y, box.width, box.height = pose.box
        message.box_source = _BOX_SOURCE[pose.box_source]
        if pose.heatmaps is not None:
            message.heatmaps.CopyFrom(_heatmaps(pose.heatmaps))
    if heads.presence is not None:
        message.presence = heads.presence


def fill_classes(
    messages: RepeatedCompositeFieldContainer[pb.Classified], classes: Sequence[Classified]
) -> None:
    """Say which classes somebody is of."""
    for each in classes:
        message = messages.add(of=each.of, label=each.label, probability=each.probability)
        for label, probability in zip(each.labels, each.probabilities.tolist(), strict=True):
            message.probabilities.add(label=label, probability=probability)


def _fill_plain_pose(message: pb.Pose, pose: Pose, names: tuple[str, ...]) -> None:
    message.CopyFrom(_unplaced(names))
    box = message.box
    box.x, box.y, box.width, box.height = pose.box
    message.box_source = _BOX_SOURCE[pose.box_source]
    message.score = pose.score
    place(message.keypoints, pose)
    if pose.comparison is not None:
        message.comparison.CopyFrom(_comparison(pose.comparison, names))
    if pose.heatmaps is not None:
        message.heatmaps.CopyFrom(_heatmaps(pose.heatmaps))


@lru_cache(maxsize=64)
def _unplaced(names: tuple[str, ...]) -> pb.Pose:
    """A pose of these keypoints, all at 0. To copy it and move them takes half as long as to make them one by one."""
    return pb.Pose(keypoints=[pb.Keypoint(name=name) for name in names])


def place(keypoints: Iterable[pb.Keypoint], found: Pose | Reading | StreamPose) -> None:
    """Move keypoints to where they were found."""
    for keypoint, (x, y), score in zip(keypoints, found.points.tolist(), found.scores.tolist(), strict=True):
        keypoint.x, keypoint.y, keypoint.score = x, y, score


def _comparison(comparison: Comparison, names: tuple[str, ...]) -> pb.Comparison:
    message = pb.Comparison(disagreement_px=comparison.disagreement_px)
    for each in comparison.readings:
        reading = message.readings.add(decoder=each.decoder, keypoints=_unplaced(names).keypoints)
        place(reading.keypoints, each)
    return message


def _heatmaps(heatmaps: Heatmaps) -> pb.Heatmaps:
    keypoints, rows, columns = heatmaps.values.shape
    return pb.Heatmaps(
        keypoints=keypoints,
        rows=rows,
        columns=columns,
        data=heatmaps.values.astype("<f4", copy=False).tobytes(),
        to_image=heatmaps.to_frame.ravel().tolist(),
    )
