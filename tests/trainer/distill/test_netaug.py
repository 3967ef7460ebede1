"""Network augmentation: what the slices share, what sorting leaves alone, and what is exported."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from trainer.distill import netaug
from trainer.distill.netaug import NetAug
from trainer.distill.okdhp import BranchedNet
from trainer.ema import WeightEma
from trainer.nets.pose import NetConfig, PoseNet, multiply_adds
from trainer.nets.reparam import FORMS
from trainer.nets.repvgg import deployed

BUILD = partial(PoseNet, keypoints=5)
CONFIG = NetConfig(stem=8, widths=(8, 16, 16, 24), blocks=(1, 2, 1, 1), decoder=(16, 8))
SIZE = (64, 32)


def crops(count=4, seed=0):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def lived_in(form="merged", **how):
    """An augmented net whose weights are all different and whose statistics have moved."""
    torch.manual_seed(0)
    net = NetAug(BUILD, CONFIG.model_copy(update={"form": form}), **how)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for seed in range(3):
            net(crops(seed=seed))
            net(crops(seed=seed), net.draw(rng))
    return net


def square(maps):
    return (maps - 1).square().mean()


def test_widths():
    net = NetAug(BUILD, CONFIG, multipliers=(1.0, 1.8, 2.6))
    assert netaug.widths_of(net.net.config) == [24, 24, 40, 40, 64, 40, 24]
    rng = np.random.default_rng(0)
    drawn = [netaug.widths_of(net.draw(rng)) for _ in range(300)]
    assert all(set(column) == {1 * w, netaug.widened(w, 1.8), netaug.widened(w, 2.6)}
               for column, w in zip(zip(*drawn, strict=True), netaug.widths_of(CONFIG), strict=True))  # fmt: skip
    assert netaug.widened(30, 1) == 30
    assert netaug.widened(30, 2.2) == 64


def test_the_second_pass_is_left_out_for_the_second_half():
    assert [netaug.is_on(each) for each in (0.0, 0.49, 0.5, 1.0)] == [True, True, False, False]


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_exported_net_is_the_target_slice(form):
    net = lived_in(form).eval()
    exported = net.exported()
    assert type(exported) is PoseNet
    assert exported.config == net.config
    torch.testing.assert_close(exported(crops()), net(crops()), rtol=1e-5, atol=1e-6)
    plain = BUILD(net.config)
    assert multiply_adds(deployed(exported), SIZE) == multiply_adds(deployed(plain), SIZE)
    assert sum(p.numel() for p in exported.parameters()) == sum(p.numel() for p in plain.parameters())
    before = net(crops())
    for parameter in exported.parameters():
        parameter.zero_()
    torch.testing.assert_close(net(crops()), before, rtol=0, atol=0)


def test_the_widest_slice_is_the_wider_net():
    net = lived_in().eval()
    torch.testing.assert_close(net(crops(), net.net.config), net.net(crops()), rtol=0, atol=0)


def gradients(net, passes):
    net.zero_grad()
    for config in passes:
        square(net(crops(), config)).backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_the_target_gets_gradients_from_both_passes(alpha):
    net = lived_in()
    wider = net.draw(np.random.default_rng(1))
    alone, other = (gradients(copy.deepcopy(net), [each]) for each in (None, wider))
    net.zero_grad()
    assert netaug.backward(net, crops(), square, wider, alpha=alpha).item() > 0
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, alone[name] + alpha * other[name], rtol=1e-4, atol=1e-6)
    kernel = "stages.1.1.dense_weight"
    assert (alone[f"net.{kernel}"][:16, :16] != 0).all()
    assert (other[f"net.{kernel}"][:16, :16] != 0).all()
    assert (alone[f"net.{kernel}"][16:] == 0).all()
    assert (other[f"net.{kernel}"][16:] != 0).any()


def test_without_second_pass_only_the_target_learns():
    net = lived_in()
    expected = gradients(copy.deepcopy(net), [None])
    net.zero_grad()
    netaug.backward(net, crops(), square, None)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_multiplier_one_is_plain_training(form):
    config = CONFIG.model_copy(update={"form": form})
    torch.manual_seed(0)
    net = NetAug(BUILD, config, multipliers=(1.0,))
    plain = copy.deepcopy(net.net)
    rng = np.random.default_rng(0)
    for each, step in ((net, lambda x: netaug.backward(net, x, square, net.draw(rng))),
                       (plain, lambda x: square(plain(x)).backward())):  # fmt: skip
        optimiser = torch.optim.SGD(each.parameters(), lr=0.05, momentum=0.9)
        for seed in range(3):
            optimiser.zero_grad()
            step(crops(seed=seed))
            optimiser.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(net.net.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_sorting_leaves_the_wider_net_and_puts_the_important_channels_first(form):
    net, x = lived_in(form).double().eval(), crops().double()
    wide, target = net.net(x), net(x)
    orders = net.channel_orders()
    assert [sorted(order.tolist()) for order in orders] == [
        list(range(width)) for width in netaug.widths_of(net.net.config)
    ]
    net.reorder(orders)
    torch.testing.assert_close(net.net(x), wide, rtol=1e-9, atol=1e-9)
    assert (net(x) - target).abs().max() > 1e-3
    assert all((order.diff() > 0).all() for order in net.channel_orders())
    if form == "merged":
        readers = net.net.head.weight.abs().sum(dim=(0, 2, 3)) + sum(
            weight.abs().sum(dim=(0, 2, 3))
            for weight in (net.net.smooth8.dense_weight, net.net.smooth8.point_weight)
        )
        assert (readers.diff() <= 0).all()


@pytest.mark.parametrize("ensemble", ["mean", "fau"])
@torch.no_grad()
def test_a_net_with_branches_is_a_slice_and_is_sorted_like_any_other(ensemble):
    torch.manual_seed(0)
    net = NetAug(
        partial(BranchedNet, keypoints=5, branches=3, ensemble=ensemble), CONFIG, multipliers=(1.0, 2.0)
    )
    for parameter in net.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    net, x = net.double().eval(), crops().double()
    wide, target, exported = net.net(x), net(x), net.exported()(x)
    for one, other in ((exported.branches, target.branches), (exported.ensemble, target.ensemble)):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    net.reorder(net.channel_orders())
    torch.testing.assert_close(net.net(x).branches, wide.branches, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net.net(x).ensemble, wide.ensemble, rtol=1e-9, atol=1e-9)
    assert (net(x).branches - target.branches).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [partial(torch.optim.SGD, lr=0.05, momentum=0.9), torch.optim.AdamW])
def test_sorting_takes_the_optimiser_and_the_average_along(kind):
    """Training the wider net goes on as if nothing had been sorted."""
    results = []
    for sort in (False, True):
        net = lived_in()
        average = WeightEma(net, 0.9)
        optimiser = kind(net.parameters())
        for seed in range(4):
            if sort and seed == 2:
                orders = net.channel_orders()
                net.reorder(orders, optimiser)
                average.net.reorder(orders)
            optimiser.zero_grad()
            square(net(crops(seed=seed), net.net.config)).backward()
            optimiser.step()
            average.update(net)
        with torch.no_grad():
            results.append((net.eval().net(crops()), average.net.net(crops())))
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_statistics_are_estimated_anew_at_export():
    net = lived_in()
    batches = [crops(16, seed) for seed in (10, 11, 12)]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for training in (True, False):
        exported = net.train(training).exported(batches)
        assert all(each.training == training for each in exported.modules())
        first = exported.stem.norm
        convolved = [exported.stem.convolved(batch, exported.stem.kernel()) for batch in batches]
        expected = torch.stack([each.mean(dim=(0, 2, 3)) for each in convolved]).mean(dim=0)
        torch.testing.assert_close(first.running_mean, expected, rtol=1e-4, atol=1e-5)
        expected = torch.stack([each.var(dim=(0, 2, 3)) for each in convolved]).mean(dim=0)
        torch.testing.assert_close(first.running_var, expected, rtol=1e-4, atol=1e-5)
        assert first.momentum == nn.BatchNorm2d(1).momentum
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    fits, collected = (each.eval()(batches[0]) for each in (exported, net.exported()))
    train_mode = net.train()(batches[0])
    assert (fits - train_mode).abs().mean() < (collected - train_mode).abs().mean()


def test_training_lowers_the_loss_of_the_exported_net():
    torch.manual_seed(0)
    net = NetAug(BUILD, CONFIG)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    rng = np.random.default_rng(0)
    losses = []
    for step in range(16):
        if step == 4:
            net.reorder(net.channel_orders(), optimiser)
        optimiser.zero_grad()
        losses.append(
            netaug.backward(net, crops(), square, net.draw(rng) if netaug.is_on(step / 16) else None)
        )
        optimiser.step()
    with torch.no_grad():
        exported = net.exported([crops()]).eval()
        assert square(exported(crops())) < 0.5 * losses[0]
    assert losses[-1] < 0.5 * losses[0]
