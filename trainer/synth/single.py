"""One person in one picture, now and then with another beside: the crops that a pose net learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from model_zoo.geometry import Floats
from trainer.synth import body as bodies
from trainer.synth import dressing, garments, keypoints, looks, plain, pose, props, sensor
from trainer.synth.backgrounds import PLACES, Backgrounds
from trainer.synth.body import Body, BodyModel, RestBody, Shape
from trainer.synth.garments import Sheet
from trainer.synth.pose import Pose
from trainer.synth.recipe import Recipe
from trainer.synth.render import Drawn, Floor, Layer, Lights, Material, Rendered, Renderer
from trainer.synth.sample import Camera, Person, Sample
from trainer.synth.stages import lap

Rng = np.random.Generator

_TRIMMED = 0.6
"""Share of the pictures that are cut to somebody."""


@dataclass(frozen=True)
class Figure:
    """Somebody in a pose, before there is a picture."""

    body: Body
    drawn: Drawn
    tall_m: float
    hanging: tuple[Drawn, ...] = ()
    """What hangs about it: a skirt, long hair."""

    @property
    def items(self) -> tuple[Drawn, ...]:
        """All that is to be drawn, what hides the rest first."""
        return *self.hanging, self.drawn


@dataclass(frozen=True)
class Actor:
    """Somebody dressed, in no pose yet."""

    rest: RestBody
    layers: list[Layer]
    hanging: list[tuple[Sheet, Material]]
    owner: int
    """Number in the picture, from 1."""

    def posed(self, taken: Pose, at: ArrayLike = (0.0, 0.0, 0.0), *, on_floor: bool = False) -> Figure:
        """In a pose, the pelvis at (3,) metres; or above there so that its lowest point is at the height of `at`."""
        body = self.rest.posed(taken.rotations, taken.root, at)
        if on_floor:
            body = body.moved([0.0, 0.0, np.asarray(at)[2] - body.vertices[:, 2].min()])
        return self.wearing(body)

    def wearing(self, body: Body) -> Figure:
        """Its own body in some pose, dressed."""
        drawn = Drawn(dressing.surface(body.model), body.vertices, body.normals, self.layers, self.owner)
        hanging = tuple(sheet.worn(body, material, self.owner) for sheet, material in self.hanging)
        return Figure(body, drawn, float(np.ptp(self.rest.vertices[:, 2])), hanging)


class Studio:
    """Makes pictures of one recipe; once per process.

    Args:
        recipe: what to make.
        places: which made backgrounds there are, of `backgrounds.PLACES`.

    Raises:
        BodyMissing, RenderingUnavailable: see `body.load` and `render.Renderer`.
        DataError: the poses or backgrounds of the recipe cannot be read.
    """

    def __init__(self, recipe: Recipe, *, places: tuple[str, ...] = tuple(PLACES)) -> None:
        self.recipe = recipe
        self.model: BodyModel = bodies.load(coarse=True)
        self.renderer = Renderer(recipe.size, recipe.size, detail=False)
        self.backgrounds = Backgrounds(recipe.backgrounds, places)
        self.fitted = None if recipe.poses is None else pose.read_library(recipe.poses)

    def actor(self, rng: Rng, owner: int) -> Actor:
        """Anybody, dressed.

        Args:
            rng: of this person.
            owner: its number in the picture, from 1.
        """
        drawn = _shape(rng)
        rest = self.model.rest(plain.shape(drawn, self.recipe.left_out))
        lap("shape")
        layers = looks.wardrobe(rng, female=drawn.gender)
        sheets = {"skirt": garments.skirt, "long_hair": garments.long_hair}
        hanging = [
            (sheets[name](self.model, low), material)
            for name, low, material in looks.hanging(rng, layers, female=drawn.gender)
        ]
        return Actor(rest, *plain.dressed(layers, hanging, self.recipe.left_out), owner)

    def figure(
        self, rng: Rng, owner: int, at: ArrayLike = (0.0, 0.0, 0.0), *, on_floor: bool = False
    ) -> Figure:
        """Anybody in any pose; see `actor` and `Actor.posed`."""
        actor = self.actor(rng, owner)
        lap("clothes")
        taken = plain.posed(pose.sample_body_pose(rng, self.fitted), self.recipe.left_out)
        lap("pose")
        figure = actor.posed(taken, at, on_floor=on_floor)
        lap("skin")
        return figure

    def picture(self, rng: Rng) -> Sample:
        """One picture."""
        figures = [self.figure(rng, 1)]
        if rng.random() < 0.18:
            away = rng.uniform(0.35, 1.3) * _around(rng)
            figures.append(self.figure(rng, 2, away))
        camera = _camera(rng, figures[0].body.vertices, self.recipe.size, self.recipe.left_out)
        camera = _trimmed(rng, camera, figures[0].body.vertices, self.recipe.left_out)
        return self.taken(rng, figures, camera)

    def taken(self, rng: Rng, figures: Sequence[Figure], camera: Camera) -> Sample:
        """A picture of these figures, with things about them."""
        left_out = self.recipe.left_out
        about = [list(things_about(rng, figure, camera)) for figure in figures]
        if "others" in left_out:
            figures, about = figures[:1], about[:1]
        things = [] if "things" in left_out else [thing for each in about for thing in each]
        ground = min(float(figure.body.vertices[:, 2].min()) for figure in figures)
        floor = Floor(ground, float(rng.uniform(0.2, 0.7))) if rng.random() < 0.6 else None
        lap("camera and things")
        return self.photograph(rng, figures, things, camera, looks.lights(rng), floor)

    def photograph(
        self,
        rng: Rng,
        figures: Sequence[Figure],
        things: Sequence[Drawn],
        camera: Camera,
        lights: Lights,
        floor: Floor | None,
    ) -> Sample:
        """A picture over some background, with a camera's faults."""
        left_out = self.recipe.left_out
        # Of its own numbers: how many it takes depends on the size of the picture, and so on poses.
        drawn = self.backgrounds.draw(rng.spawn(1)[0], camera.height, camera.width)
        background, kind = plain.behind(drawn, left_out)
        lap("background")
        items = [*(item for figure in figures for item in figure.items), *things]
        rendered = self.renderer.render(
            [plain.painted(each, left_out) for each in items],
            camera,
            plain.lit(lights, left_out),
            background,
            plain.floor(floor, left_out),
            dressing.face(self.model),
        )
        lap("drawing")
        seen_by = sensor.draw(rng, without=plain.sensor_fields(left_out))
        people = tuple(truth(figure, camera, rendered) for figure in figures)
        lap("truth")
        image = sensor.apply(rendered.rgb, seen_by, rng)
        lap("sensor")
        return Sample(image, people, camera, meta={"background": kind} | seen_by.meta())


def truth(figure: Figure, camera: Camera, rendered: Rendered) -> Person:
    """What is true of somebody in a picture."""
    owner = figure.drawn.owner
    points = keypoints.of_body(figure.body)
    seen = keypoints.visibility(points, camera, rendered, owner, figure.tall_m)
    inside = camera.to_camera(points)
    pixels = np.nan_to_num(camera.to_pixels(inside), nan=0.0)
    mask = rendered.owner == owner
    outline = camera.project(figure.body.vertices)
    if mask.any():  # clothes and hair reach further than the skin
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        worn = [(columns[0] - 0.5, rows[0] - 0.5), (columns[-1] + 0.5, rows[-1] + 0.5)]
        outline = np.concatenate([outline, worn])
    return Person(
        keypoints=np.concatenate([pixels, seen[:, None]], axis=1),
        keypoints_3d=inside,
        box=_box(outline, camera),
        mask=mask,
        person_id=owner,
    )


def maker(recipe: Recipe) -> Callable[[int], Iterator[Sample]]:
    """Index to its picture; see `write.Maker`."""
    studio = Studio(recipe)

    def make(index: int) -> Iterator[Sample]:
        yield studio.picture(np.random.default_rng([recipe.seed, index]))

    return make


def _shape(rng: Rng) -> Shape:
    child = rng.random() < 0.14
    return Shape(
        gender=float(rng.beta(0.4, 0.4)),
        age=float(rng.uniform(0.25, 0.5) if child else rng.uniform(0.58, 0.95)),
        muscle=float(rng.beta(2.5, 2)),
        weight=float(rng.beta(2, 2.4)),
        height=float(rng.beta(2, 2)),
        proportions=float(rng.beta(2, 2)),
    )


def _around(rng: Rng) -> Floats:
    turn = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(turn), np.sin(turn), rng.normal(0, 0.1)])


def look_at(eye: Floats, target: Floats, roll: float = 0.0) -> tuple[Floats, Floats]:
    """Rotation and translation of a camera, z up in the world.

    Args:
        eye, target: (3,) metres.
        roll: radians that the camera is turned about its axis.
    """
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 0, 1.0])
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = np.cos(roll), np.sin(roll)
    turned = np.stack([cosine * right + sine * down, cosine * down - sine * right, forward])
    return turned, -turned @ eye


def _camera(rng: Rng, vertices: Floats, size: int, left_out: plain.LeftOut) -> Camera:
    """One that has somebody in the middle, more or less, and now and then cut off."""
    up = np.radians(np.clip(rng.normal(6, 14), -35, 70))
    degrees = float(rng.uniform(12, 65))
    fill = rng.uniform(0.55, 0.95) if rng.random() < 0.85 else rng.uniform(0.95, 1.9)
    drift = rng.normal(0, 0.05 if fill < 0.95 else 0.3, 3)
    roll = np.radians(rng.normal(0, 5))
    if "views" in left_out:
        up, degrees, roll = np.radians(6), 35.0, 0.0
    if "framing" in left_out:
        fill, drift = 0.75, np.zeros(3)
    back = np.array([0.0, -np.cos(up), np.sin(up)])  # poses face anywhere, so cameras need not go around
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    axes, _ = look_at(middle + back, middle)
    reach = np.abs((vertices - middle) @ axes.T).max(axis=0)
    away = max(reach[:2]) / (fill * np.tan(np.radians(degrees) / 2)) + reach[2] * 0.5
    target = middle + drift * max(reach[:2])
    turned, moved = look_at(middle + back * away, target, roll)
    return Camera.of_field_of_view(degrees, size, size, R=turned, t=moved)


def _trimmed(rng: Rng, camera: Camera, vertices: Floats, left_out: plain.LeftOut) -> Camera:
    """The same view, in half of the cases cut to somebody with a margin at each side, as people cut their pictures.

    A crop of such a picture reaches beyond it, as one of most photographs of sport does.
    """
    trimmed, margins = rng.random() < _TRIMMED, 0.02 + 0.28 * rng.beta(1, 2, 4)
    if "framing" in left_out or not trimmed:
        return camera
    pixels = camera.project(vertices)
    low, high = np.nanmin(pixels, axis=0), np.nanmax(pixels, axis=0)
    room = margins * (high - low).max()
    size = np.array([camera.width, camera.height])
    start = np.clip(np.floor(low - room[:2]), 0, size // 2).astype(int)
    end = np.clip(np.ceil(high + room[2:]) + 1, size // 2 + 1, size).astype(int)
    width, height = (end - start).tolist()
    cx, cy = (np.array([camera.cx, camera.cy]) - start).tolist()
    return replace(camera, cx=cx, cy=cy, width=width, height=height)


def things_about(rng: Rng, figure: Figure, camera: Camera) -> Iterator[Drawn]:
    """What somebody holds, and now and then something before it."""
    body = figure.body
    for side in "LR":
        if rng.random() < 0.1:
            wrist = body.head_of(f"wrist.{side}")
            thing = props.held(
                rng, body.head_of(f"finger3-1.{side}"), wrist - body.head_of(f"lowerarm01.{side}")
            )
            yield thing
    if rng.random() < 0.16:
        eye = -camera.R.T @ camera.t
        towards = eye - body.vertices.mean(axis=0)
        yield props.near(rng, body.vertices, towards / np.linalg.norm(towards))


def _box(points: Floats, camera: Camera) -> Floats:
    """(4,) of the points, clipped to the picture; zeros where nothing is in it."""
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return np.zeros(4)
    edge = np.array([camera.width, camera.height]) - 0.5
    low, high = points.min(axis=0).clip(-0.5, edge), points.max(axis=0).clip(-0.5, edge)
    return np.concatenate([low, high - low]) if (high > low).all() else np.zeros(4)
