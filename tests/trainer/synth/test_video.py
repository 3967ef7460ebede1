"""Clips: frames know their time, truth is that of the middle of the exposure, and all that moves does so smoothly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.synth import markers
from trainer.synth import acts, asset, kinds, parts, video, write
from trainer.synth import body as bodies
from trainer.synth.recipe import Recipe
from trainer.synth.render import RenderingUnavailable
from trainer.synth.sample import Camera, Sample
from trainer.synth.sensor import Sensor
from trainer.synth.single import Studio, look_at

SIZE = 128


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    if not bodies.asset_path(coarse=True).exists():
        pytest.importorskip("anny", reason="the extra `synth` is not installed")
        asset.prepare()
    try:
        made = Studio(Recipe("video", 8, size=SIZE), places=("gradient",))
    except RenderingUnavailable as reason:
        pytest.skip(str(reason))
    yield made
    made.renderer.close()


@pytest.fixture(scope="module")
def clips(studio: Studio) -> list[video.Clip]:
    return [video.clip(studio, np.random.default_rng([5, index])) for index in range(20)]


def some_frames(clip: video.Clip, count: int = 3) -> list[Sample]:
    numbers = np.linspace(0, clip.count - 1, count).astype(int)
    return [clip.frame(int(number), np.random.default_rng(0)) for number in numbers]


def test_clips_have_all_rates_and_cameras_and_one_to_three_people(clips: list[video.Clip]) -> None:
    assert len({clip.rate_hz for clip in clips}) >= 5
    assert {"still", "held", "follows"} <= {clip.meta["camera_moves"] for clip in clips}
    assert {len(clip.acts) for clip in clips} == {1, 2, 3}
    for clip in clips:
        assert clip.count == video.MOST_FRAMES or 2 - 0.06 <= clip.count / clip.rate_hz <= 4 + 0.06
        assert 0 < clip.exposure_s <= min(1 / clip.rate_hz, 1 / 30)


def test_a_ball_at_a_joint_is_found_where_the_label_says_in_every_frame(
    studio: Studio, clips: list[video.Clip]
) -> None:
    found = [
        markers.farthest(studio.renderer, sample.camera, person)
        for clip in clips[:5]
        for sample in some_frames(clip, 2)
        for person in sample.people
    ]
    assert 0 < max(found) < 0.5


def test_people_keep_their_numbers_and_frames_their_time(studio: Studio) -> None:
    make = video.maker(Recipe("video", 2, seed=647, size=64))
    frames = list(make(1))
    rate = frames[0].meta["rate_hz"]
    np.testing.assert_allclose([frame.timestamp_s for frame in frames], np.arange(len(frames)) / rate)
    assert len({tuple(person.person_id for person in frame.people) for frame in frames}) == 1
    assert len({frame.image.shape for frame in frames}) == 1
    again = next(video.maker(Recipe("video", 2, seed=647, size=64))(1))
    np.testing.assert_array_equal(again.image, frames[0].image)
    next(make(0))  # what was made before does not matter
    np.testing.assert_array_equal(next(make(1)).image, frames[0].image)


def test_two_processes_that_go_on_make_the_bytes_of_one(studio: Studio, tmp_path: Path) -> None:
    recipe, kind = Recipe("video", 2, seed=647, size=64), kinds.of("video")  # two short clips
    alone = write.write(tmp_path / "alone", recipe, kind, jobs=1)
    begun = tmp_path / "begun"
    (begun / "video.parts").mkdir(parents=True)
    recipe.save(begun / "video.recipe.json")
    [first, second] = parts.places(begun / "video.parts", recipe.n, kind.chunk)
    first.tar.write_bytes(alone.with_suffix(".tar").read_bytes()[:5000])  # killed in the first clip
    second.lines.write_bytes(b'{"index":1,"end')
    write.write(begun, recipe, kind, jobs=2)
    for name in ("video.json", "video.tar", "video.jpg"):
        assert (begun / name).read_bytes() == (alone.parent / name).read_bytes(), name
    images = json.loads(alone.read_text())["images"]
    assert [image["video_id"] for image in images] == [1] * 21 + [2] * 23
    assert [image["frame_index"] for image in images] == [*range(21), *range(23)]


def test_nobody_moves_faster_than_people_do(clips: list[video.Clip]) -> None:
    """A hand that is thrown reaches 20 m/s; and nothing jumps, whatever the step."""
    for clip in clips[::2]:
        act = clip.acts[0]
        for time_s in np.linspace(0, clip.count / clip.rate_hz, 8):
            for step in (1e-2, 1e-4):
                before, after = (act.at(float(each)).body.heads for each in (time_s, time_s + step))
                assert np.linalg.norm(after - before, axis=-1).max() < 20 * step


def test_somebody_who_walks_gets_on_and_stays_on_the_floor(clips: list[video.Clip]) -> None:
    walking = [act for clip in clips for act in clip.acts if act.velocity.any()]
    assert walking
    for act in walking:
        first, last = (act.at(each).body for each in (0.0, 1.0))
        way = (last.heads[0] - first.heads[0])[:2]
        assert np.linalg.norm(way - act.velocity) < 0.15
        facing = first.turns[0] @ np.array([0.0, -1.0, 0.0])
        assert facing[:2] @ act.velocity > 0.9 * np.linalg.norm(act.velocity)
        for time_s in np.linspace(0, 2, 9):
            assert abs(act.at(float(time_s)).body.vertices[:, 2].min()) < 0.05


def test_blur_is_even_about_the_time_of_the_truth(studio: Studio, clips: list[video.Clip]) -> None:
    """The camera turns fast: what is seen is wide, but its middle is where it is half way."""
    chosen = next(clip for clip in clips if not any(act.velocity.any() for act in clip.acts))
    still = chosen.camera(0.0)

    def turning(time_s: float) -> Camera:
        turn = video._turned(0.0, 2.0 * (time_s - 0.5), 0.0) @ np.asarray(still.R)
        return replace(still, R=turn, t=-turn @ (-np.asarray(still.R).T @ still.t))

    act = chosen.acts[0]
    stands = replace(act, angles=lambda _: act.angles(0.0), start=np.zeros(2))
    dark = np.zeros_like(chosen.background)
    clip = replace(
        chosen, acts=[stands], camera=turning, background=dark, things=(), lights=markers.FLAT, floor=None,
        taken_by=Sensor(), rate_hz=2,
    )  # fmt: skip
    sharp, blurred = (
        replace(clip, exposure_s=each).frame(1, np.random.default_rng(0)).image.astype(float) ** 2
        for each in (1e-6, 0.03)
    )
    assert blurred.max() < sharp.max()
    columns = np.arange(sharp.shape[1])
    middles = [image.sum(axis=(0, 2)) @ columns / image.sum() for image in (sharp, blurred)]
    spreads = [
        np.sqrt(image.sum(axis=(0, 2)) @ (columns - middle) ** 2 / image.sum())
        for image, middle in zip((sharp, blurred), middles, strict=True)
    ]
    assert spreads[1] > spreads[0] + 0.1
    assert middles[1] == pytest.approx(middles[0], abs=0.3)


def test_the_background_turns_with_the_camera() -> None:
    eye = np.array([0.0, -3.0, 1.0])
    first = Camera.of_field_of_view(50, 96, 80)
    turned, moved = look_at(eye, np.array([0.0, 0.0, 1.0]))
    first = replace(first, R=turned, t=moved)
    wide = np.zeros((160, 192, 3), np.uint8)
    rows, columns = np.mgrid[:160, :192]
    far = eye + 1e6 * np.array([0.05, 1.0, 0.03])
    x, y = first.project(far) + np.array([48, 40])  # where the middle of the wide one is
    wide[..., 0] = (255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)).round()
    aside, moved = look_at(eye, np.array([0.4, 0.0, 1.2]), 0.1)
    now = replace(first, R=aside, t=moved, fx=first.fx * 1.2, fy=first.fy * 1.2)
    seen = video._behind(wide, first, now)[..., 0].astype(float)
    rows, columns = np.mgrid[:80, :96]
    found = [(columns * seen).sum() / seen.sum(), (rows * seen).sum() / seen.sum()]
    np.testing.assert_allclose(found, now.project(far), atol=0.5)


def test_a_pause_is_one() -> None:
    """Between two movements nothing but the sway is left."""
    paced = acts._Paused(lambda phase: np.array([phase]), 1.0, 0.5, 0.0)
    np.testing.assert_allclose([paced(each)[0] for each in (0.25, 0.5, 1.0, 1.2, 1.49, 1.75)],
                               [0.25, 0.5, 0.0, 0.0, 0.0, 0.25])  # fmt: skip
