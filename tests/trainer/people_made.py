"""Made people: coloured stick figures on noise, as annotated sets in the forms that the trainer reads.

Everything follows from the seed. Joints have colours of their own, so that a small net can learn to tell them
apart within seconds, and left from right.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model_zoo.skeletons import BODY19, Skeleton

HEAD = {
    "nose": (0.0, -0.42), "left_eye": (0.035, -0.45), "right_eye": (-0.035, -0.45), "left_ear": (0.065, -0.44),
    "right_ear": (-0.065, -0.44), "head_top": (0.0, -0.52), "neck": (0.0, -0.32),
    "left_shoulder": (0.12, -0.30), "right_shoulder": (-0.12, -0.30),
    "left_hip": (0.08, 0.0), "right_hip": (-0.08, 0.0),
}  # fmt: skip
"""Joints of a stiff upper body, in body heights about the middle of the hips; x to the right, y down."""
LIMBS = (
    ("shoulder", "elbow", 0.16, 60.0),
    ("elbow", "wrist", 0.15, 60.0),
    ("hip", "knee", 0.24, 25.0),
    ("knee", "ankle", 0.23, 25.0),
)
"""(from, to, length in body heights, standard deviation in degrees of the direction from straight down)."""


@dataclass(frozen=True)
class MadeSet:
    """One annotated set on disk."""

    annotations: Path
    """The JSON; its folder is the data root."""
    document: dict[str, Any]
    """What the JSON holds."""
    poses: NDArray[np.float64]
    """(N, 19, 2) body19 points of all people, labelled or not."""
    pictures: dict[int, NDArray[np.uint8]]
    """(H, W, 3) RGB by picture id."""


def make(
    folder: Path,
    name: str = "people",
    *,
    skeleton: Skeleton = BODY19,
    count: int = 12,
    seed: int = 1,
    tar: bool = False,
    side_px: tuple[int, int] = (90, 150),
    unlabelled: float = 0.06,
) -> MadeSet:
    """Write `<folder>/<name>.json` and its pictures: beside it under `<name>/`, or in `<name>.tar`.

    Args:
        folder: made where it is missing.
        name: of the set.
        skeleton: whose keypoints are annotated, by name; all of them are body19's.
        count: people; every fifth picture shows two of them.
        seed: of everything. Other arguments than the form (`tar`) change the pictures.
        tar: indexed tar instead of a folder of pictures.
        side_px: shortest and longest side of a picture.
        unlabelled: share of joints without a label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    poses: list[NDArray[np.float64]] = []
    pictures: dict[int, NDArray[np.uint8]] = {}
    while len(annotations) < count:
        number = len(images) + 1
        rng = np.random.default_rng([seed, number])
        height, width = (int(side) for side in rng.integers(*side_px, 2, endpoint=True))
        image = rng.normal(rng.uniform(70, 150), 18, (height, width, 3)).clip(0, 255).astype(np.uint8)
        for _ in range(min(2 if number % 5 == 0 else 1, count - len(annotations))):
            pose = _pose(rng, (height, width))
            _paint(image, pose)
            poses.append(pose)
            annotations.append(_annotation(len(poses), number, pose, skeleton, unlabelled, rng))
        pictures[number] = image
        images.append(
            {"id": number, "file_name": f"{name}/{number:04}.png", "width": width, "height": height}
        )
    encoded = {number: _png(image) for number, image in pictures.items()}
    if tar:
        write_tar(folder / f"{name}.tar", images, encoded)
    else:
        (folder / name).mkdir(exist_ok=True)
        for entry in images:
            (folder / entry["file_name"]).write_bytes(encoded[entry["id"]])
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoints)}],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document), "utf-8")
    return MadeSet(path, document, np.stack(poses), pictures)


def run_document(**changes: Any) -> dict[str, Any]:
    """A configuration for seconds instead of hours: a narrow net at 64 x 64 on `people.json`, four epochs."""
    return {
        "name": "mini",
        "description": "Made people",
        "skeleton": "body19",
        "codec": {"sigma_cells": 1.0},
        "net": {"stem": 16, "widths": [16, 16, 16, 16], "blocks": [1, 1, 1, 1], "decoder": [16, 16]},
        "data": {"train": [{"annotations": "people.json"}], "validate_on": [{"annotations": "people.json"}]},
        "augmentation": {"turn_deg": 15, "scale": 0.1},
        "phases": [{"epochs": 4, "height": 64, "width": 64}],
        "optimisation": {"batch": 8, "learning_rate": 0.01, "warmup_epochs": 0.5, "ema": 0.8},
        "precision": "32-true",
        "validate_every": 2,
    } | changes


def colour(keypoint: int) -> tuple[int, int, int]:
    """RGB of a joint of body19: hues all around, dark for the person's right, bright for the others."""
    dark = BODY19.keypoints[keypoint].startswith("right_")
    hsv = np.uint8([[[(keypoint * 37) % 180, 255, 140 if dark else 255]]])
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]
    return int(red), int(green), int(blue)


def _pose(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """(19, 2) points of one person, well inside a picture of (height, width)."""
    body = {name: np.array(at) for name, at in HEAD.items()}
    for side in ("left", "right"):
        for start, end, length, spread in LIMBS:
            angle = np.deg2rad(rng.normal(0, spread))
            step = length * np.array([np.sin(angle), np.cos(angle)])
            body[f"{side}_{end}"] = body[f"{side}_{start}"] + step
    points = np.stack([body[name] for name in BODY19.keypoints])
    turn = np.deg2rad(rng.normal(0, 10))
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    low, high = points.min(axis=0), points.max(axis=0)
    height, width = size
    room = np.array([width, height]) - 16.0
    scale = (room / (high - low)).min() * rng.uniform(0.75, 1.0)
    spare = room - scale * (high - low)
    return (points - low) * scale + 8 + spare * rng.uniform(0, 1, 2)


def _paint(image: NDArray[np.uint8], pose: NDArray[np.float64]) -> None:
    """Limbs as grey lines, joints as coloured dots, placed to a sixteenth of a pixel."""
    fixed = [tuple(int(v) for v in row) for row in (pose * 16).round()]
    for parent, child in BODY19.bones:
        cv2.line(image, fixed[parent], fixed[child], (225, 225, 225), 2, cv2.LINE_AA, 4)
    for index, at in enumerate(fixed):
        cv2.circle(image, at, 3 * 16, colour(index), -1, cv2.LINE_AA, 4)


def _annotation(
    number: int,
    image: int,
    pose: NDArray[np.float64],
    skeleton: Skeleton,
    unlabelled: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    # Draws for all of body19, so that sets of different skeletons show the same people.
    seen = rng.choice([0, 1, 2], len(pose), p=[unlabelled, 0.1, 0.9 - unlabelled])
    low, high = pose.min(axis=0) - 5, pose.max(axis=0) + 5
    box = [*low.tolist(), *(high - low).tolist()]
    keypoints: list[float] = []
    for name in skeleton.keypoints:
        index = BODY19.index(name)
        v = int(seen[index])
        keypoints += [*(pose[index].tolist() if v else (0, 0)), v]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": box,
        "area": 0.5 * box[2] * box[3],
        "keypoints": keypoints,
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
    }


def _png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_tar(path: Path, images: list[dict[str, Any]], encoded: dict[int, bytes]) -> None:
    """An uncompressed tar, and where each picture lies in it."""
    with tarfile.open(path, "w") as archive:
        for entry in images:
            data = encoded[entry["id"]]
            member = tarfile.TarInfo(entry["file_name"])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as archive:
        for entry, member in zip(images, archive.getmembers(), strict=True):
            entry["tar_offset"], entry["tar_size"] = member.offset_data, member.size
