"""Fusion of RepVGG blocks, on whole nets too: golden numbers of the authors' code, then properties."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.nets.pose import NetConfig, PoseNet, heatmaps, multiply_adds
from trainer.nets.repvgg import (
    Block,
    BranchBlock,
    ConvNorm,
    MergedBlock,
    PlainBlock,
    deployed,
    identity_kernel,
)

Golden = Callable[[str], dict[str, np.ndarray]]
SHAPES = {
    "identity": (8, 8, 1, 1),
    "wider": (8, 16, 1, 1),
    "narrower": (16, 8, 1, 1),
    "stride 2": (8, 8, 2, 1),
    "2 groups": (8, 8, 1, 2),
    "4 groups": (16, 16, 1, 4),
    "4 groups, stride 2": (8, 16, 2, 4),
    "depthwise": (8, 8, 1, 8),
    "depthwise, stride 2": (8, 8, 2, 8),
}


def disturbed(net: nn.Module, seed: int = 0, spread: float = 1.0) -> nn.Module:
    """Batch norms as after a training: every statistic its own, some gammas negative."""
    torch.manual_seed(seed)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1 - spread, spread)
            nn.init.normal_(norm.bias, 0, 0.3)
            nn.init.normal_(norm.running_mean, 0, 0.5)
            nn.init.uniform_(norm.running_var, 0.3, 3)
    return net


def without_activation(block: Block) -> Block:
    """The block up to its activation, which would hide half of every difference."""
    block.activation = nn.Identity()
    return block


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference in units of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("case", range(8))
def test_the_published_block_and_its_fusion(golden: Golden, case: int) -> None:
    numbers = {
        key.removeprefix(f"case{case}_"): torch.from_numpy(value)
        for key, value in golden("repvgg_block").items()
        if key.startswith(f"case{case}_")
    }
    cin, cout, stride, groups = numbers["config_cin_cout_stride_groups"].tolist()
    block = BranchBlock(cin, cout, stride=stride, groups=groups).double().eval()
    assert block.has_identity == bool(numbers["has_identity"])
    state = {"dense_weight": numbers["dense_weight"], "point_weight": numbers["one_weight"]}
    for ours, theirs in (("dense", "dense"), ("point", "one"), ("identity", "id")):
        for part, name in (
            ("weight", "gamma"), ("bias", "beta"), ("running_mean", "mean"), ("running_var", "var")
        ):  # fmt: skip
            if f"{theirs}_bn_{name}" in numbers:
                state[f"{ours}_norm.{part}"] = numbers[f"{theirs}_bn_{name}"]
    missing = block.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    for norm in (block.dense_norm, block.point_norm, block.identity_norm):
        if norm is not None:
            norm.eps = float(numbers["bn_eps"])

    exact: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}
    with torch.no_grad():
        torch.testing.assert_close(block(numbers["x"]), numbers["y_eval"], **exact)
        kernel, bias = block.fused()
        torch.testing.assert_close(kernel, numbers["fused_kernel"], **exact)
        torch.testing.assert_close(bias, numbers["fused_bias"], **exact)
        torch.testing.assert_close(block.deployed()(numbers["x"]), numbers["y_eval"], **exact)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=str)
@pytest.mark.parametrize("point", [True, False], ids=["1x1", "no 1x1"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("form", [BranchBlock, MergedBlock])
def test_a_fused_block_computes_the_same(
    form: type[Block], shape: tuple[int, int, int, int], point: bool, dtype: torch.dtype, bound: float
) -> None:
    cin, cout, stride, groups = shape
    block = disturbed(form(cin, cout, stride=stride, groups=groups, point=point)).to(dtype).eval()
    assert any((norm.weight < 0).any() for norm in block.modules() if isinstance(norm, nn.BatchNorm2d))
    x = torch.randn(3, cin, 11, 8, dtype=dtype)
    with torch.no_grad():
        plain = without_activation(block).deployed()
        assert relative(plain(x), block(x)) < bound
        block.activation = nn.ReLU()
        torch.testing.assert_close(block.deployed()(x), plain(x).relu())
    convolution = plain[0]
    assert sum(each.numel() for each in plain.parameters()) == cout * cin // groups * 9 + cout
    assert (convolution.stride, convolution.groups) == ((stride, stride), groups)
    assert convolution.weight.dtype == dtype


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_the_identity_kernel_leaves_its_input_as_it_is(groups: int) -> None:
    x = torch.randn(2, 8, 5, 7)
    kernel = identity_kernel(8, groups)
    assert torch.equal(nn.functional.conv2d(x, kernel, padding=1, groups=groups), x)


@pytest.mark.parametrize("form", [BranchBlock, MergedBlock])
def test_both_forms_learn_every_weight(form: type[Block]) -> None:
    block = form(8, 8)
    block(torch.randn(4, 8, 6, 6)).square().sum().backward()
    gradients = {name: each.grad for name, each in block.named_parameters()}
    assert all(each is not None and each.isfinite().all() and each.any() for each in gradients.values())


def test_a_fresh_merged_block_is_the_sum_of_its_branches() -> None:
    block = MergedBlock(6, 6).double().eval()
    block.norm.eps = 0.0
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    branches = (
        nn.functional.conv2d(x, block.dense_weight, padding=1)
        + nn.functional.conv2d(x, block.point_weight)
        + x * block.identity_scale.view(-1, 1, 1)
    )
    torch.testing.assert_close(block(x), branches.relu())


@pytest.mark.parametrize("form", ["branches", "merged"])
def test_a_whole_net_fused_computes_the_same(form: str) -> None:
    # Gently disturbed: through eleven layers, wild statistics would only measure how rounding errors grow.
    net = disturbed(PoseNet(NetConfig(form=form), 19), spread=0.2).double().eval()
    nn.init.normal_(net.head.weight, 0, 0.3)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = net(x)
        assert relative(deployed(net)(x), expected) < 1e-9
        single = copy.deepcopy(net).float()
        assert relative(deployed(single)(x.float()), single(x.float())) < 1e-4


@pytest.mark.parametrize("form", ["branches", "merged"])
def test_a_deployed_net_is_plain_convolutions_and_nothing_else(form: str) -> None:
    plain = deployed(PoseNet(NetConfig(form=form), 19))
    kinds = {type(module) for module in plain.modules() if not list(module.children())}
    assert kinds <= {nn.Conv2d, nn.ReLU, nn.Identity}
    assert not any(isinstance(module, Block | ConvNorm) for module in plain.modules())
    convolutions = [module for module in plain.modules() if isinstance(module, nn.Conv2d)]
    weights = sum(
        c.out_channels * (c.in_channels // c.groups * c.kernel_size[0] * c.kernel_size[1] + 1)
        for c in convolutions
    )
    assert sum(each.numel() for each in plain.parameters()) == weights
    assert all(c.bias is not None for c in convolutions)


def test_deploying_twice_changes_nothing_more() -> None:
    once = deployed(disturbed(PoseNet(NetConfig(), 19)))
    twice = deployed(once)
    assert str(twice) == str(once)
    for (name, a), (_, b) in zip(once.state_dict().items(), twice.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("training", [True, False])
def test_the_original_stays_as_it_was_and_the_copy_keeps_its_mode(training: bool) -> None:
    net = disturbed(PoseNet(NetConfig(), 19)).train(training)
    before, shape = copy.deepcopy(net.state_dict()), str(net)
    plain = deployed(net)
    assert all(module.training == training for module in plain.modules())
    assert all(module.training == training for module in net.modules())
    with torch.no_grad():
        for each in plain.parameters():
            each.zero_()  # shares nothing with the original
    assert str(net) == shape
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_block_on_its_own_is_deployed_too() -> None:
    block = disturbed(MergedBlock(4, 4)).eval()
    x = torch.randn(1, 4, 5, 5)
    plain = deployed(block)
    assert isinstance(plain, PlainBlock)
    torch.testing.assert_close(plain(x), block(x), atol=1e-5, rtol=1e-4)


def test_the_shipped_shape_has_the_size_that_was_planned_for() -> None:
    net = deployed(PoseNet(NetConfig(), 19))
    assert 120e6 < multiply_adds(net, (256, 192)) < 132e6


def test_multiply_adds_counted_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=4)
    )
    assert multiply_adds(net, (10, 12)) == 5 * 6 * (8 * 27 + 8 * 2 * 9)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_a_softmax_head_that_is_exactly_right_peaks_at_one(sigma: float) -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(24.0), indexing="ij")
    logits = -((x - 11) ** 2 + (y - 17) ** 2) / (2 * sigma**2)
    maps = heatmaps(logits[None, None], "softmax", sigma)
    torch.testing.assert_close(maps[0, 0], logits.exp(), atol=1e-3, rtol=0)
    assert maps[0, 0, 17, 11].item() == pytest.approx(1, abs=1e-3)


def test_a_linear_head_is_taken_as_it_comes() -> None:
    logits = torch.randn(2, 3, 8, 6)
    assert torch.equal(heatmaps(logits, "linear", 1.0), logits)


def test_softmax_heatmaps_do_not_feel_a_constant() -> None:
    logits = torch.randn(1, 2, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(heatmaps(logits + 30, "softmax", 1.0), heatmaps(logits, "softmax", 1.0))
