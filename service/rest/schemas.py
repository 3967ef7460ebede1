"""The JSON of the REST service, as pydantic models for readers and as plain dictionaries for the wire.

The models define the API and its documentation; answers are written by the `*_json` functions below because that
costs a small part of the time. A test holds the two together.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from model_zoo import codecs
from model_zoo.manifest import Precision
from service import decoding
from service.errors import InvalidBoxes
from service.registry import Registry
from service.rest import examples
from service.status import Report
from service.streams.session import StreamPose
from service.types import (
    Box,
    BoxSource,
    Classified,
    Comparison,
    Heads,
    Heatmaps,
    Options,
    Pose,
    Prediction,
    Reading,
)


class Schema(BaseModel):
    """Refuses what it does not know; its texts are the documentation."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class PoseQuery(Schema):
    """What to do with the image; query values, or form fields of the same names beside a multipart image."""

    boxes: str | None = Field(None, examples=["[[120, 40, 200, 400]]"])
    """JSON `[[x, y, width, height], ...]` in pixels of the image, one per person: x, y is the left and top edge.
    Each box must lie at least partly inside the image. The service adds the model's own context around it.
    Leave it out to have one person found."""
    model: str | None = Field(None, examples=["body19-small", "body19-small@1"])
    """`name` (its newest version) or `name@version`, see `/v1/models`; the default model where it is left out."""
    decoder: str | None = Field(None, examples=["argmax_shift"])
    """How heatmaps become points, see `/v1/models`; the model's own where it is left out."""
    render: bool = False
    """`true`: answer with a PNG of the image with the poses drawn, instead of JSON."""
    compare: bool = False
    """`true`: every pose tells what all decoders find in it, and how far they are apart."""
    heatmaps: bool = False
    """`true`: every pose holds the heatmaps that it was read from. Not together with `render`, and not by a model
    without heatmaps."""
    min_presence: float | None = Field(None, ge=0, le=1, examples=[0.5])
    """Least probability that somebody is there, of models that tell it; below, a pose has no keypoints. The service's
    own where it is left out; 0 takes everybody."""

    def options(self) -> Options:
        """As the predictor takes them. An empty string counts as left out. Raises InvalidBoxes."""
        return Options(
            boxes=parse_boxes(self.boxes) if self.boxes else None,
            model=self.model or None,
            decoder=self.decoder or None,
            render=self.render,
            compare=self.compare,
            heatmaps=self.heatmaps,
            min_presence=self.min_presence,
        )


class ImageSize(Schema):
    """Size of the image after its EXIF orientation was applied."""

    width: int
    height: int


class KeypointOut(Schema):
    """One joint."""

    name: str
    """Such as `left_knee`; left and right are the person's own."""
    x: float
    """Pixels from the centre of the leftmost pixel column."""
    y: float
    """Pixels from the centre of the topmost pixel row."""
    score: float = Field(ge=0, le=1)
    """How sure the model is. Of a calibrated model, see `/v1/models`, the probability that the joint lies within 0.1 of
    the person's size; of others, no probability."""
    z: float | None = None
    """Pixels behind the root joint, or before it where negative; only of models with depth."""


class ReadingOut(Schema):
    """What one decoder finds."""

    decoder: str
    keypoints: list[KeypointOut]


class ComparisonOut(Schema):
    """What all decoders find in the same heatmaps."""

    disagreement_px: float = Field(ge=0)
    """Largest distance between two decoders' points for the same keypoint, in pixels of the image."""
    readings: list[ReadingOut]
    """One per decoder of `/v1/models`; for a model without heatmaps, the model's own only."""


class HeatmapsOut(Schema):
    """What the net saw of one person, before any decoder: one map per keypoint."""

    shape: tuple[int, int, int]
    """Keypoints, rows, columns."""
    data: Base64Bytes
    """Base64 of so many 32-bit floats, little-endian, the columns of a row next to each other."""
    to_image: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Two rows of an affine map from a cell's column and row, (0, 0) being the centre of the first cell, to x and y
    in the image: x = a column + b row + c."""


class ClassProbabilityOut(Schema):
    """One of several classes."""

    label: str
    probability: float = Field(ge=0, le=1)


class ClassifiedOut(Schema):
    """Which of several classes somebody is of."""

    of: str = Field(examples=["gesture", "handedness"])
    """What there are classes of."""
    label: str
    """The likeliest one; in a video, the one that has been the likeliest for a while."""
    probability: float = Field(ge=0, le=1)
    """Of that one."""
    probabilities: list[ClassProbabilityOut]
    """Of all classes, always in the same order."""


class PoseOut(Schema):
    """One person."""

    box: tuple[float, float, float, float]
    """x, y, width, height of the person, before the model's context was added."""
    box_source: BoxSource
    """`request`: the box was sent. `found`: none was sent; the model saw the whole image, the box was laid
    around the joints it was sure of, and the model looked again at that box. `image`: none was sent, and this
    is what the model saw in the whole image, which is `box`: the second look was less sure, as with a portrait
    that fills the image; or too few joints were sure to place a box. In the latter case scores are low, and
    there may be nobody at all."""
    score: float = Field(ge=0, le=1)
    """Mean of the keypoints' scores; 0 where nobody is there."""
    keypoints: list[KeypointOut]
    """All joints of the model's skeleton, always in the skeleton's order. None at all where a model that tells of
    presence says that nobody is there, see `min_presence`."""
    comparison: ComparisonOut | None = None
    """With `compare=true`; left out otherwise."""
    heatmaps: HeatmapsOut | None = None
    """With `heatmaps=true`; left out otherwise."""
    presence: float | None = Field(None, ge=0, le=1)
    """Probability that what the model looks for, a hand say, is there; only of models that tell it."""
    classes: list[ClassifiedOut] | None = None
    """What it is, a gesture and a left or right hand say; only of models that tell it, and of somebody who is there."""


class PoseResponse(Schema):
    """The poses in one image."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [each["value"] for each in examples.POSES.values()]}
    )

    model: str
    """Name of the model that answered."""
    version: str
    """Its version."""
    decoder: str
    """The decoder that was used."""
    image: ImageSize
    poses: list[PoseOut]
    """One per box, in the order sent; exactly one where no box was sent."""


class ClassesOut(Schema):
    """Classes that a model tells apart."""

    of: str
    """What they are of."""
    labels: list[str]


class ModelOut(Schema):
    """One version of a model."""

    name: str
    version: str
    default: bool
    """Whether a request that names no model gets this one."""
    description: str
    licence: str
    """Terms under which the weights may be used."""
    skeleton: str
    keypoints: list[str]
    """Names of the keypoints, in the order of an answer."""
    bones: list[tuple[int, int]]
    """Pairs of indices into `keypoints` to join with lines."""
    input: ImageSize
    """Size of the crop that the model sees."""
    padding: float
    """Context that the service adds around a box."""
    decoder: str
    """Decoder of a request that names none."""
    precision: Precision
    """What the model computes in."""
    provider: str
    """What it runs on: `cpu`, `cuda`, `tensorrt` or `openvino`."""
    calibrated: bool = False
    """Whether a joint's score is a probability."""
    presence_of: str | None = None
    """What `presence` of a pose is about; none of a model that does not tell."""
    classes: list[ClassesOut] = []
    """What `classes` of a pose are."""
    depth_root: str | None = None
    """Joint whose `z` is 0; none of a model without depth."""


class ModelsResponse(Schema):
    """What can be asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MODELS]})

    default: str
    """`name@version` of the model that a request gets which names none."""
    decoders: list[str]
    """Names that `decoder` may have."""
    models: list[ModelOut]


class HealthResponse(Schema):
    """State of the service."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"status": "ready", "reason": None},
                {"status": "not_ready", "reason": "the models are being loaded"},
            ]
        }
    )

    status: str
    """`live`, `ready` or `not_ready`."""
    reason: str | None = None
    """Why the service is not ready."""


class ErrorBody(Schema):
    """What is wrong."""

    code: str
    """Stable name, for programs."""
    message: str
    """For people."""
    field: str | None = None
    """The part of the request that is wrong, where there is one."""


class ErrorResponse(Schema):
    """The form of every error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"error": {"code": code, **each}} for code, each in examples.ERRORS.items()]
        }
    )

    error: ErrorBody


def parse_boxes(text: str) -> tuple[Box, ...]:
    """Read the JSON of `boxes`. Raises InvalidBoxes."""
    try:
        rows = orjson.loads(text)
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise InvalidBoxes("boxes must be JSON like [[x, y, width, height], ...]")
    if not all(type(number) in (int, float) and math.isfinite(number) for row in rows for number in row):
        raise InvalidBoxes("a box must hold four finite numbers x, y, width, height")
    return tuple(tuple(map(float, row)) for row in rows)


def prediction_json(prediction: Prediction) -> bytes:
    """The JSON of a PoseResponse."""
    height, width = prediction.size
    return orjson.dumps(
        {
            "model": prediction.model,
            "version": prediction.version,
            "decoder": prediction.decoder,
            "image": {"width": width, "height": height},
            "poses": [_pose(pose, prediction.keypoints) for pose in prediction.poses],
        }
    )


def _pose(pose: Pose, names: tuple[str, ...]) -> dict[str, Any]:
    if pose.heads is not None:
        return _pose_with_heads(pose, pose.heads, names)
    return _plain_pose(pose, names)


def _pose_with_heads(pose: Pose, heads: Heads, names: tuple[str, ...]) -> dict[str, Any]:
    if heads.present:
        answer = _plain_pose(pose, names)
        if heads.depth is not None:
            for keypoint, z in zip(answer["keypoints"], heads.depth.tolist(), strict=True):
                keypoint["z"] = z
    else:
        answer = {"box": pose.box, "box_source": pose.box_source.value, "score": 0.0, "keypoints": []}
        if pose.heatmaps is not None:
            answer["heatmaps"] = _heatmaps(pose.heatmaps)
    return answer | heads_json(heads.presence, heads.classes if heads.present else ())


def heads_json(presence: float | None, classes: Sequence[Classified]) -> dict[str, Any]:
    """What is said of somebody beside keypoints; nothing stands for what is not said."""
    said: dict[str, Any] = {} if presence is None else {"presence": presence}
    if classes:
        said["classes"] = [
            {
                "of": each.of,
                "label": each.label,
                "probability": each.probability,
                "probabilities": [
                    {"label": label, "probability": probability}
                    for label, probability in zip(each.labels, each.probabilities.tolist(), strict=True)
                ],
            }
            for each in classes
        ]
    return said


def _plain_pose(pose: Pose, names: tuple[str, ...]) -> dict[str, Any]:
    answer = {
        "box": pose.box,
        "box_source": pose.box_source.value,
        "score": pose.score,
        "keypoints": keypoints_json(pose, names),
    }
    if pose.comparison is not None:
        answer["comparison"] = _comparison(pose.comparison, names)
    if pose.heatmaps is not None:
        answer["heatmaps"] = _heatmaps(pose.heatmaps)
    return answer


def _comparison(comparison: Comparison, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "disagreement_px": comparison.disagreement_px,
        "readings": [
            {"decoder": each.decoder, "keypoints": keypoints_json(each, names)}
            for each in comparison.readings
        ],
    }


def _heatmaps(heatmaps: Heatmaps) -> dict[str, Any]:
    return {
        "shape": heatmaps.values.shape,
        "data": b64encode(heatmaps.values.astype("<f4", copy=False).tobytes()).decode("ascii"),
        "to_image": heatmaps.to_frame.tolist(),
    }


def keypoints_json(found: Pose | Reading | StreamPose, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Points with their names and scores."""
    return [
        {"name": name, "x": x, "y": y, "score": score}
        for name, (x, y), score in zip(names, found.points.tolist(), found.scores.tolist(), strict=True)
    ]


def error_json(code: str, message: str, field: str | None = None) -> bytes:
    """The JSON of an ErrorResponse; `field` is left out where there is none."""
    body = {"code": code, "message": message}
    return orjson.dumps({"error": body if field is None else {**body, "field": field}})


def report_json(report: Report) -> bytes:
    """The JSON of an error that `service.status` knows."""
    return error_json(report.status.code, report.message, report.field)


def models(registry: Registry) -> ModelsResponse:
    """What the registry serves. Raises NotReady before it is loaded."""
    default = registry.default
    return ModelsResponse(
        default=default.reference,
        decoders=sorted(codecs.decoders()),
        models=[
            ModelOut(
                name=each.manifest.name,
                version=each.manifest.version,
                default=each is default,
                description=each.manifest.description,
                licence=each.manifest.licence,
                skeleton=each.manifest.skeleton,
                keypoints=list(each.manifest.keypoints),
                bones=list(each.skeleton.bones),
                input=ImageSize(width=each.manifest.input.width, height=each.manifest.input.height),
                padding=each.manifest.input.padding,
                decoder=decoding.own(each.manifest),
                precision=each.precision,
                provider=each.provider,
                calibrated=each.manifest.score_calibration is not None,
                presence_of=None if each.manifest.presence is None else each.manifest.presence.of,
                classes=[ClassesOut(of=c.of, labels=list(c.labels)) for c in each.manifest.classes],
                depth_root=None if each.manifest.depth is None else each.manifest.depth.root,
            )
            for each in registry
        ],
    )


def refusals(*, limited: bool = False) -> dict[int | str, dict[str, Any]]:
    """For the documentation of a route: how it answers who may not ask, and, where `limited`, who asks too often."""
    codes = {401: "unauthenticated", 403: "permission_denied"} | ({429: "rate_limited"} if limited else {})
    return {
        http: {"model": ErrorResponse, "description": f"`{code}`", "content": examples.errors(code)}
        for http, code in codes.items()
    }
