"""Other backgrounds: people stay, walls go, a crop that is not cut out stays as it is, all devices see the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from model_zoo.skeletons import HAND21
from tests.trainer import people_made
from trainer import config as configuration
from trainer.data import backdrop, blur
from trainer.data.backdrop import Backdrops, Chosen, Cutouts
from trainer.data.loader import Loader
from trainer.data.store import CropStore

SIDE = 128
CPU = torch.device("cpu")
WALL, SKIN = (205, 208, 200), (190, 130, 100)


def hand(rng: np.random.Generator, side: int = SIDE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of a hand of thick lines before a wall whose light falls off, its points, and where it is."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    light = 1.02 - 0.18 * (x * x + y * y)
    image = np.array(WALL, float) * light[..., None]
    points = np.full((21, 2), side / 2.0)
    points[0] = (0.5 * side, 0.86 * side)
    for finger, turn in enumerate(np.radians((-60, -25, 0, 22, 45))):
        step = 0.16 * side * np.array([np.sin(turn), -np.cos(turn)])
        points[1 + 4 * finger : 5 + 4 * finger] = points[0] + step * np.arange(1, 5)[:, None]
    mask = np.zeros((side, side), np.uint8)
    for a, b in HAND21.bones:
        ends = (tuple(int(v) for v in points[each]) for each in (a, b))
        cv2.line(mask, *ends, 1, side // 14)
    image[mask > 0] = SKIN
    noisy = image + rng.normal(0, 2, image.shape)
    return noisy.clip(1, 255).astype(np.uint8), points, mask > 0


def test_a_hand_is_cut_out_of_a_wall() -> None:
    image, points, true = hand(np.random.default_rng(1))
    found = backdrop.matte(image, points, HAND21) > 127
    assert (found & true).sum() / (found | true).sum() > 0.9


@pytest.mark.parametrize("turn", [-40, 25])
def test_black_about_a_picture_counts_as_background(turn: float) -> None:
    image, points, true = hand(np.random.default_rng(2))
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), turn, 0.6)
    image = cv2.warpAffine(image, matrix, (SIDE, SIDE))
    true = cv2.warpAffine(true.astype(np.uint8), matrix, (SIDE, SIDE)) > 0
    found = backdrop.matte(image, points @ matrix[:, :2].T + matrix[:, 2], HAND21) > 127
    assert (found & true).sum() / (found | true).sum() > 0.8
    assert not found[image.max(axis=2) == 0].any()


def test_without_a_wall_or_points_nothing_is_cut_away() -> None:
    rng = np.random.default_rng(3)
    image, points, _ = hand(rng)
    assert (backdrop.matte(image, np.full((21, 2), np.nan), HAND21) == backdrop.WHOLE).all()
    wild = rng.integers(1, 256, image.shape, np.uint8)
    assert (backdrop.matte(wild, points, HAND21) == backdrop.WHOLE).all()


def cutouts(folder: Path, plain: list[bool], device: torch.device = CPU) -> tuple[Cutouts, CropStore]:
    made = [hand(np.random.default_rng(n)) for n in range(len(plain))]
    store = CropStore(
        images=np.stack([image for image, _, _ in made]),
        boxes=np.tile([8.0, 8, 110, 110], (len(plain), 1)),
        points=np.stack([points for _, points, _ in made]),
        weights=np.ones((len(plain), 21)),
        name="made",
    )
    how = Backdrops(probability=1.0, count=6)
    return Cutouts(how, store, np.array(plain), HAND21, folder, root=folder, seed=1, device=device), store


def identity(count: int) -> np.ndarray:
    return np.tile(np.eye(3)[:2], (count, 1, 1))


def test_the_wall_changes_and_the_hand_does_not(tmp_path: Path) -> None:
    made, store = cutouts(tmp_path, [True, False, True])
    images = torch.from_numpy(store.images.copy()).permute(0, 3, 1, 2)
    chosen = backdrop.choose(Backdrops(probability=1.0, count=6), 3, (SIDE, SIDE), np.random.default_rng(5))
    assert chosen.replaced.all()
    found = made.put(images, np.arange(3), identity(3), chosen).permute(0, 2, 3, 1).numpy().astype(int)
    before = store.images.astype(int)
    np.testing.assert_array_equal(found[1], before[1])  # no plain wall is said to be there
    for row in (0, 2):
        _, _, true = hand(np.random.default_rng(row))
        core = cv2.erode(true.astype(np.uint8), np.ones((5, 5))) > 0
        around = cv2.dilate(true.astype(np.uint8), np.ones((9, 9))) == 0
        assert np.abs(found[row] - before[row])[core].mean() < 3
        assert np.abs(found[row] - before[row])[around].mean() > 20
    assert not (found[0] == found[2]).all()


def test_only_chosen_crops_change_and_the_input_of_others_is_kept(tmp_path: Path) -> None:
    made, store = cutouts(tmp_path, [True, True])
    images = torch.from_numpy(store.images.copy()).permute(0, 3, 1, 2)
    chosen = backdrop.choose(Backdrops(probability=1.0, count=6), 2, (SIDE, SIDE), np.random.default_rng(5))
    chosen = replace(chosen, replaced=np.array([False, True]))
    found = made.put(images, np.arange(2), identity(2), chosen)
    assert torch.equal(found[0], torch.from_numpy(store.images[0]).permute(2, 0, 1))
    assert not torch.equal(found[1], torch.from_numpy(store.images[1]).permute(2, 0, 1))


def test_the_way_of_a_gpu_gives_the_same_picture(tmp_path: Path) -> None:
    made, store = cutouts(tmp_path, [True, True])
    rng = np.random.default_rng(7)
    turn = np.array([[0.9, -0.3, 20.0], [0.3, 0.9, -10.0]])
    matrices = np.stack([turn, np.eye(3)[:2]])
    chosen = backdrop.choose(Backdrops(probability=1.0, count=6), 2, (SIDE, SIDE), rng)
    warped = np.stack([cv2.warpAffine(store.images[row], matrices[row], (SIDE, SIDE)) for row in range(2)])
    images = torch.from_numpy(warped).permute(0, 3, 1, 2)
    here = made.put(images.clone(), np.arange(2), matrices, chosen)
    masks = torch.from_numpy(np.array(made._masks))
    bank = torch.from_numpy(made._bank[chosen.numbers])
    there = backdrop.put_on_device(images, masks, bank, np.arange(2), matrices, chosen.matrices)
    apart = (here.int() - there.int()).abs().float()
    assert apart.mean() < 1.0  # OpenCV's warp counts in 32nds of a pixel
    assert (apart > 24).float().mean() < 0.01


def test_backgrounds_fill_their_crops() -> None:
    how = Backdrops(count=9)
    chosen = backdrop.choose(how, 400, (96, 64), np.random.default_rng(1))
    assert 0.7 < chosen.replaced.mean() < 0.9
    assert set(chosen.numbers.tolist()) == set(range(9))
    corners = np.array([[-0.5, -0.5, 1], [63.5, -0.5, 1], [63.5, 95.5, 1], [-0.5, 95.5, 1]])
    for matrix in chosen.matrices:
        back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
        at = corners @ back.T
        assert (at[:, :2] >= -0.5 - 1e-6).all()
        assert (at[:, :2] <= backdrop.BANK_PX - 0.5 + 1e-6).all()
    assert {float(np.sign(matrix[0, 0])) for matrix in chosen.matrices} == {-1.0, 1.0}


def document(folder: Path, **augmentation: Any) -> dict[str, Any]:
    made = people_made.make(folder, count=24)
    found = people_made.run_document(augmentation=augmentation)
    found["data"]["train"] = [{"annotations": str(made.annotations), "plain": True}]
    return json.loads(json.dumps(found, default=str))


def test_processes_together_see_what_one_sees(tmp_path: Path) -> None:
    how = {"backdrops": {"count": 4, "probability": 1.0}, "blur": {"probability": 0.5}}
    config = configuration.parse(document(tmp_path, **how))
    whole = next(Loader(config, tmp_path, tmp_path / "cache", device=CPU).epoch(0)).images
    parts = [
        next(Loader(config, tmp_path, tmp_path / "cache", rank=rank, world=2, device=CPU).epoch(0)).images
        for rank in (0, 1)
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_other_draws_are_not_changed(tmp_path: Path) -> None:
    plain = configuration.parse(document(tmp_path))
    more = configuration.parse(document(tmp_path, blur={"probability": 0.0}, backdrops={"count": 2}))
    one, other = (next(Loader(each, tmp_path, tmp_path / "c", device=CPU).epoch(0)) for each in (plain, more))
    assert torch.equal(one.points, other.points)
    assert torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("sigma", [0.6, 2.0])
def test_blur_is_as_wide_as_asked_for_and_stays_where_it_is(sigma: float) -> None:
    images = torch.zeros(2, 3, 41, 41, dtype=torch.uint8)
    images[:, :, 15:26, 15:26] = 240
    found = blur.apply(images, np.array([sigma, 0.0]))
    assert torch.equal(found[1], images[1])
    expected = cv2.GaussianBlur(images[0, 0].numpy(), (0, 0), sigma)
    assert np.abs(found[0, 0].numpy().astype(int) - expected).max() <= 3
    assert torch.equal(found[0], found[0].flip(-1))


def test_blur_keeps_an_even_picture_even_up_to_its_edge() -> None:
    images = torch.full((1, 3, 20, 30), 77, dtype=torch.uint8)
    assert (blur.apply(images, np.array([2.0])) == 77).all()


def test_as_many_are_blurred_as_asked_for() -> None:
    sigmas = blur.draw(blur.Blur(probability=0.3, most_px=1.5), 4000, np.random.default_rng(1))
    assert 0.27 < (sigmas > 0).mean() < 0.33
    assert sigmas.max() <= 1.5
    assert isinstance(backdrop.choose(Backdrops(), 1, (8, 8), np.random.default_rng(1)), Chosen)
