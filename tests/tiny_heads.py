"""The tiny model with everything that a model may say beside keypoints, known exactly from the picture.

Presence is the mean of the keypoints' peaks. `handedness` and `gesture` follow from how much brighter the right half of
the crop is than the left one. A keypoint's z is its number times its peak, in half pixels of the crop.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.manifest import BundleManifest
from tests import tiny_model

NAME = "tiny-heads"
GESTURES = ("dark", "even", "bright")
HANDS = ("left", "right")
STEEP = 40.0
"""Of the logits, by the difference of both halves, 1 being a difference of `tiny_model.CONTRAST`."""
DEPTH_SCALE = 0.5
OUTPUTS = (
    {"name": "keep", "kind": "presence", "of": "person"},
    {"name": "gesture", "kind": "classes", "of": "gesture", "labels": GESTURES},
    {"name": "side", "kind": "classes", "of": "handedness", "labels": HANDS, "mirror": (1, 0)},
    {"name": "z", "kind": "depth", "root": "nose", "scale": DEPTH_SCALE},
)


def manifest(**changes: object) -> BundleManifest:
    """What the bundle says about itself."""
    maps = tiny_model.manifest().heatmaps.model_dump()
    return tiny_model.manifest(
        **{
            "name": NAME,
            "outputs": [maps, *OUTPUTS],
            "schema_version": 2,
            "skeleton": tiny_model.SKELETON.name,
        }
        | changes
    )


def graph(facts: BundleManifest) -> bytes:
    """The ONNX file: that of the tiny model, and more outputs behind it."""
    model = onnx.load_from_string(tiny_model.graph(facts))
    keypoints = len(tiny_model.SKELETON)
    half = tiny_model.WIDTH // 2
    constants = {
        "axes_half": np.array([3]), "at_0": np.array([0]), "at_half": np.array([half]),
        "at_end": np.array([tiny_model.WIDTH]),
        "to_gesture": np.array([[-STEEP, 0.0, STEEP]], np.float32), "to_side": np.array([[STEEP, -STEEP]], np.float32),
        "evenness": np.array([[0.0, 3.0, 0.0]], np.float32),
        "numbers_of_keypoints": np.arange(keypoints, dtype=np.float32),
    }  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["heatmaps"], ["peaks"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["peaks"], ["keep"], axes=[1], keepdims=0),
            helper.make_node("Mul", ["peaks", "numbers_of_keypoints"], ["z"]),
            helper.make_node("Slice", ["numbers", "at_0", "at_half", "axes_half"], ["left_half"]),
            helper.make_node("Slice", ["numbers", "at_half", "at_end", "axes_half"], ["right_half"]),
            helper.make_node("ReduceMean", ["left_half"], ["left_mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["right_half"], ["right_mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["right_mean", "left_mean"], ["difference"]),
            helper.make_node("Unsqueeze", ["difference", "axis_1"], ["column"]),
            helper.make_node("MatMul", ["column", "to_gesture"], ["slopes"]),
            helper.make_node("Add", ["slopes", "evenness"], ["gesture_logits"]),
            helper.make_node("MatMul", ["column", "to_side"], ["side_logits"]),
            helper.make_node("Softmax", ["gesture_logits"], ["gesture"], axis=1),
            helper.make_node("Softmax", ["side_logits"], ["side"], axis=1),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis_1"))
    shapes = {"keep": ["N"], "gesture": ["N", 3], "side": ["N", 2], "z": ["N", keypoints]}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write(root: Path, **changes: object) -> Bundle:
    """Write a bundle under `root`."""
    facts = manifest(**changes)
    return bundle.write(root, facts, {facts.model_file: graph(facts)})


def shade(picture: np.ndarray, box: tuple[float, float, float, float], difference: float) -> np.ndarray:
    """A copy in which the right half of the box and what is beside it is brighter by so many pixel values."""
    shaded = picture.astype(np.int64)
    middle = round(box[0] + box[2] / 2)
    shaded[:, middle:] += round(difference / 2)
    shaded[:, :middle] -= round(difference / 2)
    return shaded.clip(0, 255).astype(np.uint8)
