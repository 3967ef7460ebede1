"""A look at a made set: its first pictures side by side, with the joints that it says are there."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model_zoo.skeletons import Skeleton
from trainer.data.people import Picture, load_json

TILES, COLUMNS, TILE_PX = 48, 8, 192
"""How many pictures, how many of them in a row, and the side of each."""
SEEN, HIDDEN, BONE, BOX = (255, 200, 40), (230, 40, 60), (235, 235, 235), (90, 220, 120)
"""RGB of keypoints, bones and boxes."""


def draw(annotations: Path, out: Path, skeleton: Skeleton) -> None:
    """Draw the sheet of a finished set.

    Args:
        annotations: JSON whose tar lies beside it.
        out: picture that is written.
        skeleton: bones, matched by name.

    Raises:
        DataError: the set cannot be read.
    """
    document = load_json(annotations)
    names = document["categories"][0]["keypoints"]
    bones = [
        tuple(names.index(skeleton.keypoints[end]) for end in bone)
        for bone in skeleton.bones
        if all(skeleton.keypoints[end] in names for end in bone)
    ]
    # Clips are looked at from beginning to end, pictures one after the other.
    step = (
        max(1, len(document["images"]) // TILES)
        if any("video_id" in each for each in document["images"])
        else 1
    )
    shown = list(islice(document["images"], 0, None, step))[:TILES]
    people: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in shown}
    for person in document["annotations"]:
        if person["image_id"] in people:
            people[person["image_id"]].append(person)
    columns = min(COLUMNS, len(shown))
    canvas = np.zeros((math.ceil(len(shown) / columns) * TILE_PX, columns * TILE_PX, 3), np.uint8)
    for number, entry in enumerate(shown):
        picture = Picture(annotations.with_suffix(".tar"), entry["tar_offset"], entry["tar_size"]).load()
        tile = _tile(picture, people[entry["id"]], bones)
        row, column = divmod(number, columns)
        canvas[row * TILE_PX :, column * TILE_PX :][: tile.shape[0], : tile.shape[1]] = tile
    cv2.imwrite(str(out), cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))


def _tile(
    picture: NDArray[np.uint8], people: list[dict[str, Any]], bones: list[tuple[int, ...]]
) -> NDArray[np.uint8]:
    """A small copy with the people's joints drawn onto it."""
    factor = TILE_PX / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
    tile = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    for person in people:
        joints = np.array(person["keypoints"], np.float64).reshape(-1, 3)
        at = [tuple(int(v) for v in ((xy + 0.5) * factor - 0.5) * 16) for xy in joints[:, :2]]
        x, y, width, height = (np.array(person["bbox"]) * factor).round().astype(int).tolist()
        cv2.rectangle(tile, (x, y), (x + width, y + height), BOX, 1)
        for a, b in bones:
            if joints[a, 2] and joints[b, 2]:
                cv2.line(tile, at[a], at[b], BONE, 1, cv2.LINE_AA, 4)
        for place, (_, _, v) in zip(at, joints, strict=True):
            if v:
                cv2.circle(tile, place, 32, SEEN if v == 2 else HIDDEN, -1, cv2.LINE_AA, 4)
    return tile
