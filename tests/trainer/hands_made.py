"""Made hands: five coloured fingers on noise, open or closed, left or right, with a depth; and pictures of noise alone.

Everything follows from the seed. A net of a few thousand weights learns all labels of them within seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model_zoo.skeletons import HAND21

SIDE = 80
GESTURES = ("fist", "open")
COLOURS = ((255, 60, 60), (240, 230, 40), (60, 230, 60), (40, 220, 240), (70, 90, 255))
"""RGB of thumb to little finger."""
_ANGLES_DEG = (-60, -22, 0, 18, 38)


def hand(rng: np.random.Generator, gesture: str, handedness: str) -> NDArray[np.float64]:
    """(21, 3) x, y and z in pixels of a picture of `SIDE`: fingers from the wrist upwards, the thumb towards the left
    of a right hand; closed ones are short. Fingers come nearer towards their tips."""
    points = np.zeros((21, 3))
    reach = 0.62 if gesture == "open" else 0.3
    for finger, degrees in enumerate(_ANGLES_DEG):
        angle = np.deg2rad(degrees + rng.normal(0, 3))
        along = np.array([np.sin(angle), -np.cos(angle)])
        shares = np.linspace(0.22, reach, 4)
        points[1 + 4 * finger : 5 + 4 * finger, :2] = shares[:, None] * along
        points[1 + 4 * finger : 5 + 4 * finger, 2] = -0.4 * shares
    if handedness == "left":
        points[:, 0] *= -1
    points *= SIDE * rng.uniform(0.9, 1.1)
    points[:, :2] += (SIDE / 2 + rng.normal(0, 2), SIDE * 0.78 + rng.normal(0, 2))
    return points


def picture(rng: np.random.Generator, points: NDArray[np.float64] | None) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3) RGB: noise, and a hand on it."""
    image = rng.normal(rng.uniform(80, 140), 14, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    if points is not None:
        at = np.round(points[:, :2] * 16).astype(int)
        for finger, colour in enumerate(COLOURS):
            line = at[[0, *range(1 + 4 * finger, 5 + 4 * finger)]]
            cv2.polylines(image, [line], False, colour, 4, cv2.LINE_AA, shift=4)
        cv2.circle(image, at[0].tolist(), 6 * 16, (235, 235, 235), cv2.FILLED, cv2.LINE_AA, shift=4)
    return image


def make(folder: Path, name: str = "hands", *, count: int = 96, seed: int = 1) -> Path:
    """Write `<folder>/<name>.json` and its pictures; every fourth shows nobody, and only every second other one has z.

    Returns:
        The JSON.
    """
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        there = number % 4 != 0
        gesture, handedness = GESTURES[int(rng.integers(2))], ("left", "right")[int(rng.integers(2))]
        points = hand(rng, gesture, handedness) if there else None
        file = f"{name}/{number:04}.png"
        cv2.imwrite(str(folder / file), picture(rng, points)[..., ::-1])
        images.append(
            {"id": number, "file_name": file, "width": SIDE, "height": SIDE, "presence": int(there)}
        )
        if points is None:
            continue
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        entry = {
            "id": number,
            "image_id": number,
            "category_id": 1,
            "bbox": [*low.tolist(), *(high - low).tolist()],
            "keypoints": np.c_[points[:, :2], np.full(21, 2)].ravel().tolist(),
            "presence": 1,
            "gesture": gesture,
            "handedness": handedness,
        }
        annotations.append(entry | ({"keypoints_3d": points.ravel().tolist()} if number % 2 else {}))
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "hand", "keypoints": list(HAND21.keypoints)}],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document), "utf-8")
    return path


def run_document(**changes: Any) -> dict[str, Any]:
    """A configuration of a net with every further head, at 64 x 64: learns `hands.json`, measured on `val.json`."""
    return {
        "name": "mini-hand",
        "description": "Made hands",
        "skeleton": "hand21",
        "codec": {"sigma_cells": 1.0},
        "net": {
            "stem": 16, "widths": [16, 16, 24, 32], "blocks": [1, 1, 1, 1], "decoder": [16, 16], "head": "dsnt",
            "dimensions": 3, "depth_cells": 4, "presence": True, "handedness": True, "classes": list(GESTURES),
        },
        "data": {"train": [{"annotations": "hands.json"}], "validate_on": [{"annotations": "val.json"}]},
        "augmentation": {"turn_deg": 8, "scale": 0.1, "grey": 0.0},
        "phases": [{"epochs": 12, "height": 64, "width": 64}],
        "optimisation": {"batch": 16, "learning_rate": 0.01, "warmup_epochs": 0.5, "ema": 0.9},
        "precision": "32-true",
        "validate_every": 6,
    } | changes  # fmt: skip
