"""A bundle small enough to build in a test, whose poses are known exactly: coloured discs are its keypoints.

Each keypoint has a colour of its own, all equally far from the grey of the background. The graph averages each cell and
measures how much the cell looks like each colour: 1 for the keypoint's own, 0 for the others and for grey. A disc
fades towards its edge, so a picture with discs at known places has a pose at just these places.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
from onnx import TensorProto, helper, numpy_helper

from model_zoo import bundle, skeletons
from model_zoo.bundle import Bundle
from model_zoo.manifest import BundleManifest

NAME = "tiny"
SKELETON = skeletons.BODY19
HEIGHT, WIDTH, STRIDE = 128, 96, 2
GREY = 128
CONTRAST = 110
"""Distance of every colour from grey, in pixel values."""
ALIKE = 0.85
"""A colour this near to a keypoint's own still counts nothing."""
DARK = 0.9
"""A cell this far towards black counts nothing."""


def _directions() -> np.ndarray:
    """(K, 3) unit vectors spread over a sphere, so that no two keypoints' colours are alike, nor any like black."""
    count = 24
    index = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    spread = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=-1)
    return spread[np.argsort(spread @ DARKER)][: len(SKELETON)]


DARKER = -np.ones(3) / 3**0.5
"""From grey towards black, which is what a crop shows outside of the picture."""
DIRECTIONS = _directions()


def person(box: tuple[float, float, float, float]) -> np.ndarray:
    """(K, 2) joints spread evenly over a box x, y, width, height: four to a row, the outermost on its edges."""
    row, column = np.divmod(np.arange(len(SKELETON)), 4)
    shares = np.stack([column / 3, row / 4], axis=-1)
    return np.array(box[:2]) + shares * np.array(box[2:])


def paint(size: tuple[int, int], *people: np.ndarray, radius: float) -> np.ndarray:
    """An (H, W, 3) RGB picture with a disc at every joint of every person, its colour fullest in the middle."""
    picture = np.full((*size, 3), float(GREY))
    y, x = np.mgrid[: size[0], : size[1]]
    for joints in people:
        for (at_x, at_y), direction in zip(joints, DIRECTIONS, strict=True):
            outwards = ((x - at_x) ** 2 + (y - at_y) ** 2) / radius**2
            inside = outwards <= 1
            fullness = 1 - (1 - ALIKE) * outwards[inside]
            picture[inside] = GREY + CONTRAST * fullness[:, None] * direction
    return np.round(picture).astype(np.uint8)


def encode(picture: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    """The picture as the bytes of an image file."""
    buffer = BytesIO()
    PIL.Image.fromarray(picture).save(buffer, form, **options)
    return buffer.getvalue()


def manifest(**changes: object) -> BundleManifest:
    """What the tiny model's bundle says about itself."""
    facts = {
        "name": NAME,
        "version": "1",
        "description": "finds coloured discs",
        "licence": "Apache-2.0",
        "skeleton": SKELETON.name,
        "keypoints": SKELETON.keypoints,
        "input": {"name": "image", "height": HEIGHT, "width": WIDTH},
        "normalisation": {"mean": GREY, "scale": CONTRAST},
        "outputs": [
            {"name": "heatmaps", "height": HEIGHT // STRIDE, "width": WIDTH // STRIDE, "stride": STRIDE}
        ],
        "codec": {"sigma_cells": 1.0, "decoder": "argmax_shift"},
        "macs": 1,
        "parameters": 1,
        "opset": 17,
        "training": {
            "command": "none",
            "config": {},
            "seed": 0,
            "epochs": 0,
            "hours": 0,
            "hardware": "none",
            "started": "2000-01-01",
            "versions": {},
            "data": [],
        },
    }
    return BundleManifest.model_validate(facts | changes)


def graph(facts: BundleManifest, metadata: Mapping[str, str] | None = None) -> bytes:
    """The ONNX file: uint8 NHWC -> normalise -> average each cell -> one map per colour."""
    sharpness = 1 / (1 - ALIKE)
    measures = np.vstack([DIRECTIONS * sharpness, DARKER])
    offsets = np.append(np.full(len(SKELETON), -ALIKE * sharpness), -DARK)
    veto = np.hstack([np.eye(len(SKELETON)), np.full((len(SKELETON), 1), -100.0)])
    constants = [
        numpy_helper.from_array(np.array(1 / CONTRAST, np.float32), "scale"),
        numpy_helper.from_array(np.array(GREY, np.uint8), "grey"),
        numpy_helper.from_array(measures.astype(np.float32)[:, :, None, None], "measures"),
        numpy_helper.from_array(offsets.astype(np.float32), "offsets"),
        numpy_helper.from_array(veto.astype(np.float32)[:, :, None, None], "veto"),
    ]
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["planes", "scale", "grey"], ["numbers"]),
        helper.make_node(
            "AveragePool", ["numbers"], ["cells"], kernel_shape=[STRIDE, STRIDE], strides=[STRIDE, STRIDE]
        ),
        helper.make_node("Conv", ["cells", "measures", "offsets"], ["measured"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["measured"], ["likeness"]),
        helper.make_node("Conv", ["likeness", "veto"], ["vetoed"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["vetoed"], ["heatmaps"]),
    ]
    maps = ["N", len(SKELETON), HEIGHT // STRIDE, WIDTH // STRIDE]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])],
            [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, maps)],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", facts.opset)],
        ir_version=8,
    )
    helper.set_model_props(model, dict(bundle.metadata_of(facts) if metadata is None else metadata))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write(root: Path, **changes: object) -> Bundle:
    """Write a bundle of the tiny model under `root`."""
    facts = manifest(**changes)
    return bundle.write(root, facts, {facts.model_file: graph(facts)})
