"""Balls at the places where joints are said to be, drawn alone and found again by their light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainer.synth import props
from trainer.synth.render import Layer, Lights, Material, Renderer
from trainer.synth.sample import OUTSIDE, Camera, Person

FLAT = Lights(key=(0, 0, 0), fill=(0, 0, 0), sky=(1, 1, 1), ground=(1, 1, 1), shadows=False)
"""Light from everywhere, so that a colour is a colour."""
_MARGIN_PX = 6


def found(renderer: Renderer, camera: Camera, point: np.ndarray, radius_px: float = 3.0) -> np.ndarray:
    """(2,) pixels where a ball at (3,) metres of the camera's frame is seen."""
    world = np.asarray(camera.R).T @ (point - camera.t)
    drawn = props.thing(np.random.default_rng(0), "ball", [radius_px * point[2] / camera.fx] * 3, world)
    values = drawn.layers[0].material.values | {
        "colour": (1, 0, 0), "pattern": 0.0, "mottle": 0.0, "wrinkle": 0.0, "shine": 0.0,
    }  # fmt: skip
    black = np.zeros((camera.height, camera.width, 3), np.uint8)
    ball = replace(drawn, layers=[Layer("all", Material(values))])
    light = renderer.render([ball], camera, FLAT, black).rgb[..., 0].astype(float)
    rows, columns = np.nonzero(light)
    weights = light[rows, columns]
    return np.array([columns @ weights, rows @ weights]) / weights.sum()


def farthest(renderer: Renderer, camera: Camera, person: Person) -> float:
    """Most pixels between a keypoint well inside the picture and the ball at its place in space; 0 without any."""
    size = np.array([camera.width, camera.height])
    inside = (person.keypoints[:, :2] > _MARGIN_PX).all(axis=1)
    inside &= (person.keypoints[:, :2] < size - _MARGIN_PX).all(axis=1) & (person.keypoints[:, 2] != OUTSIDE)
    away = [
        np.linalg.norm(found(renderer, camera, person.keypoints_3d[joint]) - person.keypoints[joint, :2])
        for joint in np.flatnonzero(inside)
    ]
    return max(away, default=0.0)
