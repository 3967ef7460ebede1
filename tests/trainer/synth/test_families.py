"""What is left out is gone, and all that does not depend on it stays as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from model_zoo.skeletons import BODY19
from trainer.cli import app
from trainer.errors import ConfigError, DataError
from trainer.synth import asset, families, hand, plain, sensor, single
from trainer.synth import body as bodies
from trainer.synth.recipe import Recipe
from trainer.synth.render import RenderingUnavailable
from trainer.synth.sample import OUTSIDE, Sample
from trainer.synth.shaders import KINDS

SIZE, COUNT, MOST = 64, 10, 150
GEOMETRY = {"shapes", "poses", "tilts", "views", "framing"}
"""Families that move joints."""
OCCLUSION = {"hair", "garments", "things", "others"}
"""Families that change what hides joints."""
NAMES = [(kind, name) for kind, known in families.FAMILIES.items() for name in known]


@dataclass
class Studios:
    """One of each kind, whose recipe can be exchanged: renderers are dear."""

    known: dict[str, Any]
    whole: dict[str, list[Sample]]

    def made(self, kind: str, *without: str, start: int = 0, count: int = COUNT) -> list[Sample]:
        """Some pictures of a set."""
        studio = self.known[kind]
        studio.recipe = Recipe(kind, COUNT, seed=4, size=SIZE, without=without)
        if kind == "hand":
            studio.left_out = studio.recipe.left_out
        return [studio.picture(np.random.default_rng([4, index])) for index in range(start, start + count)]


@pytest.fixture(scope="module")
def studios() -> Iterator[Studios]:
    if not (bodies.asset_path().exists() and bodies.asset_path(coarse=True).exists()):
        pytest.importorskip("anny", reason="the extra `synth` is not installed")
    asset.prepare()
    try:
        known = {
            kind: module.Studio(Recipe(kind, COUNT, size=SIZE))
            for kind, module in {"body": single, "hand": hand}.items()
        }
    except RenderingUnavailable as reason:
        pytest.skip(str(reason))
    made = Studios(known, {})
    made.whole = {kind: made.made(kind) for kind in known}
    yield made
    for studio in known.values():
        studio.renderer.close()


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_pictures_differ_and_what_does_not_depend_on_the_family_stays(
    studios: Studios, kind: str, name: str
) -> None:
    whole, less = studios.whole[kind], studios.made(kind, name)
    assert any(_differ(a, b) for a, b in zip(whole, less, strict=True)) or any(
        _differ(*studios.made(kind, start=at, count=1), *studios.made(kind, name, start=at, count=1))
        for at in range(COUNT, MOST)  # what is rare comes up later
    )
    same = []
    for a, b in zip(whole, less, strict=True):
        first, second = a.people[0], b.people[0]
        # Another hand is taken where the first cannot be seen, so a few pictures of hands are others altogether.
        same.append(np.array_equal(first.keypoints_3d, second.keypoints_3d, equal_nan=True))
        if name not in GEOMETRY and same[-1]:
            np.testing.assert_array_equal(first.keypoints[:, :2], second.keypoints[:, :2])
            if name not in OCCLUSION:
                np.testing.assert_array_equal(first.keypoints, second.keypoints)
                np.testing.assert_array_equal(first.mask, second.mask)
        if name not in families.SENSOR and kind == "body":
            assert a.meta["sensor"] == b.meta["sensor"]
        if name != "backgrounds" and kind == "body":
            assert a.meta["background"] == b.meta["background"]
    if name not in GEOMETRY:
        assert np.mean(same) >= (1 if kind == "body" else 0.7)
    else:
        assert any(
            not np.array_equal(a.people[0].keypoints, b.people[0].keypoints)
            for a, b in zip(whole, less, strict=True)
        )


def _differ(a: Sample, b: Sample) -> bool:
    return not np.array_equal(a.image, b.image) or a.meta != b.meta


def test_nothing_of_a_sensor_family_is_left() -> None:
    for name, fields in families.SENSOR.items():
        for seed in range(40):
            drawn = sensor.draw(np.random.default_rng(seed), without=plain.sensor_fields(frozenset({name})))
            assert all(getattr(drawn, field) == getattr(sensor.Sensor(), field) for field in fields)
    assert plain.sensor_fields(frozenset({"hair"})) == frozenset()


def test_whoever_is_framed_is_whole_and_alone(studios: Studios) -> None:
    for sample in studios.made("body", "framing", "others", "things"):
        assert len(sample.people) == 1
        assert (sample.people[0].keypoints[:, 2] != OUTSIDE).all()
        assert 0.55 * SIZE < sample.people[0].box[2:].max() < SIZE


def test_standing_without_tilts_is_upright(studios: Studios) -> None:
    names = families.FAMILIES["body"].keys() & {"poses", "tilts", "views", "shapes", "framing"}
    heights = []
    for sample in studios.made("body", *names):
        points = sample.people[0].keypoints_3d
        assert points[:, 1].argmin() == BODY19.index("head_top")
        heights.append(np.ptp(points[:, 1]))
    assert np.ptp(heights) < 0.02
    faced = [np.sign(s.people[0].keypoints[5, 0] - s.people[0].keypoints[6, 0]) for s in studios.made("body")]
    again = [
        np.sign(s.people[0].keypoints[5, 0] - s.people[0].keypoints[6, 0])
        for s in studios.made("body", "poses")
    ]
    assert set(faced) == set(again) == {-1.0, 1.0}  # they look to either side


def test_without_hair_and_garments_everybody_wears_the_same_cuts(studios: Studios) -> None:
    studio = studios.known["body"]
    studio.recipe = Recipe("body", 1, without=("hair", "garments"))
    actors = [studio.actor(np.random.default_rng(seed), 1) for seed in range(30)]
    assert {tuple(layer.faces for layer in actor.layers) for actor in actors} == {
        ("all", "bottom", "top", "foot")
    }
    assert not any(actor.hanging for actor in actors)
    for at, field in ((1, "low"), (2, "sleeve"), (3, "high")):
        assert len({actor.layers[at].material.values[field] for actor in actors}) == 1
    assert len({tuple(actor.layers[2].material.values["colour"]) for actor in actors}) > 10


def test_without_colours_cloth_is_grey_and_skin_is_not(studios: Studios) -> None:
    studio = studios.known["body"]
    studio.recipe = Recipe("body", 1, without=("colours", "patterns"))
    for seed in range(20):
        figure = studio.figure(np.random.default_rng(seed), 1)
        for layer in plain.painted(figure.drawn, studio.recipe.left_out).layers:
            values = layer.material.values
            if values["kind"] == KINDS["cloth"]:
                assert len(set(values["colour"])) == 1
                assert values["pattern"] == values["mottle"] == 0
            elif values["kind"] == KINDS["skin"]:
                assert len(set(values["colour"])) == 3


def test_one_wall_is_one_colour(studios: Studios) -> None:
    bare = [each for each in families.SENSOR if each != "jpeg"]
    for sample in studios.made("body", "backgrounds", "shadows", "others", "things", *bare):
        person = cv2.dilate(sample.people[0].mask.astype(np.uint8), np.ones((5, 5))) > 0
        assert np.unique(sample.image[~person]).size == 1


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"kind body has no family 'shadow' to leave out; did you mean 'shadows'\?"
    ):
        Recipe("body", 1, without=("shadow",))
    with pytest.raises(ConfigError, match=r"kind hand has no family 'hair'"):
        Recipe("hand", 1, without=("hair",))
    with pytest.raises(ConfigError, match=r"kind video has no family 'jpeg' to leave out; known: none"):
        Recipe("video", 1, without=("jpeg",))


def test_what_is_left_out_belongs_to_the_recipe(tmp_path: Any) -> None:
    path = tmp_path / "body.recipe.json"
    Recipe("body", 5, without=("light", "hair", "light")).save(path)
    Recipe("body", 5, without=("hair", "light")).save(path)  # the same one
    with pytest.raises(DataError, match="made with another without"):
        Recipe("body", 5, without=("hair",)).save(path)
    with pytest.raises(DataError, match="made with another without"):
        Recipe("body", 5).save(path)


def test_the_document_tells_what_the_help_does() -> None:
    told = (Path(__file__).parents[3] / "docs" / "synth.md").read_text("utf-8")
    for line in families.described().split(". "):
        name, text = line.split(": ", 1)
        assert f"| `{name}` | {text} |" in told


def test_the_help_tells_every_family() -> None:
    done = CliRunner().invoke(app, ["synth", "--help"], env=os.environ | {"COLUMNS": "200"})
    told = " ".join(done.output.split())
    for _, name in NAMES:
        assert f"{name}: " in told
