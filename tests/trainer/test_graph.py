"""Decoders in the graph answer what those of model_zoo answer, whatever the maps look like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn

from model_zoo import codecs, geometry
from model_zoo.codecs import gaussian
from model_zoo.manifest import Codec, Normalisation
from trainer import graph

SIZE = (12, 9)
STRIDE = 4
Decode = Callable[[np.ndarray], np.ndarray]


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A model in memory, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def decoding_graph(name: str, size: tuple[int, int] = SIZE) -> onnx.ModelProto:
    """A graph that does nothing but decode (N, 3, *size) maps."""
    decode = graph.decoder(Codec(sigma_cells=1, decoder=name))
    served = graph.Keypoints(decode, size, STRIDE)
    return graph.to_onnx(served, ["keypoints"], Normalisation(mean=0, scale=1), size)


def without_front(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take maps instead of pixels."""
    height, width = (each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    del model.graph.node[:2]
    taken = helper.make_tensor_value_info("normalised", TensorProto.FLOAT, ["N", 3, height, width])
    model.graph.input[0].CopyFrom(taken)
    return model


@pytest.fixture(scope="module", params=sorted(codecs.DECODERS))
def decoders(request: pytest.FixtureRequest) -> tuple[str, Decode]:
    """A decoder's name, and its graph as a function of (N, 3, *SIZE) maps."""
    loaded = session(without_front(decoding_graph(request.param)))
    return request.param, lambda maps: loaded.run(None, {"normalised": maps})[0]


def compare(decoders: tuple[str, Decode], maps: np.ndarray) -> None:
    """Hold the graph against the decoder of model_zoo."""
    name, decode = decoders
    maps = np.ascontiguousarray(maps, np.float32)
    cells, scores = codecs.decoder(name)(maps, Codec(sigma_cells=1, decoder=name))
    answers = decode(maps)
    assert answers.dtype == np.float32
    assert answers.shape == (*maps.shape[:2], 3)
    found = geometry.pixels_to_cells(answers[..., :2], STRIDE)
    np.testing.assert_allclose(found, cells, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(answers[..., 2], scores.astype(np.float32))


coordinate = st.floats(-3, 14, width=32)


@settings(max_examples=80)
@given(
    points=st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=3),
    sigma=st.sampled_from([0.6, 1.0, 2.0]),
    peak=st.sampled_from([1e-6, 0.2, 1.0, 1e6]),
    noise=st.sampled_from([0.0, 1e-7, 0.01, 0.3]),
)
@example(points=[(0, 0), (8, 11), (4, 0)], sigma=1.0, peak=1.0, noise=0.0)
@example(points=[(1, 1), (2, 2), (6, 9)], sigma=1.0, peak=1.0, noise=0.0)
@example(points=[(-50, 3), (3, 90), (4.5, 4.5)], sigma=1.0, peak=1.0, noise=0.0)
def test_gaussians_anywhere(decoders, points, sigma, peak, noise):
    maps = gaussian.draw(np.array(points, np.float32), SIZE, sigma)[None]
    disturbed = maps + noise * np.random.default_rng(1).normal(size=maps.shape)
    compare(decoders, peak * disturbed)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("low", [-1.0, 0.0], ids=["signed", "positive"])
def test_random_maps(decoders, low, scale):
    compare(decoders, scale * np.random.default_rng(2).uniform(low, 1, (200, 3, *SIZE)))


@pytest.mark.parametrize("value", [0.0, 1e-12, 0.3, 1.0, -0.5, 1e30])
def test_flat_maps(decoders, value):
    compare(decoders, np.full((2, 3, *SIZE), value))


def test_maps_that_are_flat_but_for_rounding(decoders):
    """Their curvature is far below what float32 can tell from none."""
    noise = np.random.default_rng(3).integers(0, 3, (50, 3, *SIZE)) * np.finfo(np.float32).eps
    compare(decoders, 1 / 108 * (1 + noise))


def test_ties_and_plateaus(decoders):
    maps = np.random.default_rng(4).integers(0, 3, (300, 3, *SIZE)) / 2
    compare(decoders, maps)


def test_saddles_and_ridges(decoders):
    """Maxima next to higher logarithms two cells away, and ridges that a Newton step would leave the map along."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    ridge = np.exp(-0.5 * np.square(x - 4.2)) * (1 + 1e-6 * np.sin(y))
    saddle = np.exp(0.02 * np.square(x - 4) - 0.05 * np.square(y - 6))
    slope = np.exp(0.1 * x + 0.2 * y)
    maps = np.stack([ridge, saddle, slope])[None]
    maps[..., 5, 4] *= 1.01
    compare(decoders, maps)


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_any_batch(decoders, batch):
    compare(decoders, np.random.default_rng(5).random((batch, 3, *SIZE)))


@pytest.mark.parametrize("name", sorted(codecs.DECODERS))
def test_the_smallest_maps(name):
    loaded = session(without_front(decoding_graph(name, (1, 2))))
    compare(
        (name, lambda maps: loaded.run(None, {"normalised": maps})[0]),
        np.random.default_rng(6).random((4, 3, 1, 2)),
    )


@pytest.mark.parametrize("name", sorted(codecs.DECODERS))
def test_a_decoder_is_a_few_plain_operators(name):
    nodes = [each for each in decoding_graph(name).graph.node if each.op_type != "Constant"]
    assert {each.domain for each in nodes} <= {"", "ai.onnx"}
    assert not {each.op_type for each in nodes} & {"Loop", "Scan", "If", "NonZero", "TopK"}
    assert len(nodes) < 60


@pytest.mark.parametrize(
    ("codec", "there"),
    [
        ({"decoder": "dark"}, True),
        ({"decoder": "dark", "dark_blur_kernel": 11}, False),
        ({"decoder": "udp", "dark_blur_kernel": 3}, False),
        ({"decoder": "argmax_shift", "dark_blur_kernel": 11}, True),
        ({"decoder": "dsnt", "dark_blur_kernel": 11}, True),
        ({"decoder": "somebody_elses"}, False),
    ],
)
def test_what_cannot_be_in_the_graph_is_left_out(codec, there):
    assert (graph.decoder(Codec(sigma_cells=1, **codec)) is not None) == there


class Regression(nn.Module):
    """A net that answers keypoints without heatmaps."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, 3, 3): mean, lowest and highest of each plane."""
        flat = x.flatten(2)
        return torch.stack([flat.mean(-1), flat.amin(-1), flat.amax(-1)], dim=-1)


def test_a_net_without_heatmaps_answers_keypoints_alone():
    model = graph.to_onnx(Regression(), ["keypoints"], Normalisation(mean=10, scale=2.0), (8, 6))
    loaded = session(model)
    assert [(each.name, each.shape) for each in loaded.get_outputs()] == [("keypoints", ["N", 3, 3])]
    pixels = np.random.default_rng(7).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    (answers,) = loaded.run(None, {"images": pixels})
    numbers = (pixels.astype(np.float64) - 10) / 2
    expected = np.stack([numbers.mean((1, 2)), numbers.min((1, 2)), numbers.max((1, 2))], axis=-1)
    np.testing.assert_allclose(answers, expected, atol=1e-4)
