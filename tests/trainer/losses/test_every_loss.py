"""What holds for every loss: masks, gradients, empty batches, order, half precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from trainer.losses import bone, dsnt, integral, multitask, oks, regression, rle, simcc

B, K = 3, 5
WEIGHTS = torch.tensor([[1, 0, 1, 0.5, 1], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.float64)
EDGES = ((0, 1), (1, 2), (2, 3), (2, 4))
AREAS = torch.tensor([0.5, 1.0, float("nan")], dtype=torch.float64)  # nobody is labelled in the last crop


@dataclass(frozen=True)
class Case:
    """A loss of tensors (B, K, *shape), or (B, *shape), and weights over their leading axes."""

    loss: Callable[..., Tensor]
    predicted: tuple[tuple[int, ...], ...]
    target: tuple[tuple[int, ...], ...] = ()
    per_crop: bool = False

    @property
    def weights(self) -> Tensor:
        return WEIGHTS[:, 0] if self.per_crop else WEIGHTS

    def tensors(self, dtype: torch.dtype = torch.float64, crops: int = B) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        leading = (crops,) if self.per_crop else (crops, K)
        made = [
            torch.rand(*leading, *shape, generator=generator, dtype=torch.float64) - 0.5
            for shape in (*self.predicted, *self.target)
        ]
        made = [each.to(dtype) for each in made]
        return [each.requires_grad_() for each in made[: len(self.predicted)]] + made[len(self.predicted) :]


def flow_loss(form: rle.Form, residual: rle.Residual | None, dimensions: int = 2) -> Callable[..., Tensor]:
    torch.manual_seed(0)
    loss = rle.RLELoss(dimensions, form=form, residual=residual)
    for parameter in loss.flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)

    def of(predicted: Tensor, sigma_logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return loss.to(predicted.dtype if predicted.dtype == torch.float64 else torch.float32)(
            predicted, sigma_logits, target, weights
        )

    return of


def simcc_loss(reduction: str, label_softmax: bool) -> Callable[..., Tensor]:
    def of(x: Tensor, y: Tensor, points: Tensor, weights: Tensor) -> Tensor:
        *label, weights = simcc.labels(points * 8 + 4, weights, (8, 6), sigma=(2.0, 2.0), normalise=True)
        return simcc.kl((x, y), label, weights, label_softmax=label_softmax, reduction=reduction)

    return of


def oks_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    areas = AREAS[: len(weights)].to(weights.dtype)
    return oks.OKSLoss([0.3] * K).to(weights.dtype)(predicted, target, weights, areas)


def mixed_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    return multitask.mixed_coordinates(
        predicted, target, weights, torch.tensor([True, False, True])[: len(weights)], penalty=torch.square
    )


def class_loss(logits: Tensor, weights: Tensor) -> Tensor:
    labels = torch.tensor([3, 0, 1])[: len(weights)]
    return multitask.classification(logits, torch.where(weights > 0, labels, multitask.IGNORED))


def presence_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return multitask.presence(logits, labels + 0.5, weights)


CASES = {
    "dsnt, euclidean + js": Case(dsnt.total, ((5, 4),), ((2,),)),
    "dsnt, l1 + kl": Case(partial(dsnt.total, distance="l1", regulariser="kl"), ((5, 4),), ((2,),)),
    "dsnt, mse + variance": Case(
        partial(dsnt.total, distance="mse", regulariser="variance"), ((5, 4),), ((2,),)
    ),
    "dsnt, plain": Case(partial(dsnt.total, regulariser=None), ((5, 4),), ((2,),)),
    "dsnt, volume": Case(dsnt.total, ((3, 5, 4),), ((3,),)),
    "dsnt, volume by 2D": Case(dsnt.total, ((3, 5, 4),), ((2,),)),
    "integral, sum": Case(integral.loss, ((5, 4),), ((2,),)),
    "integral, mean": Case(
        partial(integral.loss, mass="mean", scale=3.0, distance="mse", largest=100.0), ((5, 4),), ((2,),)
    ),
    "simcc": Case(simcc_loss("mean", True), ((12,), (16,)), ((2,),)),
    "simcc, mmpose": Case(simcc_loss("mmpose", False), ((12,), (16,)), ((2,),)),
    **{
        f"rle, {form}, {residual}": Case(flow_loss(form, residual), ((2,), (2,)), ((2,),))
        for form in ("mmpose", "official", "paper")
        for residual in ("laplace", "gaussian", None)
        if (form, residual) != ("official", "gaussian")
    },
    "rle, 3D": Case(flow_loss("mmpose", "laplace", 3), ((3,), (3,)), ((3,),)),
    "l1": Case(regression.l1, ((2,),), ((2,),)),
    "l2": Case(regression.l2, ((3,),), ((3,),)),
    "smooth l1": Case(partial(regression.smooth_l1, beta=0.2), ((2,),), ((2,),)),
    "laplace": Case(regression.laplace, ((2,), (2,)), ((2,),)),
    "gaussian": Case(regression.gaussian, ((2,), (2,)), ((2,),)),
    "bone, all pairs": Case(bone.JointBoneLoss(bone.all_pairs(K)), ((2,),), ((2,),)),
    "bone, edges in space": Case(bone.JointBoneLoss(EDGES), ((3,),), ((3,),)),
    "bone, heatmaps": Case(bone.JointBoneLoss(EDGES), ((4, 3),), ((4, 3),)),
    "bone, batch mean": Case(bone.BatchMeanBoneLoss(EDGES), ((2,),), ((2,),)),
    "oks": Case(oks_loss, ((2,),), ((2,),)),
    "mixed 2D and 3D": Case(mixed_loss, ((3,),), ((3,),)),
    "presence": Case(presence_loss, ((),), ((),), per_crop=True),
    "class": Case(class_loss, ((4,),), per_crop=True),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def gradients(case: Case, tensors: list[Tensor], weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    loss = case.loss(*tensors, weights)
    return loss.detach(), list(torch.autograd.grad(loss, tensors[: len(case.predicted)]))


@every
def test_nan_where_nothing_is_labelled_changes_neither_loss_nor_gradient(case):
    tensors, weights = case.tensors(), case.weights
    loss, wanted = gradients(case, tensors, weights)
    poisoned = [each.detach().clone() for each in tensors]
    for each in poisoned:
        each[weights == 0] = float("nan")
    for each in poisoned[: len(case.predicted)]:
        each.requires_grad_()
    found_loss, found = gradients(case, poisoned, weights)
    assert loss.isfinite()
    torch.testing.assert_close(found_loss, loss, rtol=0, atol=0)
    for poisoned_gradient, gradient in zip(found, wanted, strict=True):
        torch.testing.assert_close(poisoned_gradient, gradient, rtol=0, atol=0)
        assert (gradient[weights == 0] == 0).all()
        assert gradient.any()


@every
def test_the_gradient_is_that_of_the_loss(case):
    tensors, weights = case.tensors(), case.weights
    predicted, rest = tensors[: len(case.predicted)], tensors[len(case.predicted) :]
    assert torch.autograd.gradcheck(lambda *given: case.loss(*given, *rest, weights), tuple(predicted))


@every
@pytest.mark.parametrize("crops", [0, B], ids=["no crop", "no label"])
def test_nothing_labelled_is_zero_with_a_gradient_path(case, crops):
    tensors = case.tensors(crops=crops)
    loss, found = gradients(case, tensors, torch.zeros_like(case.weights[:crops]))
    assert loss == 0
    assert all((each == 0).all() for each in found)


@every
def test_half_precision_computes_in_single(case):
    tensors, weights = case.tensors(torch.bfloat16), case.weights.float()
    loss, found = gradients(case, tensors, weights)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast, _ = gradients(case, tensors, weights)
    exact, _ = gradients(
        case, [each.detach().double().requires_grad_(each.requires_grad) for each in tensors], weights
    )
    assert loss.dtype == under_autocast.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(under_autocast.double(), exact, rtol=1e-4, atol=1e-5)
    assert all(each.isfinite().all() for each in found)


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"oks", "mixed 2D and 3D", "class"}))
def test_the_order_of_crops_does_not_matter(name):
    case = CASES[name]
    order = torch.tensor([1, 2, 0])
    tensors, weights = case.tensors(), case.weights
    ordered = case.loss(*(each[order] for each in tensors), weights[order])
    torch.testing.assert_close(ordered, case.loss(*tensors, weights))
