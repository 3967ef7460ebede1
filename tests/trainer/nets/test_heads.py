"""Heads: names and shapes of their outputs, what they mean, and that each one learns with its loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainer.losses import bone, dsnt, heatmap, integral, multitask, regression, rle, simcc
from trainer.nets.heads import (
    ClassHead,
    DSNTHead,
    HeatmapHead,
    MultiHead,
    PresenceHead,
    RegressionHead,
    SimCCHead,
)

B, C, K, CELLS, SIZE = 3, 16, 4, (8, 6), (64, 48)


def features(seed: int = 0) -> Tensor:
    return torch.randn(B, C, *CELLS, generator=torch.Generator().manual_seed(seed))


HEADS = {
    "heatmap": (lambda: HeatmapHead(C, K), {"heatmaps": (B, K, 8, 6)}),
    "dsnt": (
        lambda: DSNTHead(C, K),
        {"logits": (B, K, 8, 6), "points": (B, K, 2), "scores": (B, K)},
    ),
    "dsnt 3D": (
        lambda: DSNTHead(C, K, depth=5),
        {"logits": (B, K, 5, 8, 6), "points": (B, K, 3), "scores": (B, K)},
    ),
    "simcc": (lambda: SimCCHead(C, K, CELLS, SIZE), {"simcc_x": (B, K, 96), "simcc_y": (B, K, 128)}),
    "rle": (
        lambda: RegressionHead(C, K),
        {"points": (B, K, 2), "sigma_logits": (B, K, 2), "scores": (B, K)},
    ),
    "likelihood": (
        lambda: RegressionHead(C, K, dimensions=3, scale="log"),
        {"points": (B, K, 3), "log_scales": (B, K, 3)},
    ),
    "regression": (lambda: RegressionHead(C, K, scale=None, normalise=False), {"points": (B, K, 2)}),
    "presence": (lambda: PresenceHead(C, name="left"), {"left": (B,)}),
    "class": (lambda: ClassHead(C, 7), {"class": (B, 7)}),
    "multi": (
        lambda: MultiHead([RegressionHead(C, K, scale=None), PresenceHead(C), ClassHead(C, 2, name="side")]),
        {"points": (B, K, 2), "presence": (B,), "side": (B, 2)},
    ),
}


@pytest.mark.parametrize(("make", "shapes"), HEADS.values(), ids=HEADS)
def test_outputs_have_names_and_shapes(make, shapes):
    head = make()
    found = head(features())
    assert {name: tuple(each.shape) for name, each in found.items()} == shapes
    assert head.outputs == tuple(shapes)
    assert {name: tuple(each.shape) for name, each in head(features()[:1]).items()} == {
        name: (1, *shape[1:]) for name, shape in shapes.items()
    }


@pytest.mark.parametrize(("make", "_shapes"), HEADS.values(), ids=HEADS)
def test_crops_do_not_touch_each_other(make, _shapes):
    head = make().eval()
    together = head(features())
    alone = head(features()[1:2])
    for name in head.outputs:
        torch.testing.assert_close(together[name][1:2], alone[name])


def test_dsnt_points_and_scores_are_those_of_its_logits():
    found = DSNTHead(C, K)(features())
    probabilities = dsnt.softmax(found["logits"])
    torch.testing.assert_close(found["points"], dsnt.expectation(probabilities))
    torch.testing.assert_close(found["scores"], probabilities.amax((2, 3)))


def test_a_normalised_feature_moves_points_by_its_direction_and_sigma_by_its_size():
    head = RegressionHead(C, K)
    found, doubled = head(features()), head(2 * features())
    torch.testing.assert_close(doubled["points"], found["points"])
    torch.testing.assert_close(doubled["sigma_logits"], 2 * found["sigma_logits"])
    assert ((found["scores"] > 0) & (found["scores"] < 1)).all()
    plain = RegressionHead(C, K, scale=None, normalise=False)
    torch.testing.assert_close(plain(2 * features())["points"], 2 * plain(features())["points"])


def test_a_dead_feature_has_the_bias_for_its_points_and_a_finite_gradient():
    head, dead = RegressionHead(C, K), torch.zeros(B, C, *CELLS, requires_grad=True)
    nn.init.constant_(head.points.bias, 0.25)
    found = head(dead)
    assert (found["points"] == 0.25).all()
    assert torch.autograd.grad(found["points"].sum(), dead)[0].isfinite().all()


def test_two_outputs_of_one_name_are_refused():
    with pytest.raises(ValueError, match="presence"):
        MultiHead([PresenceHead(C), PresenceHead(C)])


POINTS = (
    0.6 * torch.rand(B, K, 2, generator=torch.Generator().manual_seed(3)) - 0.3
)  # about the crop's centre
DEPTH = torch.rand(B, K, 1, generator=torch.Generator().manual_seed(4)) - 0.5
ONES = torch.ones(B, K)


def of_simcc(found: dict[str, Tensor]) -> Tensor:
    pixels = (POINTS + 0.5) * torch.tensor([48.0, 64.0])
    x, y, weights = simcc.labels(pixels, ONES, SIZE)
    return simcc.kl((found["simcc_x"], found["simcc_y"]), (x, y), weights)


def of_many(found: dict[str, Tensor]) -> Tensor:
    present = torch.tensor([1.0, 0.0, 1.0])
    weights = ONES * present[:, None]
    points = torch.cat([POINTS, DEPTH], dim=-1)
    return (
        multitask.mixed_coordinates(found["points"], points, weights, torch.tensor([True, True, False]))
        + bone.JointBoneLoss([(0, 1), (1, 2)])(found["points"], points, weights)
        + multitask.presence(found["presence"], present, torch.ones(B))
        + multitask.classification(found["class"], torch.tensor([2, multitask.IGNORED, 0]))
    )


LEARNING = {
    "heatmap": (
        lambda: HeatmapHead(C, K),
        lambda found: heatmap.cross_entropy(found["heatmaps"], 10 * POINTS + 3, ONES, 1.0),
    ),
    "dsnt": (lambda: DSNTHead(C, K), lambda found: dsnt.total(found["logits"], 2 * POINTS, ONES)),
    "dsnt 3D": (
        lambda: DSNTHead(C, K, depth=4),
        lambda found: dsnt.total(found["logits"], torch.cat([2 * POINTS, DEPTH], -1), ONES),
    ),
    "dsnt 3D from 2D": (
        lambda: DSNTHead(C, K, depth=4),
        lambda found: dsnt.total(found["logits"], 2 * POINTS, ONES, regulariser="variance"),
    ),
    "integral": (
        lambda: DSNTHead(C, K),
        lambda found: integral.loss(found["logits"], 2 * POINTS, ONES, mass="mean", largest=2.0),
    ),
    "simcc": (lambda: SimCCHead(C, K, CELLS, SIZE), of_simcc),
    "l1": (
        lambda: RegressionHead(C, K, scale=None, normalise=False),
        lambda found: regression.l1(found["points"], POINTS, ONES),
    ),
    "laplace": (
        lambda: RegressionHead(C, K, scale="log"),
        lambda found: regression.laplace(found["points"], found["log_scales"], POINTS, ONES),
    ),
    "many": (
        lambda: MultiHead([RegressionHead(C, K, dimensions=3, scale=None), PresenceHead(C), ClassHead(C, 3)]),
        of_many,
    ),
}


def learns(head: nn.Module, loss: Callable[[dict[str, Tensor]], Tensor], *also: nn.Module) -> None:
    """A few steps on one batch lower the loss."""
    modules = nn.ModuleList([head, *also])
    optimiser = torch.optim.Adam(modules.parameters(), 0.02)
    losses = []
    for _ in range(25):
        value = loss(head(features()))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    start, end = losses[0], losses[-1]
    assert end < start - 0.1 * abs(start)


@pytest.mark.parametrize(("make", "loss"), LEARNING.values(), ids=LEARNING)
def test_a_head_learns_with_its_loss(make, loss):
    torch.manual_seed(0)
    learns(make(), loss)


@pytest.mark.parametrize("form", ["mmpose", "official", "paper"])
def test_the_regression_head_learns_with_rle(form):
    torch.manual_seed(0)
    loss = rle.RLELoss(form=form)
    learns(
        RegressionHead(C, K),
        lambda found: loss(found["points"], found["sigma_logits"], POINTS, ONES),
        loss,
    )
