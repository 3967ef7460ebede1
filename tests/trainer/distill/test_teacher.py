"""Distillation from another net: its answers in the pupil's terms, the losses and their masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from trainer.distill import teacher
from trainer.distill.teacher import Mixing, Targets, Teacher

SIZE = (64, 48)
"""The pupil's crops; its maps are (8, 6)."""
NAMES = ("nose", "neck", "left_hip")


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dots(points, size=SIZE):
    """Pictures with one white square of 5 pixels about each point; black else."""
    images = torch.zeros(len(points), 3, *size, dtype=torch.uint8)
    for image, (x, y) in zip(images, points, strict=True):
        image[:, y - 2 : y + 3, x - 2 : x + 3] = 255
    return images


def brightest(images):
    """A teacher that answers where the middle of the brightness is: points and scores of two keypoints."""
    assert images.dtype == np.uint8
    mass = images[..., 0].astype(np.float64)
    y, x = np.mgrid[: mass.shape[1], : mass.shape[2]]
    total = mass.sum(axis=(1, 2))
    point = np.stack([(mass * axis).sum(axis=(1, 2)) / total for axis in (x, y)], -1)
    return np.stack([point, -point], 1), np.tile([0.9, 0.2], (len(images), 1))


@pytest.mark.parametrize("size", [SIZE, (128, 96), (32, 24)])
def test_points_come_back_in_the_pupils_pixels(size):
    places = [(10, 20), (40, 50)]
    learnt = Teacher(brightest, "points", size, [0, 1, None])(dots(places), (8, 6))
    assert learnt.maps is None
    np.testing.assert_allclose(learnt.points[:, 0], places, atol=0.05)
    torch.testing.assert_close(learnt.weights, torch.tensor([[0.9, 0.0, 0.0]] * 2))


def bright_cells(images):
    """A teacher whose map is the brightness of cells of 4 pixels, for two keypoints; the second is nearly empty."""
    mass = (
        images[..., 0]
        .reshape(len(images), images.shape[1] // 4, 4, images.shape[2] // 4, 4)
        .mean(axis=(2, 4))
    )
    return np.stack([mass, mass * 0.1], 1).astype(np.float32) / 255


def centre(maps):
    flat = maps / maps.sum(dim=(-2, -1), keepdim=True)
    x = (flat.sum(dim=-2) * torch.arange(maps.shape[-1])).sum(-1)
    y = (flat.sum(dim=-1) * torch.arange(maps.shape[-2])).sum(-1)
    return torch.stack([x, y], -1)


@pytest.mark.parametrize("size", [SIZE, (128, 96)])
def test_maps_come_back_in_the_pupils_cells(size):
    places = [(18, 22), (30, 40)]
    learnt = Teacher(bright_cells, "heatmaps", size, [None, 0, 1])(dots(places), (8, 6))
    assert learnt.points is None
    assert learnt.maps.shape == (2, 3, 8, 6)
    expected = (np.array(places) + 0.5) / 8 - 0.5
    np.testing.assert_allclose(centre(learnt.maps[:, 1]), expected, atol=0.05)
    assert (learnt.weights[:, 0] == 0).all()
    assert (learnt.weights[:, 1] > 0.3).all()
    assert (learnt.weights[:, 2] == 0).all()


def test_logits_of_a_teacher_are_its_probabilities():
    logits = values(2, 2, 8, 6).float()
    logits[0, 0, 3, 4] = 12.0
    learnt = Teacher(lambda images: logits.numpy(), "logits", SIZE, [0, 1], sure=0.5)(
        dots([(9, 9)] * 2), (8, 6)
    )
    torch.testing.assert_close(learnt.maps, logits.flatten(2).softmax(-1).view_as(logits))
    assert learnt.weights[0, 0] > 0.9
    assert (learnt.weights.flatten()[1:] == 0).all()


def test_keypoints_are_matched_by_name():
    assert teacher.joints_by_name(NAMES, ("neck", "ankle", "nose")) == [2, 0, None]


@given(
    seed=st.integers(0, 500), temperature=st.sampled_from([0.5, 1.0, 2.0, 5.0]), scale=st.floats(1e-3, 1e3)
)
def test_temperature_is_that_of_the_softmax(seed, temperature, scale):
    logits = values(1, 2, 4, 5, seed=seed)
    maps = logits.flatten(2).softmax(-1).view_as(logits) * scale
    expected = (logits / temperature).flatten(2).softmax(-1).view_as(logits)
    torch.testing.assert_close(teacher.softened(maps, temperature), expected, rtol=1e-9, atol=1e-12)


def test_an_empty_map_is_flat():
    torch.testing.assert_close(teacher.softened(torch.zeros(1, 1, 2, 5)), torch.full((1, 1, 2, 5), 0.1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_heatmap_loss_is_zero_for_the_teachers_own_logits_and_positive_else(temperature):
    logits, weights = values(2, 3, 4, 5), torch.ones(2, 3, dtype=torch.float64)
    maps = logits.flatten(2).softmax(-1).view_as(logits)
    assert teacher.heatmap_loss(logits + 7, maps, weights, temperature).item() == pytest.approx(0, abs=1e-12)
    assert teacher.heatmap_loss(logits * 2, maps, weights, temperature).item() > 1e-3


def test_gradients_keep_their_size_at_a_high_temperature():
    maps = values(1, 1, 4, 4).flatten(2).softmax(-1).view(1, 1, 4, 4)
    norms = []
    for temperature in (10.0, 100.0):
        logits = values(1, 1, 4, 4, seed=1).requires_grad_()
        teacher.heatmap_loss(logits, maps, torch.ones(1, 1), temperature).backward()
        norms.append(logits.grad.norm().item())
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


LOSSES = {
    "heatmap": (lambda a, b, w: teacher.heatmap_loss(a, b, w, 2.0), (2, 3, 4, 5)),
    "map": (teacher.map_loss, (2, 3, 4, 5)),
    "point": (lambda a, b, w: teacher.point_loss(a, b, w, beta=0.05), (2, 3, 2)),
    "point_l1": (teacher.point_loss, (2, 3, 2)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    loss, shape = LOSSES[name]
    weights = torch.tensor([[1.0, 0.0, 0.3], [0.5, 1.0, 0.0]], dtype=torch.float64)
    target = values(*shape, seed=1).abs()
    assert gradcheck(lambda found: loss(found, target, weights), (values(*shape).requires_grad_(),))


@pytest.mark.parametrize("name", LOSSES)
def test_a_keypoint_of_weight_zero_never_counts(name):
    loss, shape = LOSSES[name]
    weights = torch.tensor([[1.0, 0.0, 0.3], [0.5, 1.0, 0.0]], dtype=torch.float64)
    results = []
    for poison in (0.7, math.nan, math.inf):
        found, target = values(*shape), values(*shape, seed=1).abs()
        found[0, 1], target[1, 2] = poison, poison
        found.requires_grad_()
        value = loss(found, target, weights)
        value.backward()
        assert (found.grad[weights == 0] == 0).all()
        results.append((value.detach(), found.grad))
    for each in results[1:]:
        torch.testing.assert_close(each, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_without_any_weight_the_loss_is_zero_and_keeps_its_gradient_path(name):
    loss, shape = LOSSES[name]
    found = values(*shape).requires_grad_()
    value = loss(found, torch.full(shape, math.nan, dtype=torch.float64), torch.zeros(2, 3))
    value.backward()
    assert value.item() == 0
    assert (found.grad == 0).all()


def test_mixing():
    one, other = torch.tensor(2.0), torch.tensor(10.0)
    assert teacher.mixed(one, other, 0.0) == 2
    assert teacher.mixed(one, other, 1.0) == 10
    assert teacher.mixed(one, other, 0.25) == 4
    falling = Mixing(share=0.6, final_share=0.0)
    assert [falling.share_at(each) for each in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([0.6, 0.3, 0.0, 0.0])


def test_a_pupil_comes_to_see_what_its_teacher_sees():
    images = dots([(18, 22), (30, 40)])
    learnt = Teacher(bright_cells, "heatmaps", SIZE, [0, 1], sure=0.01)(images, (8, 6))
    assert isinstance(learnt, Targets)
    logits = torch.zeros(2, 2, 8, 6, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        loss = teacher.heatmap_loss(logits, learnt.maps, learnt.weights, 2.0)
        loss.backward()
        optimiser.step()
    found = logits.detach().flatten(2).softmax(-1).view_as(logits)
    torch.testing.assert_close(centre(found), centre(learnt.maps), rtol=0, atol=0.1)
