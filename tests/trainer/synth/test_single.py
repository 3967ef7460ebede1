"""Made people: what is said of a picture is true of its pixels, nobody is undressed, a number always gives the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from model_zoo.skeletons import BODY19
from trainer.synth import asset, dressing, keypoints, kinds, looks, pose, props, single
from trainer.synth import body as bodies
from trainer.synth.body import BodyModel, Shape
from trainer.synth.recipe import Recipe
from trainer.synth.render import Drawn, Layer, Lights, Material, Renderer, RenderingUnavailable
from trainer.synth.sample import HIDDEN, OUTSIDE, SEEN, Camera

SIZE = 192
FLAT = Lights(key=(0, 0, 0), fill=(0, 0, 0), sky=(1, 1, 1), ground=(1, 1, 1), shadows=False)
"""Light from everywhere, so that a colour is a colour."""


@pytest.fixture(scope="module")
def model() -> BodyModel:
    if not bodies.asset_path(coarse=True).exists():
        pytest.importorskip("anny", reason="the extra `synth` is not installed")
        asset.prepare()
    return bodies.load(coarse=True)


@pytest.fixture(scope="module")
def studio(model: BodyModel) -> Iterator[single.Studio]:
    try:
        made = single.Studio(Recipe("body", 8, size=SIZE))
    except RenderingUnavailable as reason:
        pytest.skip(str(reason))
    yield made
    made.renderer.close()


def camera_before(points: np.ndarray, away: float = 3.5) -> Camera:
    """One that looks at the middle of somebody from the front."""
    turned, moved = single.look_at(points.mean(axis=0) + np.array([0.3, -away, 0.4]), points.mean(axis=0))
    return Camera.of_field_of_view(40, SIZE, SIZE, R=turned, t=moved)


def ball(at: np.ndarray, colour: tuple[float, float, float], radius: float = 0.02) -> Drawn:
    """A ball of one colour and no shine."""
    drawn = props.thing(np.random.default_rng(0), "ball", [radius] * 3, at)
    values = drawn.layers[0].material.values | {
        "colour": colour, "pattern": 0.0, "mottle": 0.0, "wrinkle": 0.0, "shine": 0.0,
    }  # fmt: skip
    return replace(drawn, layers=[Layer("all", Material(values))])


def render(renderer: Renderer, items: list[Drawn], camera: Camera) -> np.ndarray:
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    return renderer.render(items, camera, FLAT, black).rgb.astype(float)


@pytest.mark.parametrize("seed", range(4))
def test_a_ball_at_a_keypoint_is_found_where_the_keypoint_is_projected(
    studio: single.Studio, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    figure = studio.figure(rng, 1)
    points = keypoints.of_body(figure.body)
    camera = camera_before(points)
    expected = camera.project(points)
    found = []
    for point in points:
        red = render(studio.renderer, [ball(point, (1, 0, 0))], camera)[..., 0]
        rows, columns = np.mgrid[:SIZE, :SIZE]
        found.append([(columns * red).sum() / red.sum(), (rows * red).sum() / red.sum()])
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_keypoints_lie_within_the_silhouette_of_the_body(studio: single.Studio) -> None:
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(12):
        figure = studio.figure(rng, 1)
        points = keypoints.of_body(figure.body)
        camera = camera_before(points)
        rendered = studio.renderer.render([figure.drawn], camera, FLAT, np.zeros((SIZE, SIZE, 3), np.uint8))
        mask = cv2.dilate((rendered.owner == 1).astype(np.uint8), np.ones((5, 5)))
        pixels = camera.project(points).round().astype(int)
        there = ((pixels >= 0) & (pixels < SIZE)).all(axis=1)
        inside += (mask[pixels[there, 1], pixels[there, 0]] > 0).tolist()
    assert np.mean(inside) > 0.99


def test_left_is_the_persons_own_left(model: BodyModel) -> None:
    standing = pose.anatomical({})
    points = keypoints.of_body(model.rest(Shape()).posed(standing.rotations, standing.root))
    seen = camera_before(points).project(points)
    for part in ("shoulder", "hip", "knee", "ear"):  # from the front, the left is to the right
        assert seen[BODY19.index(f"left_{part}"), 0] > seen[BODY19.index(f"right_{part}"), 0]
    down = [
        seen[BODY19.index(name), 1]
        for name in ("head_top", "nose", "neck", "left_hip", "left_knee", "left_ankle")
    ]
    assert down == sorted(down)


def visible(studio: single.Studio, things: list[Drawn], figure: single.Figure, camera: Camera) -> np.ndarray:
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    rendered = studio.renderer.render([figure.drawn, *things], camera, FLAT, black)
    points = keypoints.of_body(figure.body)
    return keypoints.visibility(points, camera, rendered, 1, figure.tall_m)


def standing(studio: single.Studio, **angles: float) -> single.Figure:
    taken = pose.anatomical(angles)
    rest = studio.model.rest(Shape())
    body = rest.posed(taken.rotations, taken.root)
    layers = looks.wardrobe(np.random.default_rng(1), female=0.2)
    drawn = Drawn(dressing.surface(studio.model), body.vertices, body.normals, layers, 1)
    return single.Figure(body, drawn, float(np.ptp(rest.vertices[:, 2])))


def test_what_stands_before_somebody_hides_only_what_is_behind_it(studio: single.Studio) -> None:
    figure = standing(studio, shoulder_abduct=30)
    points = keypoints.of_body(figure.body)
    camera = camera_before(points)
    index = BODY19.index("left_knee")
    free = visible(studio, [], figure, camera)
    assert free[index] == SEEN
    assert (free != OUTSIDE).all()
    before = points[index] + np.array([0.0, -0.4, 0.0])
    hidden = visible(
        studio, [props.thing(np.random.default_rng(0), "box", [0.12] * 3, before)], figure, camera
    )
    assert hidden[index] == HIDDEN
    assert hidden[BODY19.index("nose")] == free[BODY19.index("nose")] == SEEN
    behind = points[index] + np.array([0.0, 0.4, 0.0])
    seen = visible(studio, [props.thing(np.random.default_rng(0), "box", [0.12] * 3, behind)], figure, camera)
    np.testing.assert_array_equal(seen, free)


def test_the_far_side_of_somebody_is_hidden(studio: single.Studio) -> None:
    figure = standing(studio)
    points = keypoints.of_body(figure.body)
    turned, moved = single.look_at(points.mean(axis=0) + np.array([0.3, 3.5, 0.3]), points.mean(axis=0))
    found = visible(studio, [], figure, Camera.of_field_of_view(40, SIZE, SIZE, R=turned, t=moved))
    for name in ("nose", "left_eye", "right_eye"):
        assert found[BODY19.index(name)] == HIDDEN, name
    for name in ("left_ankle", "right_knee", "left_shoulder"):
        assert found[BODY19.index(name)] == SEEN, name


def test_a_limb_of_ones_own_hides_what_is_behind_it(studio: single.Studio) -> None:
    """From the left: the hand hangs before the hip, nearer than the hip is deep."""
    index = BODY19.index("left_hip")
    found = []
    for raised in (0, 60):
        figure = standing(studio, shoulder_abduct=4, shoulder_flex=raised)
        points = keypoints.of_body(figure.body)
        turned, moved = single.look_at(points[index] + np.array([3.5, 0.1, 0.0]), points[index])
        camera = Camera.of_field_of_view(30, SIZE, SIZE, R=turned, t=moved)
        found.append(visible(studio, [], figure, camera)[index])
    assert found == [HIDDEN, SEEN]


def test_what_is_not_in_the_picture_is_outside(studio: single.Studio) -> None:
    figure = standing(studio)
    points = keypoints.of_body(figure.body)
    head = points[BODY19.index("nose")]
    turned, moved = single.look_at(head + np.array([0, -1.0, 0]), head)
    found = visible(studio, [], figure, Camera.of_field_of_view(40, SIZE, SIZE, R=turned, t=moved))
    assert found[BODY19.index("left_ankle")] == OUTSIDE
    assert found[BODY19.index("nose")] == SEEN


@pytest.mark.parametrize("seed", range(12))
def test_everybody_is_dressed_from_the_ribs_to_the_thighs(studio: single.Studio, seed: int) -> None:
    """Skin is painted pure red for once, so that it cannot be taken for cloth."""
    figure = studio.figure(np.random.default_rng(seed), 1)
    blue = {"colour": (0, 0, 1), "pattern": 0.0, "shine": 0.0}
    red = {"colour": (1, 0, 0), "under_top": (0, 0, 1), "under_bottom": (0, 0, 1), "shine": 0.0}
    layers = [
        replace(each, material=Material(each.material.values | (red if each.faces == "all" else blue)))
        for each in figure.drawn.layers
    ]
    camera = camera_before(keypoints.of_body(figure.body))
    seen = render(studio.renderer, [replace(figure.drawn, layers=layers)], camera)
    naked = (seen[..., 0] > 100) & (seen[..., 2] < 80)
    rendered = studio.renderer.render([figure.drawn], camera, FLAT, np.zeros((SIZE, SIZE, 3), np.uint8))
    middle = ("spine03", "spine04", "spine05", "pelvis", "upperleg01")
    trunk = [index for index, name in enumerate(studio.model.bone_names) if name.startswith(middle)]
    torso = (np.isin(rendered.part, trunk) & (rendered.owner == 1)).astype(np.uint8)
    assert torso.sum() > 50
    inside = cv2.erode(torso, np.ones((3, 3))) > 0  # an arm before it is mixed in at its edge
    assert naked[inside].mean() < 0.02


def test_boxes_hold_masks_and_depth_agrees_with_the_projection(studio: single.Studio) -> None:
    for index in range(12):
        sample = studio.picture(np.random.default_rng([1, index]))
        assert sample.image.shape == (sample.camera.height, sample.camera.width, 3)
        assert max(sample.image.shape) <= SIZE
        for person in sample.people:
            inside = person.keypoints[:, 2] != OUTSIDE
            again = sample.camera.to_pixels(person.keypoints_3d)
            np.testing.assert_allclose(person.keypoints[inside, :2], again[inside], atol=1e-6)
            if person.mask.sum() < 30:
                continue
            rows, columns = np.nonzero(person.mask)
            low, high = person.box[:2], person.box[:2] + person.box[2:]
            assert (low <= [columns.min(), rows.min()]).all()
            assert (high >= [columns.max(), rows.max()]).all()


def test_cut_pictures_show_the_same_and_hold_the_person(studio: single.Studio) -> None:
    """What is cut off is all that differs, and nobody who was in the picture is cut further."""
    figure = standing(studio, shoulder_abduct=60)
    camera = camera_before(keypoints.of_body(figure.body), away=5.0)
    whole = render(studio.renderer, [figure.drawn], camera)
    assert (
        single._trimmed(np.random.default_rng(0), camera, figure.body.vertices, frozenset({"framing"}))
    ) == camera
    cut = []
    for seed in range(30):
        part = single._trimmed(np.random.default_rng(seed), camera, figure.body.vertices, frozenset())
        if part is camera:
            continue
        cut.append((part.width, part.height))
        left, top = round(camera.cx - part.cx), round(camera.cy - part.cy)
        black = np.zeros((part.height, part.width, 3), np.uint8)
        seen = studio.renderer.render([figure.drawn], part, FLAT, black).rgb.astype(float)
        same = whole[top : top + part.height, left : left + part.width]
        off = [np.abs(seen - np.roll(same, by, axis=1)).mean() for by in (-1, 0, 1)]
        assert off[1] < 0.6 * min(off[0], off[2])  # edges are drawn on another grid
        pixels = part.project(figure.body.vertices)
        assert (pixels >= 0).all()
        assert (pixels <= (part.width - 1, part.height - 1)).all()
    assert 10 < len(cut) < 26
    assert len(set(cut)) == len(cut)
    assert all(max(each) < SIZE for each in cut)


def test_a_number_gives_the_same_picture_in_any_process(studio: single.Studio) -> None:
    code = (
        "import sys, hashlib\n"
        "from trainer.synth import single\n"
        "from trainer.synth.recipe import Recipe\n"
        f"make = single.maker(Recipe('body', 8, size={SIZE}))\n"
        "for index in (5, 2):\n"
        "    (sample,) = make(index)\n"
        "    print(hashlib.sha256(sample.image.tobytes()).hexdigest())\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [
        hashlib.sha256(studio.picture(np.random.default_rng([1, index])).image.tobytes()).hexdigest()
        for index in (5, 2)
    ]
    assert done.stdout.split() == here


def test_renderers_do_not_get_in_each_others_way(studio: single.Studio) -> None:
    first = studio.picture(np.random.default_rng([1, 5])).image
    other = Renderer(64, 64)
    again = studio.picture(np.random.default_rng([1, 5])).image
    other.close()
    np.testing.assert_array_equal(first, again)


def test_the_command_makes_a_set_that_the_trainer_reads(studio: single.Studio, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from trainer.cli import app
    from trainer.data import people

    done = CliRunner().invoke(app, ["synth", str(tmp_path), "--n", "6", "--size", "128", "--jobs", "2"])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "body.json").read_text())
    assert len(document["images"]) == 6
    assert document["categories"][0]["keypoints"] == list(BODY19.keypoints)
    found = people.read(tmp_path / "body.json", BODY19)
    assert len(found) >= 6
    for person in found:
        assert max(person.picture.load().shape) <= 128


def test_an_unknown_kind_names_the_known_ones() -> None:
    from trainer.errors import ConfigError

    with pytest.raises(ConfigError, match="unknown kind 'cats'; known: body"):
        kinds.of("cats")
