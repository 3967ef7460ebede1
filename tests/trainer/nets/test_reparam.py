"""Further training forms of a block: each computes what it becomes when deployed, with any activation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from trainer.nets.activations import ACTIVATIONS
from trainer.nets.pose import NetConfig, PoseNet
from trainer.nets.reparam import FORMS, OverparameterisedBlock, QuantisableBlock, SeparableBlock
from trainer.nets.repvgg import BranchBlock, PlainBlock, deployed

BLOCKS = [QuantisableBlock, OverparameterisedBlock]
SHAPES = [  # channels in and out, stride, groups: with and without identity, dense, grouped and depthwise
    (8, 8, 1, 1), (8, 12, 1, 1), (8, 8, 2, 1), (8, 8, 1, 2), (8, 8, 1, 4), (8, 8, 1, 8), (8, 16, 2, 4), (8, 8, 2, 8),
]  # fmt: skip


def lived_in(net: nn.Module, seed: int = 0) -> nn.Module:
    """With norms as after some training, a third of the scales negative."""
    generator = torch.Generator().manual_seed(seed)
    for norm in [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]:
        shape = norm.weight.shape
        norm.weight.data = torch.rand(shape, generator=generator) * 1.5 - 0.5
        norm.bias.data = torch.randn(shape, generator=generator)
        norm.running_mean.data = torch.randn(shape, generator=generator)
        norm.running_var.data = torch.rand(shape, generator=generator) + 0.1
    return net


def crops(channels: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(2, channels, 9, 7, generator=torch.Generator().manual_seed(3)).to(dtype)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", range(8))
def test_published_block_before_its_activation_and_its_weight_penalty(golden, case):
    numbers = {
        key.removeprefix(f"case{case}_"): torch.from_numpy(np.asarray(value))
        for key, value in golden("repvgg_block").items()
        if key.startswith(f"case{case}_")
    }
    cin, cout, stride, groups = numbers["config_cin_cout_stride_groups"].tolist()
    block = BranchBlock(cin, cout, stride=stride, groups=groups).double().eval()
    block.dense_weight.data, block.point_weight.data = numbers["dense_weight"], numbers["one_weight"]
    for norm, name in ((block.dense_norm, "dense"), (block.point_norm, "one"), (block.identity_norm, "id")):
        if norm is not None:
            norm.eps = float(numbers["bn_eps"])
            norm.weight.data, norm.bias.data = numbers[f"{name}_bn_gamma"], numbers[f"{name}_bn_beta"]
            norm.running_mean, norm.running_var = numbers[f"{name}_bn_mean"], numbers[f"{name}_bn_var"]
    exact = {"rtol": 1e-9, "atol": 1e-11}
    with torch.no_grad():
        torch.testing.assert_close(block.summed(numbers["x"]), numbers["pre_activation"], **exact)
        torch.testing.assert_close(block.custom_l2(), numbers["custom_l2"], **exact)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize(("cin", "cout", "stride", "groups"), SHAPES)
@pytest.mark.parametrize("form", BLOCKS)
@torch.no_grad()
def test_deployed_it_computes_the_same(form, cin, cout, stride, groups, dtype, limit):
    for point in (True, False):
        block = lived_in(form(cin, cout, stride=stride, groups=groups, point=point)).to(dtype).eval()
        before = copy.deepcopy(block.state_dict())
        x = crops(cin, dtype)
        plain = block.deployed()
        assert isinstance(plain, PlainBlock)
        assert relative(plain(x), block(x)) < limit
        assert sum(each.numel() for each in plain.parameters()) == cout * (cin // groups) * 9 + cout
        for name, value in block.state_dict().items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_every_form_takes_every_activation(form, activation):
    block = lived_in(FORMS[form](8, 8, activation=activation)).eval()
    x = crops(8)
    expected = block(x)
    assert relative(deployed(block)(x), expected) < 1e-4
    assert relative(deployed(block)(x), FORMS[form](8, 8).eval()(x)) > 1e-2


@pytest.mark.parametrize("branches", [1, 4])
@pytest.mark.parametrize("size", [1, 3, 5])
@torch.no_grad()
def test_over_parameterised_branches(size, branches):
    block = lived_in(OverparameterisedBlock(8, 8, size=size, branches=branches)).double().eval()
    kernel, _ = block.fused()
    assert kernel.shape == (8, 8, size, size)
    assert (block.point_weight is None) == (size == 1)
    assert relative(block.deployed()(crops(8, torch.float64)), block(crops(8, torch.float64))) < 1e-9


@torch.no_grad()
def test_separable_becomes_a_depthwise_and_a_pointwise_convolution():
    block = lived_in(SeparableBlock(8, 12, stride=2)).eval()
    plain = deployed(block)
    assert relative(plain(crops(8)), block(crops(8))) < 1e-4
    depthwise, pointwise = (each for each in plain.modules() if isinstance(each, nn.Conv2d))
    assert (depthwise.groups, depthwise.kernel_size, depthwise.stride) == (8, (3, 3), (2, 2))
    assert (pointwise.groups, pointwise.kernel_size, pointwise.out_channels) == (1, (1, 1), 12)


def test_quantisable_block_is_the_published_sum():
    block = lived_in(QuantisableBlock(8, 8)).double().eval()
    x = crops(8, torch.float64)
    point = nn.functional.conv2d(x, block.point_weight)
    dense = block.dense_norm(nn.functional.conv2d(x, block.dense_weight, padding=1))
    torch.testing.assert_close(block(x), torch.relu(block.norm(dense + point + x)), rtol=0, atol=1e-12)
    assert len([each for each in block.modules() if isinstance(each, nn.BatchNorm2d)]) == 2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_deploying_a_net_keeps_its_mode_and_itself_and_twice_is_once(form, training):
    config = NetConfig(form=form, stem=8, widths=(8, 8, 16, 16), blocks=(1, 2, 1, 1), decoder=(8, 8))
    net = lived_in(PoseNet(config, 3)).train(training)
    before = copy.deepcopy(net.state_dict())
    once = deployed(net)
    twice = deployed(once)
    assert all(each.training == training for each in once.modules())
    assert not any(isinstance(each, nn.BatchNorm2d) for each in once.modules())
    assert list(once.state_dict()) == list(twice.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(1))
        assert relative(once.eval()(x), net.eval()(x)) < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_every_branch_learns(form):
    block = FORMS[form](8, 8)
    block(crops(8)).square().sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in block.parameters())
    weights = [each for each in block.parameters() if each.ndim == 4]
    assert all(each.grad.abs().sum() > 0 for each in weights)


def test_weight_penalty_reaches_the_kernels_only():
    block = lived_in(BranchBlock(8, 8))
    block.custom_l2().backward()
    assert block.dense_weight.grad.abs().sum() > 0
    assert block.point_weight.grad.abs().sum() > 0
    assert all(norm.weight.grad is None for norm in (block.dense_norm, block.point_norm, block.identity_norm))
    without = BranchBlock(8, 8, point=False)
    torch.testing.assert_close(without.custom_l2(), without.dense_weight.square().sum())
