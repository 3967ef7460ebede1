"""Activations against the original numbers, at their limits, in half precision and as ONNX."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.autograd import gradcheck

from trainer.nets import activations
from trainer.nets.activations import ACTIVATIONS, hard_mish, hard_sigmoid, hard_swish, mish

EXACT = {"rtol": 1e-9, "atol": 1e-11}
PUBLISHED = ("mish", "hard_mish", "hard_swish", "hard_sigmoid")


def value_and_derivative(function, x):
    x = torch.as_tensor(x).clone().requires_grad_()
    y = function(x)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), derivative


@pytest.mark.parametrize("name", PUBLISHED)
def test_values_and_derivatives(golden, name):
    numbers = golden("activations")
    for function in (getattr(activations, name), lambda x: ACTIVATIONS[name]()(x * 1)):
        value, derivative = value_and_derivative(function, numbers["x"])
        np.testing.assert_allclose(value, numbers[name], **EXACT)
        np.testing.assert_allclose(derivative, numbers[f"{name}_grad"], **EXACT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_finite_far_out_and_close_to_double_precision(name, dtype):
    x = torch.cat([torch.linspace(-100, 100, 401), torch.linspace(-4, 4, 33)]).to(dtype)
    value, derivative = value_and_derivative(lambda x: ACTIVATIONS[name]()(x * 1), x)
    exact, exact_derivative = value_and_derivative(lambda x: ACTIVATIONS[name]()(x * 1), x.double())
    assert value.dtype == derivative.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(value.double(), exact, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(derivative.double(), exact_derivative, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_in_place_or_not_makes_no_difference(name):
    module = ACTIVATIONS[name]()
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)
    inner = value_and_derivative(lambda x: module(x * 1.0), x)
    if hasattr(module, "inplace"):
        module.inplace = False
    outer = value_and_derivative(module, x)
    torch.testing.assert_close(inner, outer, rtol=0, atol=0)


@pytest.mark.parametrize("function", [mish, hard_mish, hard_sigmoid])
def test_gradcheck(function):
    x = torch.tensor([-3.1, -1.9, -0.6, 0.3, 1.7, 25.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(function, (x,))


@pytest.mark.parametrize("function", [mish, hard_mish, hard_sigmoid])
def test_only_the_input_is_kept_for_the_backward_pass(function):
    kept = []
    x = torch.randn(64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: kept.append(saved) or saved, lambda kept: kept
    ):
        function(x)
    assert len(kept) == 1
    assert kept[0].data_ptr() == x.data_ptr()


@pytest.mark.parametrize(
    ("function", "where", "least"),
    [(mish, -1.19243, -0.30884), (hard_mish, -1.0, -0.5), (hard_swish, -1.5, -0.375)],
)
def test_minimum(function, where, least):
    x = torch.linspace(-6, 6, 1_200_001, dtype=torch.float64)
    y = function(x)
    assert y.min().item() == pytest.approx(least, abs=1e-5)
    assert x[y.argmin()].item() == pytest.approx(where, abs=1e-4)


@given(x=st.floats(-1e4, 1e4))
def test_hard_mish_is_its_published_formula(x):
    expected = x / 2 * min(2, max(0, x + 2))
    assert hard_mish(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-12)


def exported(name):
    """The graph of a scaling convolution and the activation: one net input is never written to in place."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1, groups=3, bias=False), ACTIVATIONS[name]()).eval()
    nn.init.ones_(net[0].weight)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        example = (torch.zeros(2, 3, 4, 5),)
        torch.onnx.export(
            net, example, stream, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False
        )
    model = onnx.load_from_string(stream.getvalue())
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("relu", ["Relu"]),
        ("mish", ["Softplus", "Tanh", "Mul"]),
        ("hard_mish", ["HardSigmoid", "Mul"]),
        ("hard_swish", ["HardSwish"]),
        ("hard_sigmoid", ["HardSigmoid"]),
    ],
)
def test_export(name, nodes):
    model = exported(name)
    assert [node.op_type for node in model.graph.node] == ["Conv", *nodes]
    x = np.linspace(-30, 30, 120, dtype=np.float32).reshape(2, 3, 4, 5)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    expected = ACTIVATIONS[name]()(torch.from_numpy(x.copy())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_hard_mish_is_exported_in_the_form_that_is_fused():
    _, gate, product = exported("hard_mish").graph.node
    assert {each.name: each.f for each in gate.attribute} == {"alpha": 0.5, "beta": 1.0}
    assert set(product.input) == {gate.input[0], gate.output[0]}
