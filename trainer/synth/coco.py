"""Made pictures as entries of the COCO-keypoints JSON that `trainer.data.people` reads.

Beyond COCO: `camera` of a picture (fx, fy, cx, cy in pixels), which says that `keypoints_3d` of its people are metres
in that camera's frame; `timestamp_s`, `video_id` and `frame_index` of frames; `person_id`; masks as compressed RLE.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle

from model_zoo.skeletons import Skeleton
from trainer.synth.sample import OUTSIDE, Person, Sample

Entry = dict[str, Any]

PIXEL_DIGITS, METRE_DIGITS = 2, 4
"""Decimals that are kept: a hundredth of a pixel, a tenth of a millimetre."""


def category(name: str, keypoints: tuple[str, ...], skeleton: Skeleton) -> Entry:
    """The one category of a set; bones count from 1, as COCO has them."""
    bones = [
        [keypoints.index(skeleton.keypoints[end]) + 1 for end in bone]
        for bone in skeleton.bones
        if all(skeleton.keypoints[end] in keypoints for end in bone)
    ]
    return {"id": 1, "name": name, "supercategory": name, "keypoints": list(keypoints), "skeleton": bones}


def picture(sample: Sample) -> Entry:
    """What is true of the whole picture, but for its name, number and place."""
    camera = sample.camera
    entry: Entry = {
        "width": int(sample.image.shape[1]),
        "height": int(sample.image.shape[0]),
        "camera": {key: round(float(getattr(camera, key)), 3) for key in ("fx", "fy", "cx", "cy")},
    }
    if sample.timestamp_s is not None:
        entry["timestamp_s"] = round(float(sample.timestamp_s), 6)
    if sample.meta:
        entry["made"] = sample.meta
    return entry


def people(sample: Sample) -> list[Entry]:
    """The people of a picture, but for their numbers; those of whom no pixel is seen are left out.

    A keypoint outside the picture is (0, 0, 0), as in COCO; `keypoints_3d` and `camera` still tell where it is.
    """
    seen = (each for each in sample.people if each.mask.any() or each.labels.get("presence") == 0)
    return [_person(each) for each in seen]


def _person(person: Person) -> Entry:
    keypoints = np.array(person.keypoints, np.float64)
    keypoints[keypoints[:, 2] == OUTSIDE] = 0
    packed = rle.encode(np.asfortranarray(person.mask, np.uint8))
    return {
        "category_id": 1,
        "iscrowd": 0,
        "person_id": int(person.person_id),
        "bbox": _rounded(person.box, PIXEL_DIGITS),
        "area": int(person.mask.sum()),
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "keypoints": [
            number
            for x, y, v in keypoints.tolist()
            for number in (round(x, PIXEL_DIGITS), round(y, PIXEL_DIGITS), int(v))
        ],
        "keypoints_3d": _rounded(person.keypoints_3d, METRE_DIGITS),
        "segmentation": {"size": packed["size"], "counts": packed["counts"].decode("ascii")},
        **person.labels,
    }


def _rounded(numbers: Any, digits: int) -> list[float | None]:
    """A flat list; null where there is no number."""
    flat = np.asarray(numbers, np.float64).ravel().tolist()
    return [round(each, digits) if np.isfinite(each) else None for each in flat]
