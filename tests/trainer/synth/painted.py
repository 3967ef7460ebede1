"""A stand-in for the renderer: people as painted ellipses, so that what surrounds it is tested without a GPU driver."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import cv2
import numpy as np

from model_zoo.skeletons import BODY19
from trainer.errors import DataError
from trainer.synth import sensor
from trainer.synth.backgrounds import Backgrounds
from trainer.synth.recipe import Recipe
from trainer.synth.sample import HIDDEN, OUTSIDE, SEEN, Camera, Person, Sample
from trainer.synth.write import Kind, Maker


def paint(recipe: Recipe, index: int, backgrounds: Backgrounds) -> Sample:
    """0 to 2 ellipses; joint k lies on a spiral in the k-th ring, the last one outside the picture."""
    rng, side = np.random.default_rng([recipe.seed, index]), recipe.size
    camera = Camera.of_field_of_view(50, side, side)
    image, _ = backgrounds.draw(rng, side, side)
    people = []
    for number in range(index % 3):
        middle = rng.uniform(0.3, 0.7, 2) * side
        mask = np.zeros((side, side), np.uint8)
        cv2.ellipse(mask, tuple(int(v) for v in middle), (side // 8, side // 5), 0, 0, 360, 1, -1)
        image[mask > 0] = rng.integers(0, 256, 3)
        ring = np.linspace(0, side / 8, len(BODY19))[:, None]
        turn = np.linspace(0, 9, len(BODY19))
        points = middle + ring * np.stack([np.cos(turn), np.sin(turn)], -1)
        points[-1] = 2 * side
        depth = 3 + 0.01 * np.arange(len(BODY19))[:, None]
        xy = (points - (camera.cx, camera.cy)) / (camera.fx, camera.fy) * depth
        seen = np.array([SEEN, HIDDEN] * len(BODY19))[: len(BODY19)]
        seen[-1] = OUTSIDE
        x, y, width, height = cv2.boundingRect(mask)
        people.append(
            Person(
                keypoints=np.concatenate([points, seen[:, None]], axis=1),
                keypoints_3d=np.concatenate([xy, depth], axis=1),
                box=np.array([x, y, width, height], np.float64) - (0.5, 0.5, 0, 0),
                mask=mask > 0,
                person_id=number,
            )
        )
    how = sensor.draw(rng)
    return Sample(sensor.apply(image, how, rng), tuple(people), camera, meta=how.meta())


def maker(recipe: Recipe) -> Maker:
    """One picture of each index."""
    backgrounds = Backgrounds(recipe.backgrounds)
    return lambda index: [paint(recipe, index, backgrounds)]


def slow(recipe: Recipe) -> Maker:
    """The same, with time to be killed in."""
    quick = maker(recipe)

    def make(index: int) -> list[Sample]:
        time.sleep(0.05)
        return list(quick(index))

    return make


def clips(recipe: Recipe) -> Maker:
    """Three frames of each index."""
    backgrounds = Backgrounds()

    def make(index: int) -> Iterator[Sample]:
        for frame in range(3):
            found = paint(recipe, 3 * index + frame, backgrounds)
            yield Sample(found.image, found.people, found.camera, timestamp_s=frame / 30, meta=found.meta)

    return make


def failing(recipe: Recipe) -> Maker:
    """Cannot make its third picture."""
    quick = maker(recipe)

    def make(index: int) -> list[Sample]:
        if index == 2:
            raise DataError("no such pose")
        return list(quick(index))

    return make


def dying(recipe: Recipe) -> Maker:
    """Takes its process along."""
    return lambda index: os._exit(9)


def kind(how: object = maker, chunk: int = 4) -> Kind:
    """A kind that is made by one of the functions above."""
    return Kind("body", "person", BODY19.keypoints, BODY19, how, chunk)
