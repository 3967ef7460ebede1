"""Online hard keypoint mining: what is chosen, and what never is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.losses.ohkm import hardest


def test_the_largest_losses_keep_their_weight() -> None:
    losses = torch.tensor([[1.0, 5.0, 3.0, 4.0], [9.0, 1.0, 2.0, 3.0]])
    weights = torch.tensor([[1.0, 0.5, 1.0, 1.0], [1.0, 1.0, 1.0, 0.25]])
    expected = torch.tensor([[0.0, 0.5, 0.0, 1.0], [1.0, 0.0, 0.0, 0.25]])
    assert torch.equal(hardest(losses, weights, 2), expected)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_an_unlabelled_keypoint_is_never_chosen(poison: float) -> None:
    losses, weights = torch.tensor([[poison, 1.0, 2.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    assert torch.equal(hardest(losses, weights, 1), torch.tensor([[0.0, 0.0, 1.0]]))
    assert torch.equal(hardest(losses, weights, 2), weights)


@given(seed=st.integers(0, 1000), count=st.integers(1, 8))
def test_so_many_of_each_crop_and_none_worse_is_left_out(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(4, 6, generator=generator)
    weights = (torch.rand(4, 6, generator=generator) > 0.3).float()
    kept = hardest(losses, weights, count) > 0
    for loss, weight, chosen in zip(losses, weights, kept, strict=True):
        labelled = int(weight.sum())
        assert chosen.sum() == min(count, labelled)
        left = loss[(weight > 0) & ~chosen]
        assert not len(left) or left.max() <= loss[chosen].min()
