"""Videos whose truth is known exactly: a photograph of a person that is panned, zoomed or turned before a noisy camera.

A clip is a person at rest, then in motion and back, then at rest again. The camera adds noise to every pixel of every
frame and compresses it as JPEG, so that what trembles is the model and not the truth.

Axes: K labelled joints, points (K, 2) in pixels of the frame. Times in seconds from the start of the clip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from service.errors import InvalidRequest
from service.streams.smoothing import length_of
from service.types import Floats, Image

KINDS = ("pan", "zoom", "turn")
SIZE = (480, 480)
"""(height, width) of a frame."""
PERSON_PX = 220.0
"""Length of the person at rest."""
REST_S, MOVE_S = 1.5, 2.0
"""Rest, motion, rest."""
PAN, ZOOM, TURN = 0.8, 1.5, math.radians(30)
"""How far a motion goes: in lengths of the person, as a factor, as an angle."""
NOISE = 6.0
"""Standard deviation of the camera's noise in pixel values."""
QUALITY = 88
"""Of the JPEG."""


class KnownClip(Protocol):
    """A clip of one person whose joints are known at every time."""

    @property
    def kind(self) -> str:
        """What moves, in a word."""

    @property
    def rate_hz(self) -> int: ...

    @property
    def names(self) -> tuple[str, ...]:
        """K joints."""

    @property
    def times(self) -> Floats:
        """(T,) when the frames are taken."""

    @property
    def size_px(self) -> float:
        """Length of the person."""

    def truth(self, times: Floats) -> Floats:
        """(T, K, 2) where the joints are at (T,) any times."""

    def is_rest(self, times: Floats) -> Floats:
        """(T,) bool, whether the person is at rest then."""

    def frames(self) -> Iterator[bytes]:
        """The encoded frames, one after the other."""


@dataclass(frozen=True, eq=False)
class Still:
    """A photograph of one person."""

    name: str
    image: Image
    joints: Floats
    """(K, 2) those that are labelled."""
    names: tuple[str, ...]
    """K names."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One photograph in one motion at one rate; a `KnownClip`."""

    still: Still
    kind: str
    rate_hz: int
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Of the joints that are labelled."""
        return self.still.names

    @property
    def size_px(self) -> float:
        """Length of the person at rest."""
        return PERSON_PX

    def is_rest(self, times: Floats) -> Floats:
        """Which of these (T,) times belong to the parts at rest."""
        return is_rest(times)

    @property
    def times(self) -> Floats:
        """When the frames are taken."""
        return np.arange(round((2 * REST_S + MOVE_S) * self.rate_hz)) / self.rate_hz

    def truth(self, times: Floats) -> Floats:
        """(T, K, 2) where the joints are at (T,) any times."""
        matrices = self._matrices(np.asarray(times, np.float64))
        return self.still.joints @ matrices[..., :2].swapaxes(-1, -2) + matrices[..., None, :, 2]

    def frames(self) -> Iterator[bytes]:
        """The encoded frames, one after the other."""
        noise = np.random.default_rng(self.seed)
        for matrix in self._matrices(self.times):
            picture = cv2.warpAffine(self.still.image, matrix, SIZE[::-1], borderMode=cv2.BORDER_REPLICATE)
            noisy = picture + np.float32(NOISE) * noise.standard_normal(picture.shape, np.float32)
            noisy = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
            done, data = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            assert done
            yield data.tobytes()

    def _matrices(self, times: Floats) -> Floats:
        """(T, 2, 3) from pixels of the photograph to pixels of the frame."""
        share = (1 - np.cos(2 * np.pi * np.clip((times - REST_S) / MOVE_S, 0.0, 1.0))) / 2 - 0.5
        middle = (self.still.joints.min(axis=0) + self.still.joints.max(axis=0)) / 2
        at_rest = PERSON_PX / length_of(self.still.joints)
        scale = at_rest * (ZOOM**share if self.kind == "zoom" else np.ones_like(share))
        angle = TURN * share if self.kind == "turn" else np.zeros_like(share)
        away = PAN * PERSON_PX * share[:, None] * ([0.8, 0.6] if self.kind == "pan" else [0.0, 0.0])
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
        shift = np.array(SIZE[::-1]) / 2 - turn @ middle + away
        return np.concatenate([turn, shift[..., None]], axis=-1)


def is_rest(times: Floats) -> Floats:
    """Which of these (T,) times belong to the parts at rest."""
    return (times < REST_S) | (times >= REST_S + MOVE_S)


def stills(annotations: Path, count: int, seed: int) -> list[Still]:
    """Some photographs of a data set: COCO keypoints, the pictures in a tar of the same name or beside the file.

    Raises:
        InvalidRequest: the files cannot be read.
    """
    try:
        data = json.loads(annotations.read_text())
        names = data["categories"][0]["keypoints"]
        images = {each["id"]: each for each in data["images"]}
        usable = [each for each in data["annotations"] if each.get("num_keypoints", 0) >= 10]
        order = np.random.default_rng(seed).permutation(len(usable))[:count]
        return [_still(annotations, images[usable[i]["image_id"]], usable[i], names) for i in sorted(order)]
    except (OSError, ValueError, LookupError) as error:
        raise InvalidRequest(f"cannot read photographs from {annotations}: {error!r}") from error


def _still(annotations: Path, image: dict, person: dict, names: list[str]) -> Still:
    if "tar_offset" in image:
        with annotations.with_suffix(".tar").open("rb") as archive:
            archive.seek(image["tar_offset"])
            data = archive.read(image["tar_size"])
    else:
        data = (annotations.parent / image["file_name"]).read_bytes()
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise ValueError(f"{image['file_name']} is no picture")
    joints = np.array(person["keypoints"], np.float64).reshape(-1, 3)
    labelled = np.flatnonzero(joints[:, 2] > 0)
    return Still(image["file_name"], picture, joints[labelled, :2], tuple(names[i] for i in labelled))
