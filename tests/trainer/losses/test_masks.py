"""The building blocks of the losses."""

from __future__ import annotations

import pytest
import torch

from trainer.losses.masks import bounded, masked_mean, only, precise

NAN = float("nan")


def test_a_mask_stops_values_and_gradients():
    values = torch.tensor([[1.0, NAN], [3.0, 4.0]], requires_grad=True)
    kept = only(values, torch.tensor([False, True]))
    (gradient,) = torch.autograd.grad(kept.square().sum(), values)
    assert kept.tolist() == [[0, 0], [3, 4]]
    assert gradient.tolist() == [[0, 0], [6, 8]]


@pytest.mark.parametrize(
    ("losses", "weights", "mean"),
    [
        ([2.0, 4.0], [1.0, 3.0], 3.5),
        ([2.0, NAN], [1.0, 0.0], 2.0),
        ([2.0, 4.0], [0.25, 0.0], 0.5),  # the divisor is at least 1
        ([NAN, NAN], [0.0, 0.0], 0.0),
        ([], [], 0.0),
    ],
)
def test_the_masked_mean(losses, weights, mean):
    assert masked_mean(torch.tensor(losses), torch.tensor(weights)) == mean


def test_a_bound_cuts_values_but_not_gradients():
    values = torch.tensor([-3.0, 0.5, 7.0], requires_grad=True)
    cut = bounded(values, -1.0, 1.0)
    (gradient,) = torch.autograd.grad(cut.sum(), values)
    assert cut.tolist() == [-1, 0.5, 1]
    assert gradient.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_raised(given, computed):
    assert precise(torch.ones(2, dtype=given)).dtype == computed
