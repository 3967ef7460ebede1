"""Presence, class, and batches of 2D and 3D labels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from trainer.losses import bone, multitask, regression

NAN = float("nan")


def batch(crops: int = 4, keypoints: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, crops, keypoints, 3, generator=generator, dtype=torch.float64)
    return predicted.requires_grad_(), target, torch.ones(crops, keypoints)


def test_presence_is_the_cross_entropy_of_labelled_crops():
    logits, labels = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, NAN])
    loss = multitask.presence(logits, labels, torch.tensor([1.0, 1.0, 0.0]))
    expected = functional.binary_cross_entropy_with_logits(logits[:2], labels[:2])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(multitask.presence(logits, labels > 0.5, torch.tensor([1, 1, 0])), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_crop_of_unknown_class_does_not_count(smoothing):
    logits, labels = torch.randn(4, 3), torch.tensor([2, multitask.IGNORED, 0, multitask.IGNORED])
    loss = multitask.classification(logits, labels, smoothing=smoothing)
    known = [0, 2]
    expected = functional.cross_entropy(logits[known], labels[known], label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)


def test_another_label_may_mean_unknown():
    logits = torch.randn(2, 3)
    loss = multitask.classification(logits, torch.tensor([1, 255]), ignored=255)
    torch.testing.assert_close(loss, functional.cross_entropy(logits[:1], torch.tensor([1])))


def test_z_learns_from_3d_labels_only():
    predicted, target, weights = batch()
    target[:2, :, 2] = NAN
    in_space = torch.tensor([False, False, True, True])
    loss = multitask.mixed_coordinates(predicted, target, weights, in_space)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss.isfinite()
    assert (gradient[:2, :, 2] == 0).all()
    assert gradient[2:].all()
    assert gradient[:2, :, :2].all()
    flat = multitask.mixed_coordinates(predicted[:2], target[:2], weights[:2], in_space[:2])
    (gradient,) = torch.autograd.grad(flat, predicted)
    assert (gradient[..., 2] == 0).all()


def test_each_kind_is_averaged_on_its_own():
    predicted, target, weights = batch()
    in_space = torch.tensor([True, False, False, False])
    difference = (predicted - target).abs()
    in_3d = (difference[:1] * torch.tensor([2.0, 2.0, 1.0])).sum(-1).mean() / 5
    in_2d = difference[1:, :, :2].mean()
    loss = multitask.mixed_coordinates(predicted, target, weights, in_space)
    torch.testing.assert_close(loss, (in_3d + in_2d) / 2)


@pytest.mark.parametrize("spatial", [True, False])
def test_a_batch_of_one_kind_is_that_kinds_mean(spatial):
    predicted, target, weights = batch()
    in_space = torch.full((4,), spatial)
    loss = multitask.mixed_coordinates(predicted, target, weights, in_space, penalty=torch.square)
    shares = torch.tensor([0.4, 0.4, 0.2] if spatial else [0.5, 0.5, 0.0])
    torch.testing.assert_close(loss, ((predicted - target).square() * shares).sum(-1).mean())


def test_a_kind_without_labelled_joints_is_not_held():
    predicted, target, weights = batch()
    in_space, weights[0] = torch.tensor([True, False, False, False]), 0
    loss = multitask.mixed_coordinates(predicted, target, weights, in_space)
    torch.testing.assert_close(loss, (predicted - target)[1:, :, :2].abs().mean())


def test_the_order_of_crops_does_not_matter():
    predicted, target, weights = batch()
    in_space, order = torch.tensor([True, False, True, False]), torch.tensor([3, 0, 2, 1])
    torch.testing.assert_close(
        multitask.mixed_coordinates(predicted[order], target[order], weights[order], in_space[order]),
        multitask.mixed_coordinates(predicted, target, weights, in_space),
    )


def test_where_nothing_is_present_only_presence_is_learnt():
    predicted, target, weights = batch()
    present, logits = torch.zeros(4), torch.randn(4, requires_grad=True)
    gestures = torch.randn(4, 7, requires_grad=True)
    weights = weights * present[:, None]
    terms = {
        "presence": multitask.presence(logits, present, torch.ones(4)),
        "points": regression.l1(predicted, target, weights),
        "bones": bone.JointBoneLoss([(0, 1)])(predicted, target, weights),
        "handedness": multitask.presence(logits, torch.full((4,), NAN), present),
        "gesture": multitask.classification(gestures, torch.full((4,), multitask.IGNORED)),
    }
    assert {name for name, term in terms.items() if term != 0} == {"presence"}
    sum(terms.values()).backward()
    assert logits.grad.all()
    assert not predicted.grad.any()
    assert not gestures.grad.any()
