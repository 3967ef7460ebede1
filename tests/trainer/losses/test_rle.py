"""RLE: the numbers of both public codes, the flow, and the paper's own form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.losses import rle

EXACT = {"rtol": 1e-9, "atol": 1e-11}
both_flows = pytest.mark.parametrize("zero", [False, True], ids=["flow", "zeroflow"])
FORMS = [
    ("mmpose", "laplace"),
    ("mmpose", "gaussian"),
    ("mmpose", None),
    ("official", "laplace"),
    ("official", None),
    ("paper", "laplace"),
    ("paper", "gaussian"),
    ("paper", None),
]
every_form = pytest.mark.parametrize(("form", "residual"), FORMS)


@pytest.fixture
def numbers(golden):
    """The golden numbers as tensors."""
    return {key: torch.from_numpy(np.asarray(value)) for key, value in golden("rle").items()}


@pytest.fixture
def batch(numbers):
    """Predicted points, sigma logits and targets; the first two ask for gradients."""
    predicted, logits = (numbers[key].requires_grad_() for key in ("pred", "sigma_logit"))
    return predicted, logits, numbers["target"]


@both_flows
def test_golden_flow(numbers, golden_flow, zero):
    flow, prefix, points = golden_flow(zero=zero), "zeroflow_" if zero else "flow_", numbers["probe_points"]
    z, log_determinant = flow.inverse(points)
    torch.testing.assert_close(z, numbers[prefix + "probe_z"], **EXACT)
    torch.testing.assert_close(log_determinant, numbers[prefix + "probe_logdet"], **EXACT)
    torch.testing.assert_close(flow.log_prob(points), numbers[prefix + "probe_logprob"], **EXACT)
    torch.testing.assert_close(flow(points), numbers[prefix + "probe_forward"], **EXACT)


@both_flows
@pytest.mark.parametrize(
    ("key", "form", "residual"),
    [
        ("loss_res_laplace", "mmpose", "laplace"),
        ("loss_res_gaussian", "mmpose", "gaussian"),
        ("loss_nores", "mmpose", None),
        ("official_loss", "official", "laplace"),
    ],
)
def test_golden_losses(numbers, batch, golden_flow, zero, key, form, residual):
    loss = rle.RLELoss(form=form, residual=residual, flow=golden_flow(zero=zero))
    key = ("zeroflow_" if zero else "flow_") + key
    torch.testing.assert_close(loss(*batch, torch.ones(4, 7)), numbers[key + "_now"], **EXACT)
    torch.testing.assert_close(loss(*batch, numbers["weight"]), numbers[key + "_w"], **EXACT)


@both_flows
def test_golden_gradients_and_parts(numbers, batch, golden_flow, zero):
    flow, prefix = golden_flow(zero=zero), "zeroflow_" if zero else "flow_"
    loss = rle.RLELoss(flow=flow)(*batch, torch.ones(4, 7))
    by_point, by_logit = torch.autograd.grad(loss, batch[:2])
    torch.testing.assert_close(by_point, numbers[prefix + "grad_pred"], **EXACT)
    torch.testing.assert_close(by_logit, numbers[prefix + "grad_sigma_logit"], **EXACT)
    torch.testing.assert_close(rle.official_log_q(*batch), numbers[prefix + "official_logq"], **EXACT)
    log_g = flow.log_prob(rle.standardised(*batch).flatten(0, 1)).view(4, 7)
    torch.testing.assert_close(log_g, numbers[prefix + "log_phi"], **EXACT)
    torch.testing.assert_close(rle.scores(batch[1]), numbers["score"], **EXACT)


def test_the_density_integrates_to_1(golden_flow):
    along = torch.linspace(-12, 12, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(along, along)
    with torch.no_grad():
        mass = golden_flow().log_prob(grid).exp().sum() * (along[1] - along[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("masks", [rle.MASKS_2D, rle.MASKS_3D], ids=["2D", "3D"])
def test_the_flow_is_invertible_and_knows_its_determinant(masks):
    torch.manual_seed(0)
    flow = rle.RealNVP(masks, hidden=8).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    points = torch.randn(6, len(masks[0]), dtype=torch.float64)
    z, log_determinant = flow.inverse(points)
    torch.testing.assert_close(flow(z), points)
    for point, expected in zip(points, log_determinant, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: flow.inverse(x[None])[0][0], point)
        torch.testing.assert_close(jacobian.det().abs().log(), expected)


def test_a_flow_of_zeros_is_the_standard_normal(golden_flow):
    points = torch.randn(9, 2, dtype=torch.float64)
    expected = -points.square().sum(-1) / 2 - math.log(2 * math.pi)
    torch.testing.assert_close(golden_flow(zero=True).log_prob(points), expected)


def test_a_new_flow_is_nearly_the_standard_normal():
    points = torch.randn(9, 2)
    expected = -points.square().sum(-1) / 2 - math.log(2 * math.pi)
    torch.testing.assert_close(rle.RealNVP().log_prob(points), expected, rtol=0, atol=1e-3)


def test_the_public_form_counts_log_sigma_twice_and_log_g_d_times(batch, golden_flow):
    flow, weights = golden_flow(), torch.ones(4, 7)
    public, own = (rle.RLELoss(form=form, flow=flow)(*batch, weights) for form in ("mmpose", "paper"))
    log_sigma = torch.nn.functional.logsigmoid(batch[1]).sum()
    log_g = flow.log_prob(rle.standardised(*batch).flatten(0, 1)).sum()
    torch.testing.assert_close(public - own, (log_sigma - log_g) / 4, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("residual", ["laplace", "gaussian"])
def test_the_papers_form_is_a_likelihood_once_log_g_is_dropped(batch, golden_flow, residual):
    flow, weights = golden_flow(zero=True), torch.ones(4, 7)
    predicted, logits, target = batch
    loss = rle.RLELoss(form="paper", residual=residual, flow=flow)(*batch, weights)
    log_g = flow.log_prob(rle.standardised(*batch).flatten(0, 1)).sum() / 4
    density = {"laplace": torch.distributions.Laplace, "gaussian": torch.distributions.Normal}[residual]
    expected = -density(predicted, logits.sigmoid()).log_prob(target).sum() / 4
    torch.testing.assert_close(loss + log_g, expected)


@every_form
@settings(max_examples=12)
@given(seed=st.integers(0, 2**31))
def test_the_loss_falls_as_the_point_comes_near(form, residual, seed):
    loss = rle.RLELoss(form=form, residual=residual)
    generator = torch.Generator().manual_seed(seed)
    target, offset = (torch.randn(1, 3, 2, generator=generator) for _ in range(2))
    offset = 0.05 * torch.sign(offset)
    logits = torch.randn(1, 3, 2, generator=generator)
    with torch.no_grad():
        losses = [
            loss(target + share * offset, logits, target, torch.ones(1, 3)).item()
            for share in (0, 0.25, 0.5, 1, 2)
        ]
    assert losses == sorted(losses)


@every_form
def test_there_is_one_best_sigma(form, residual, golden_flow):
    loss = rle.RLELoss(form=form, residual=residual, flow=golden_flow(zero=True))
    logits = torch.linspace(-9, 9, 61, dtype=torch.float64).requires_grad_()
    losses = torch.stack(
        [
            loss(torch.full((1, 1, 2), 0.1), each.expand(1, 1, 2), torch.zeros(1, 1, 2), torch.ones(1, 1))
            for each in logits
        ]
    )
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert (gradient.sign().diff() != 0).sum() == 1
    assert gradient[0] < 0 < gradient[-1]


@every_form
@pytest.mark.parametrize("logit", [-1e4, -30.0, 30.0, 1e4])
def test_extreme_sigmas_stay_finite_in_single_precision(form, residual, logit, golden_flow):
    loss = rle.RLELoss(form=form, residual=residual, flow=golden_flow().float())
    generator = torch.Generator().manual_seed(0)
    predicted = torch.rand(2, 3, 2, generator=generator).requires_grad_()
    logits = torch.full((2, 3, 2), logit, requires_grad=True)
    value = loss(predicted, logits, torch.rand(2, 3, 2, generator=generator), torch.ones(2, 3))
    gradients = torch.autograd.grad(value, [predicted, logits, *loss.parameters()])
    assert value.isfinite()
    assert all(each.isfinite().all() for each in gradients)


@every_form
@pytest.mark.parametrize("logit", [-1e4, -30.0])
def test_a_sigma_that_is_far_too_small_still_grows(form, residual, logit, golden_flow):
    logits = torch.full((2, 3, 2), logit, requires_grad=True)
    loss = rle.RLELoss(form=form, residual=residual, flow=golden_flow(zero=True).float())
    value = loss(torch.full((2, 3, 2), 0.1), logits, torch.zeros(2, 3, 2), torch.ones(2, 3))
    assert (torch.autograd.grad(value, logits)[0] < 0).all()


@every_form
def test_a_joint_of_weight_0_is_a_joint_that_is_not_there(batch, form, residual, golden_flow):
    loss = rle.RLELoss(form=form, residual=residual, flow=golden_flow())
    weights = torch.ones(4, 7)
    weights[:, 2:] = 0
    shown = [each[:, :2] for each in batch]
    torch.testing.assert_close(loss(*batch, weights), loss(*shown, torch.ones(4, 2)))
    torch.testing.assert_close(
        loss(*batch, weights), loss(*batch, weights[..., None].expand(4, 7, 2)), rtol=0, atol=0
    )


def test_joints_of_weight_0_never_enter_the_flow(batch):
    loss, seen = rle.RLELoss(), []
    loss.flow.scales[0].register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    weights = torch.zeros(4, 7)
    weights[1, 3] = weights[2, 0] = 1
    loss(*(each.float() for each in batch), weights)
    assert seen == [2]


def test_the_flow_keeps_its_precision_under_autocast(golden_flow):
    flow, points = golden_flow().float(), torch.randn(9, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = flow.log_prob(points)
    torch.testing.assert_close(found, flow.log_prob(points), rtol=0, atol=0)


def test_the_flow_learns_a_density_that_is_not_normal():
    torch.manual_seed(0)
    errors = torch.distributions.Laplace(0.5, 0.3).sample((512, 2))
    flow = rle.RealNVP()
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = -flow.log_prob(errors).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_the_official_form_has_no_gaussian():
    with pytest.raises(ValueError, match="Laplace"):
        rle.RLELoss(form="official", residual="gaussian")
