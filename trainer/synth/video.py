"""Clips of people who move before a camera that may move too, with the truth of every frame.

A frame's truth is that of the middle of its exposure. Whatever moves during the exposure is blurred: the frame is the
mean, in linear light, of pictures that are spread evenly about that time. Backgrounds are far away: they turn with the
camera, and nothing else moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from model_zoo.geometry import Floats
from trainer.synth import acts, dressing, keypoints, looks, props, sensor
from trainer.synth.acts import Act
from trainer.synth.recipe import Recipe
from trainer.synth.render import Drawn, Floor, Lights, Rendered
from trainer.synth.sample import Camera, Sample
from trainer.synth.scene import NO_CROWD
from trainer.synth.single import Figure, Studio, look_at, truth
from trainer.synth.stages import lap

Rng = np.random.Generator

RATES_HZ = (10, 15, 24, 25, 30, 50, 60)
SECONDS = (2.0, 4.0)
MOST_FRAMES = 120
SHAPES = (1.0, 4 / 3, 16 / 9, 3 / 4, 9 / 16)
"""Width over height."""
_WIDER = 2.0
"""The background over the picture, so that the camera can turn; beyond it is mirrored."""
_MOVES = {"still": 0.35, "held": 0.35, "pans": 0.1, "follows": 0.05, "zooms": 0.08, "walks": 0.07}
_MOVES_AFTER_SOMEBODY = {
    "still": 0.2,
    "held": 0.1,
    "pans": 0.05,
    "follows": 0.6,
    "zooms": 0.02,
    "walks": 0.03,
}
"""What the camera does, and how often: where somebody stays, and where somebody walks away."""
_BESIDE = 0.75
"""Share of somebody's way that a camera which follows goes as well."""
_BLUR_STEP_PX = 1.5
_MOST_STEPS = 7
"""Pictures in a frame: a joint that is fast moves this far from one to the next, but there are no more of them."""


@dataclass(frozen=True)
class Clip:
    """All that a clip's frames are made from; each follows from its time alone, but for the camera's noise."""

    studio: Studio
    acts: Sequence[Act]
    camera: Callable[[float], Camera]
    things: Sequence[Drawn]
    lights: Lights
    floor: Floor | None
    background: NDArray[np.uint8]
    rate_hz: int
    count: int
    exposure_s: float
    taken_by: sensor.Sensor
    meta: dict[str, object]

    def frame(self, number: int, rng: Rng) -> Sample:
        """One frame; `rng` is of the noise."""
        time_s = number / self.rate_hz
        figures, camera, rendered = self._seen(time_s)
        lap("drawing")
        people = tuple(truth(figure, camera, rendered) for figure in figures)
        lap("truth")
        image = self._exposed(time_s, rendered.rgb)
        lap("motion blur")
        image = sensor.apply(image, self.taken_by, rng)
        lap("sensor")
        return Sample(image, people, camera, time_s, dict(self.meta))

    def _seen(self, time_s: float) -> tuple[list[Figure], Camera, Rendered]:
        camera, figures = self.camera(time_s), [act.at(time_s) for act in self.acts]
        lap("poses and skin")
        background = _behind(self.background, self.camera(0.0), camera)
        items = [*(item for figure in figures for item in figure.items), *self.things]
        rendered = self.studio.renderer.render(
            items, camera, self.lights, background, self.floor, dressing.face(self.studio.model)
        )
        return figures, camera, rendered

    def _exposed(self, time_s: float, middle: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame with what its exposure blurs, given its middle."""
        half = self.exposure_s / 2
        ends = [self._joints(time_s + side * half) for side in (-1, 1)]
        way = np.nanmax(np.linalg.norm(ends[1] - ends[0], axis=-1), initial=0.0)
        steps = min(int(way / _BLUR_STEP_PX) // 2 * 2 + 1, _MOST_STEPS)
        if steps == 1:
            return middle
        offsets = ((np.arange(steps) + 0.5) / steps - 0.5) * self.exposure_s
        light = _light(middle)
        for offset in offsets[np.arange(steps) != steps // 2]:
            light += _light(self._seen(time_s + offset)[2].rgb)
        return cv2.convertScaleAbs(cv2.sqrt(light / steps))

    def _joints(self, time_s: float) -> Floats:
        camera = self.camera(time_s)
        return np.concatenate([camera.project(keypoints.of_body(act.at(time_s).body)) for act in self.acts])


def maker(recipe: Recipe) -> Callable[[int], Iterator[Sample]]:
    """Index to the frames of its clip; see `write.Maker`."""
    studio = Studio(recipe, places=NO_CROWD)

    def make(index: int) -> Iterator[Sample]:
        rng = np.random.default_rng([recipe.seed, index])
        made = clip(studio, rng)
        for number in range(made.count):
            yield made.frame(number, rng)

    return make


def clip(studio: Studio, rng: Rng) -> Clip:
    """Any clip."""
    rate_hz = int(rng.choice(RATES_HZ))
    count = min(round(rng.uniform(*SECONDS) * rate_hz), MOST_FRAMES)
    seconds = count / rate_hz
    people = [
        acts.draw(rng, studio.actor(rng, owner), _spot(rng, owner), seconds)
        for owner in range(1, 1 + int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])))
    ]
    lap("shape")
    reference = _reference(rng, studio.recipe.size)
    away = float(np.linalg.norm(reference.R.T @ reference.t))
    camera, moves = _moving(rng, reference, people[0], seconds)
    exposure_s = float(min(rng.uniform(0.05, 0.9) / rate_hz, 1 / 30))
    size = [round(each * _WIDER) for each in (reference.height, reference.width)]
    background, kind = studio.backgrounds.draw(rng, *size)
    taken_by = replace(sensor.draw(rng), motion_px=0.0)  # its own motion is the camera's
    things = [_before(rng, away)] if rng.random() < 0.2 else []
    floor = Floor(0.0, float(rng.uniform(0.2, 0.7)), 6.0) if rng.random() < 0.7 else None
    meta = {"background": kind, "rate_hz": rate_hz, "exposure_s": round(exposure_s, 5), "camera_moves": moves}
    return Clip(
        studio, people, camera, things, looks.lights(rng), floor, background, rate_hz, count, exposure_s,
        taken_by, meta | taken_by.meta(),
    )  # fmt: skip


def _spot(rng: Rng, owner: int) -> Floats:
    """(2,) metres; the first one is in the middle."""
    if owner == 1:
        return np.zeros(2)
    turn = rng.uniform(0, 2 * np.pi)
    return rng.uniform(0.8, 2.5) * np.array([np.cos(turn), np.sin(turn)])


def _reference(rng: Rng, longest: int) -> Camera:
    """Where the camera stands, so that the first person is 0.4 to 0.9 of the picture tall."""
    shape = float(rng.choice(SHAPES))
    width, height = (longest, round(longest / shape)) if shape >= 1 else (round(longest * shape), longest)
    camera = Camera.of_field_of_view(float(rng.uniform(20, 65)), width, height)
    away = 1.7 * camera.fy / (rng.uniform(0.4, 0.9) * height)
    eye = np.array([0.0, -away, rng.uniform(0.5, 2.2)])
    turned, moved = look_at(eye, np.array([0.0, 0.0, 0.9]), float(np.radians(rng.normal(0, 2))))
    return replace(camera, R=turned, t=moved)


def _moving(rng: Rng, reference: Camera, act: Act, seconds: float) -> tuple[Callable[[float], Camera], str]:
    """The camera over time, and a word for what it does."""
    chances = _MOVES_AFTER_SOMEBODY if act.velocity.any() else _MOVES
    what = str(rng.choice(list(chances), p=list(chances.values())))
    if what == "still":
        return lambda _: reference, what
    view = np.degrees(2 * np.arctan(reference.width / (2 * reference.fx)))
    speed = rng.choice([-1, 1]) * rng.uniform(0.05, 0.3) * view / seconds  # degrees per second
    growth = rng.choice([-1, 1]) * rng.uniform(0.1, 0.4) / seconds
    steps = np.array([rng.normal(0, 0.5), rng.normal(0, 0.3), 0.0]) / seconds
    shake = 0.02 * view if what == "held" else 0.004 * view
    sizes, rates, phases = (
        rng.normal(0, shake, (4, 3)) / np.sqrt(4),
        rng.uniform(0.4, 5, (4, 1)),
        rng.uniform(0, 2 * np.pi, (4, 3)),
    )
    eye = -np.asarray(reference.R).T @ reference.t

    def camera(time_s: float) -> Camera:
        since = time_s - seconds / 2
        shake_deg = (sizes / np.sqrt(rates) * np.sin(2 * np.pi * rates * time_s + phases)).sum(axis=0)
        pitch, yaw, roll = np.radians(shake_deg)
        yaw += np.radians(speed * since) if what == "pans" else 0.0
        turn, place, focal = _turned(pitch, yaw, roll) @ reference.R, eye, reference.fx
        if what == "walks":
            place = eye + steps * since
        if what == "follows":  # most of the way beside, the rest by turning
            ahead = np.array([*(act.velocity * since), 0.0])
            place = eye + _BESIDE * ahead
            aimed, _ = look_at(place, ahead + np.array([0.0, 0.0, 0.9]))
            turn = _turned(pitch, yaw, roll) @ aimed
        if what == "zooms":
            focal = reference.fx * float(np.exp(growth * since))
        return replace(reference, fx=focal, fy=focal, R=turn, t=-turn @ place)

    return camera, what


def _turned(pitch: float, yaw: float, roll: float) -> Floats:
    """(3, 3) a turn of the camera's own axes, radians."""
    matrix, _ = cv2.Rodrigues(np.array([pitch, yaw, roll]))
    return matrix


def _behind(wide: NDArray[np.uint8], first: Camera, now: Camera) -> NDArray[np.uint8]:
    """What of a far, wide background the camera sees that has turned since the first frame."""
    height, width = wide.shape[:2]
    middle = np.array([[first.fx, 0, (width - 1) / 2], [0, first.fy, (height - 1) / 2], [0, 0, 1]])
    to_now = now.intrinsics @ now.R @ np.asarray(first.R).T @ np.linalg.inv(middle)
    return cv2.warpPerspective(wide, to_now, (now.width, now.height), borderMode=cv2.BORDER_REFLECT_101)


def _before(rng: Rng, away: float) -> Drawn:
    """Something that stands between the camera and the people."""
    half = np.array([rng.uniform(0.05, 0.4), rng.uniform(0.05, 0.3), rng.uniform(0.2, 0.5)])
    place = (rng.normal(0, 0.6), -rng.uniform(0.7, 0.6 * away), half[2])
    return props.thing(rng, "box", half, place, (0.0, 0.0, float(rng.uniform(0, np.pi))))


def _light(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The square, as the sensor has it."""
    seen = image.astype(np.float32)
    return seen * seen
