"""The camera moves no label, and backgrounds are what their random numbers say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import DataError
from trainer.synth import sensor, textures
from trainer.synth.backgrounds import PLACES, Backgrounds
from trainer.synth.sensor import Sensor

SIDE = 96


def dot(x: float, y: float) -> np.ndarray:
    """A bright dot on dark ground, painted by its formula; the sensor's light is its square."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    value = 215 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    return np.repeat(value[..., None], 3, axis=2).round().astype(np.uint8)


def centre(image: np.ndarray) -> np.ndarray:
    """x, y of the light in the green channel, around the brightest place."""
    green = image[..., 1].astype(float)
    green = (green - green.max() * 0.25).clip(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.array([(columns * green).sum(), (rows * green).sum()]) / green.sum()


@pytest.mark.parametrize(
    "how",
    [
        Sensor(),
        Sensor(blur_px=2.0),
        Sensor(motion_px=7.3, motion_turn=0.4),
        Sensor(motion_px=3.0, motion_turn=2.2),
        Sensor(exposure=0.6, balance=(1.2, 1.0, 0.8)),
        Sensor(aberration_px=1.2),
        Sensor(vignette=0.4),
        Sensor(scale=0.5),
        Sensor(scale=0.37),
        Sensor(shot=0.01, read=0.002),
        Sensor(gamma=1.3, contrast=0.9),
        Sensor(sharpened=1.2),
        Sensor(grey=True),
        Sensor(jpeg_quality=30),
    ],
    ids=lambda how: next((f.name for f in fields(Sensor) if getattr(how, f.name) != f.default), "none"),
)
@pytest.mark.parametrize("at", [(48.0, 47.0), (40.3, 52.7), (30.55, 60.1)])
def test_a_dot_stays_where_it_is(how: Sensor, at: tuple[float, float]) -> None:
    seen = sensor.apply(dot(*at), how, np.random.default_rng(1))
    stored = cv2.imdecode(np.frombuffer(sensor.encode(seen, how.meta()), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(centre(stored), at, atol=0.1)


@given(length=st.floats(1, 20), turn=st.floats(-7, 7))
def test_a_path_of_motion_is_even_about_its_middle(length: float, turn: float) -> None:
    kernel = sensor.motion_kernel(length, turn).astype(float)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)
    steps = np.arange(len(kernel)) - len(kernel) // 2
    along = steps[None] * np.cos(turn) + steps[:, None] * np.sin(turn)
    # An even path of length L varies by L^2 / 12; sharing each point between its pixels adds at most a quarter.
    assert 0 <= (kernel * along**2).sum() - 0.99 * length**2 / 12 < 0.26 + 0.01 * length**2 / 12


def test_a_camera_without_faults_changes_nothing() -> None:
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    image.flags.writeable = False
    np.testing.assert_array_equal(sensor.apply(image, Sensor(), np.random.default_rng(0)), image)


def test_noise_is_as_strong_as_asked_for() -> None:
    image = np.full((128, 128, 3), 180, np.uint8)
    light = (180 / 255) ** 2
    seen = sensor.apply(image, Sensor(shot=0.05, read=0.01), np.random.default_rng(2)) / 255.0
    expected = np.sqrt(light * 0.05**2 + 0.01**2)
    assert (seen**2).std() == pytest.approx(expected, rel=0.05)
    assert (seen**2).mean() == pytest.approx(light, rel=0.02)


def test_drawn_cameras_keep_to_their_ranges_and_follow_their_numbers() -> None:
    drawn = [sensor.draw(np.random.default_rng(seed)) for seed in range(300)]
    assert all(30 <= each.jpeg_quality <= 95 and 0.3 <= each.scale <= 1 for each in drawn)
    assert drawn[7] == sensor.draw(np.random.default_rng(7))
    for field in fields(Sensor):  # every effect is used
        assert len({getattr(each, field.name) for each in drawn}) > 1


def test_an_effect_left_out_leaves_the_others_as_they_were() -> None:
    whole = sensor.draw(np.random.default_rng(5))
    part = sensor.draw(np.random.default_rng(5), without=frozenset({"exposure", "grey"}))
    assert part.exposure == 1.0
    assert part.balance == whole.balance
    assert part.jpeg_quality == whole.jpeg_quality


def test_sharpening_adds_what_a_blur_takes_away() -> None:
    image = np.random.default_rng(3).integers(90, 160, (40, 40, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(image, (0, 0), 1.0).astype(float)
    seen = sensor.apply(image, Sensor(sharpened=0.5), np.random.default_rng(0)).astype(float)
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose((seen - image)[inner], 0.5 * (image - soft)[inner], atol=1.6)


@pytest.mark.parametrize("size", [(40, 64), (256, 256), (1024, 700)])
def test_grain_is_rough_to_the_last_pixel_and_keeps_the_mean(size: tuple[int, int]) -> None:
    flat, found = np.full((*size, 3), 120, np.uint8), []
    for seed in range(16):
        seen, again = (textures.grained(flat, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(seen, again)
        assert seen.shape == flat.shape
        assert np.ptp(seen, axis=2).max() == 0  # darker and lighter, of the same colour
        found.append((seen.mean(), np.abs(np.diff(seen[..., 0].astype(float), axis=1)).mean()))
    means, steps = np.array(found).T
    assert abs(means.mean() - 120) < 4
    assert steps.min() > 0.5
    assert len(set(means.tolist())) == 16


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (120, 33)])
def test_places_follow_their_numbers(kind: str, size: tuple[int, int]) -> None:
    for seed in range(12):
        first, again, other = (
            PLACES[kind](np.random.default_rng(each), *size) for each in (seed, seed, seed + 1000)
        )
        assert first.shape == (*size, 3)
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_backgrounds_are_various_and_follow_their_numbers() -> None:
    backgrounds = Backgrounds()
    drawn = [backgrounds.draw(np.random.default_rng([1, seed]), 40, 40) for seed in range(120)]
    assert {kind for _, kind in drawn} == set(PLACES)
    again = Backgrounds().draw(np.random.default_rng([1, 7]), 40, 40)
    np.testing.assert_array_equal(drawn[7][0], again[0])
    assert np.std([image.mean() for image, _ in drawn]) > 25


def test_parts_of_pictures_are_taken(tmp_path: Path) -> None:
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[..., 0] = 255  # blue, as OpenCV writes it
    (tmp_path / "below").mkdir()
    cv2.imwrite(str(tmp_path / "below" / "blue.png"), picture)
    backgrounds = Backgrounds(tmp_path)
    taken = [backgrounds.draw(np.random.default_rng(seed), 32, 24) for seed in range(40)]
    pictures = [image for image, kind in taken if kind == "picture"]
    assert 20 < len(pictures) < 40
    assert all(image.shape == (32, 24, 3) and image[..., 2].min() > image[..., 0].max() for image in pictures)


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        [Backgrounds(tmp_path).draw(np.random.default_rng(seed), 8, 8) for seed in range(20)]
