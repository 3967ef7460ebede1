"""Whole photographs of nobody, somebody or many, of all sizes: what a net learns to find people in.

World: metres, z up, the floor at 0; the camera is above the origin and looks along y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from model_zoo.geometry import Floats
from trainer.synth import looks, props
from trainer.synth.backgrounds import PLACES
from trainer.synth.recipe import Recipe
from trainer.synth.render import Drawn, Floor
from trainer.synth.sample import Camera, Sample
from trainer.synth.single import Figure, Studio, look_at, things_about

Rng = np.random.Generator

COUNTS = (0.12, 0.22, 0.18, 0.14, 0.1, 0.08, 0.06, 0.05, 0.05)
"""Chance of 0 to 8 people."""
TALL = (0.06, 1.6)
"""Least and most height of somebody who stands, over that of the picture."""
SHAPES = (1.0, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3, 9 / 16)
"""Width over height of pictures."""
_APART_M = 0.5
"""Least distance between people on the floor; bodies are nearer where one leans over another."""
_TRIES = 8
_SHADOWS_REACH_M = 15.0
"""Beyond this one shadow map is too coarse."""
NO_CROWD = tuple(name for name in PLACES if name != "crowd")
"""The places without painted people, who have no labels."""


def maker(recipe: Recipe) -> Callable[[int], Iterator[Sample]]:
    """Index to its picture; see `write.Maker`."""
    studio = Studio(recipe, places=NO_CROWD)

    def make(index: int) -> Iterator[Sample]:
        yield picture(studio, np.random.default_rng([recipe.seed, index]))

    return make


def picture(studio: Studio, rng: Rng) -> Sample:
    """One whole photograph."""
    width, height = _size(rng, studio.recipe.size)
    focal = _camera(rng, width, height)
    count = int(rng.choice(len(COUNTS), p=COUNTS))
    spots = _spots(rng, count, focal)
    figures = [
        studio.figure(rng, owner, (*spot, 0.0), on_floor=True) for owner, spot in enumerate(spots, start=1)
    ]
    camera = _aimed(rng, focal, spots)
    things = [thing for figure in figures for thing in _about(rng, figure, camera, count)]
    things += [_standing(rng, focal) for _ in range(int(rng.integers(0, 5)))]
    lights = looks.lights(rng)
    spread = float(np.ptp(spots, axis=0).max()) if len(spots) > 1 else 0.0
    if spread > _SHADOWS_REACH_M:
        lights = replace(lights, shadows=False)
    floor = Floor(0.0, float(rng.uniform(0.2, 0.7)), 4.0 + spread) if rng.random() < 0.7 else None
    return studio.photograph(rng, figures, things, camera, lights, floor)


def _size(rng: Rng, longest: int) -> tuple[int, int]:
    shape = float(rng.choice(SHAPES))
    return (longest, round(longest / shape)) if shape >= 1 else (round(longest * shape), longest)


def _camera(rng: Rng, width: int, height: int) -> Camera:
    """One that looks nowhere yet."""
    return Camera.of_field_of_view(float(rng.uniform(25, 75)), width, height)


def _depth(rng: Rng, camera: Camera, tall: tuple[float, float]) -> float:
    """Metres at which somebody is so tall in the picture."""
    share = np.exp(rng.uniform(*np.log(tall)))
    return float(1.7 * camera.fy / (share * camera.height))


def _spots(rng: Rng, count: int, camera: Camera) -> Floats:
    """(N, 2) where people stand: together, one behind the other, or anywhere."""
    together = _depth(rng, camera, TALL) if rng.random() < 0.5 else None
    spots: list[Floats] = []
    for _ in range(count):
        for _ in range(_TRIES):
            away = _depth(rng, camera, TALL) if together is None else together * np.exp(rng.normal(0, 0.12))
            spot = np.array([rng.uniform(-0.55, 0.55) * camera.width / camera.fx * away, away])
            if all(np.hypot(*(spot - other)) > _APART_M for other in spots):
                spots.append(spot)
                break
    return np.array(spots).reshape(-1, 2)


def _aimed(rng: Rng, camera: Camera, spots: Floats) -> Camera:
    """The camera at some height, so that people are in the picture."""
    high = float(rng.uniform(0.4, 2.2) if rng.random() < 0.85 else rng.uniform(2.2, 6))
    away = float(np.median(spots[:, 1])) if len(spots) else float(np.exp(rng.uniform(0, 3)))
    high = min(high, 0.9 + away)
    eye, target = np.array([0.0, 0.0, high]), np.array([0.0, away, 0.9])
    target[2] += away * camera.height / camera.fy * rng.normal(0, 0.12)
    turned, moved = look_at(eye, target, float(np.radians(rng.normal(0, 3))))
    return replace(camera, R=turned, t=moved)


def _about(rng: Rng, figure: Figure, camera: Camera, count: int) -> Iterator[Drawn]:
    """What people hold or stand behind; less of it where there are many."""
    return things_about(rng, figure, camera) if rng.random() < 2 / (1 + count) else iter(())


def _standing(rng: Rng, camera: Camera) -> Drawn:
    """A box, a pole or a ball that stands somewhere: before people, behind them, or where there is nobody."""
    away = _depth(rng, camera, TALL)
    half = np.exp(rng.normal(-1.2, 0.5, 3))
    shape = str(rng.choice(["box", "pole", "ball"], p=[0.5, 0.35, 0.15]))
    if shape == "pole":
        half = np.array([*[rng.uniform(0.02, 0.2)] * 2, rng.uniform(0.3, 1.5)])
    elif shape == "ball":
        half = np.full(3, rng.uniform(0.08, 0.5))
    across = rng.uniform(-0.55, 0.55) * camera.width / camera.fx * away
    return props.thing(rng, shape, half, (across, away, half[2]), (0.0, 0.0, float(rng.uniform(0, np.pi))))
