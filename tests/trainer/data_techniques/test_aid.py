"""Information dropping: the released mask, the law of its sampling, and what stays untouched."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from trainer.data import aid
from trainer.data.aid import Dropping

KINDS = ("ellipse", "hide_and_seek", "rectangle")
ALWAYS = ((0.0, 1.0),)
SIZE = (64, 48)


def drawn(count=64, seed=0, progress=1.0, size=SIZE, **how):
    return aid.draw(Dropping(**{"steps": ALWAYS} | how), count, size, progress, np.random.default_rng(seed))


def grey(count, size=SIZE):
    return torch.full((count, 3, *size), 90, dtype=torch.uint8).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", range(4))
def test_mask(golden, case):
    numbers = golden("aid_cutout")
    size = tuple(int(each) for each in numbers[f"case{case}_size_hw"])
    centre, radii = numbers[f"case{case}_centre_xy"], numbers[f"case{case}_radius_xy"]
    np.testing.assert_array_equal(aid.ellipse(centre, radii, size), numbers[f"case{case}_dropped"])
    batch = aid.Ellipses(np.stack([centre] * 2), np.stack([radii] * 2)).masks(size)
    np.testing.assert_array_equal(batch, np.stack([numbers[f"case{case}_dropped"]] * 2))


def test_sampling_law():
    many = drawn(20_000, radius_factor=0.35)
    height, width = SIZE
    relative = many.radii / (0.35 * width) - 1
    for numbers in (many.centres[:, 0] / width, many.centres[:, 1] / height, relative[:, 0], relative[:, 1]):
        assert 0 <= numbers.min() < 0.01
        assert 0.99 < numbers.max() <= 1
        np.testing.assert_allclose(
            np.quantile(numbers, [0.1, 0.25, 0.5, 0.9]), [0.1, 0.25, 0.5, 0.9], atol=0.015
        )
    everything = np.concatenate([many.centres, many.radii], axis=1)
    np.testing.assert_allclose(np.corrcoef(everything.T), np.eye(4), atol=0.03)


def test_dropped_share_of_an_ellipse_is_bounded():
    height, width = SIZE
    share = drawn(500).masks(SIZE).mean(axis=(1, 2))
    assert share.min() >= 0
    assert share.max() <= math.pi * 0.4**2 * width / height + 0.01
    assert 0.05 < share.mean() < 0.3


def test_rectangles_keep_to_their_sides_and_lie_inside():
    masks = drawn(300, kind="rectangle", side=(0.2, 0.4)).masks(SIZE)
    rows, columns = masks.any(axis=2).sum(axis=1), masks.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(masks.sum(axis=(1, 2)), rows * columns)
    for sides, full in ((rows, SIZE[0]), (columns, SIZE[1])):
        assert sides.min() >= 0.2 * full - 1
        assert sides.max() <= 0.4 * full + 1
        assert sides.max() - sides.min() > 0.1 * full


@pytest.mark.parametrize("cells", [1, 3, 8])
def test_hide_and_seek_hides_whole_cells_of_about_the_share(cells):
    many = drawn(400, kind="hide_and_seek", grid=(cells,), hidden=0.3)
    masks = many.masks(SIZE)
    assert masks.mean() == pytest.approx(0.3, abs=0.05)
    middles = [((np.arange(cells) + 0.5) * side / cells).astype(int) for side in SIZE]
    hidden = masks[:, middles[0]][:, :, middles[1]]
    np.testing.assert_array_equal(hidden, many.hidden)
    assert masks.mean(axis=(1, 2)).std() > 0


def test_hide_and_seek_draws_its_grid():
    many = drawn(400, kind="hide_and_seek", grid=(4, 8))
    np.testing.assert_allclose(np.bincount(many.grids, minlength=9)[[4, 8]], [200, 200], atol=40)
    assert many.masks(SIZE).shape == (400, *SIZE)


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_pixels_are_black_and_all_others_as_they_were(kind):
    images, parameters = grey(8), drawn(8, kind=kind)
    dropped = aid.drop(images, parameters)
    masks = torch.from_numpy(parameters.masks(SIZE))[:, None].expand_as(images)
    assert masks.any()
    assert (dropped[masks] == 0).all()
    assert (dropped[~masks] == 90).all()
    assert (images == 90).all()
    assert dropped.dtype == torch.uint8
    assert dropped.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_drops_the_same_and_slices_belong_to_their_pictures(kind):
    masks = drawn(12, seed=5, kind=kind).masks(SIZE)
    np.testing.assert_array_equal(drawn(12, seed=5, kind=kind).masks(SIZE), masks)
    np.testing.assert_array_equal(drawn(12, seed=5, kind=kind)[3:7].masks(SIZE), masks[3:7])
    assert (drawn(12, seed=6, kind=kind).masks(SIZE) != masks).any()


@pytest.mark.parametrize("kind", KINDS)
def test_off_first_and_on_later(kind):
    images = grey(200)
    for progress, share in ((0.0, 0.0), (0.49, 0.0), (0.5, 1.0), (0.8, 0.5), (1.0, 0.5)):
        parameters = drawn(
            200, progress=progress, kind=kind, steps=((0.5, 1.0), (0.7, 0.5)), hidden=0.9, grid=(4,)
        )
        touched = (aid.drop(images, parameters) != images).flatten(1).any(dim=1).float().mean().item()
        assert touched == pytest.approx(share, abs=0.12 if share == 0.5 else 0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_progress_does_not_change_what_comes_after_in_the_generator(kind):
    following = []
    for progress in (0.0, 1.0):
        rng = np.random.default_rng(3)
        aid.draw(Dropping(kind=kind), 5, SIZE, progress, rng)
        following.append(rng.random())
    assert following[0] == following[1]


def test_pictures_that_are_normalised_already_are_refused():
    with pytest.raises(TypeError, match="before normalisation"):
        aid.drop(grey(2).float(), drawn(2))


@pytest.mark.parametrize(
    "wrong", [{"steps": ((0.5, 1), (0.1, 1))}, {"side": (0.5, 0.2)}, {"grid": ()}, {"steps": ((0, 1.5),)}]
)
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValidationError):
        Dropping(**wrong)
