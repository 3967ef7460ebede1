"""The graph that is served: raw pixels in, and out come heatmaps, the keypoints in them, or both.

Pixels, (N, h, w, 3) uint8, are normalised by Transpose and DequantizeLinear, which is exactly (pixel - mean) / scale
and lets a quantised net start from the pixels as they are. The decoders below compute what those of `model_zoo.codecs`
of the same names do, but as few plain operators without a loop, so that an answer is K x 3 numbers instead of maps.

Axes: B crops, K keypoints, H x W heatmap cells. What follows the choice of a cell is computed in float64 on a handful
of numbers per keypoint: the guards against flat and saddle-shaped maps compare with numbers that float32 cannot tell
from rounding.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from model_zoo.codecs import dark, dsnt, udp
from model_zoo.codecs._newton import FLAT
from model_zoo.manifest import Codec, Normalisation
from trainer.errors import ExportError

OPSET = 17
INPUT = "images"
LONGEST = 1.5
"""Bound of a Newton step in cells, as the decoders of `model_zoo.codecs` have it."""
_PLANES, _NORMALISED = "planes", "normalised"

Size = tuple[int, int]
"""(height, width)."""
InGraph = Callable[[Tensor, Size], tuple[Tensor, Tensor]]
"""(B, K, H, W) heatmaps and their size -> (B, K, 2) points in cells, (B, K, 1) scores."""


def argmax_shift(maps: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """See `model_zoo.codecs.argmax_shift`."""
    height, width = size
    flat, cell, column, row, scores = _peaks(maps, width)
    right, left, below, above = _at(flat, cell, size, [1, -1, width, -width]).split(1, dim=-1)
    uphill = torch.cat([right - left, below - above], dim=-1).sign()
    place = torch.cat([column, row], dim=-1)
    inside = torch.minimum(place, torch.tensor([width - 1, height - 1]) - place) >= 1
    return place + 0.25 * torch.where(inside, uphill, 0.0), scores


def dark_unblurred(maps: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """See `model_zoo.codecs.dark`, with no blur."""
    height, width = size
    flat, cell, column, row, scores = _peaks(maps, width)
    around = _at(flat, cell, size, [dx + width * dy for dx, dy in _FAR])
    place = torch.cat([column, row], dim=-1)
    from_border = torch.minimum(place, torch.tensor([width - 1, height - 1]) - place)
    inside = from_border.amin(dim=-1, keepdim=True) >= 2
    logs = around.double().clamp(min=dark.FLOOR).log()
    return place + _newton(logs, _FAR_DIFFERENCES, inside), scores


def udp_unblurred(maps: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """See `model_zoo.codecs.udp`, with no blur."""
    height, width = size
    flat, _, column, row, scores = _peaks(maps, width)
    columns = (column + torch.tensor([dx for dx, _ in _NEAR])).clamp(0, width - 1)
    rows = (row + torch.tensor([dy for _, dy in _NEAR])).clamp(0, height - 1)
    logs = flat.gather(-1, rows * width + columns).double().clamp(udp.LOWEST, udp.HIGHEST).log()
    points = torch.cat([column, row], dim=-1) + _newton(logs, _NEAR_DIFFERENCES)
    edge = torch.tensor([width - 0.5, height - 0.5], dtype=torch.float64)
    return torch.minimum(points.clamp(min=-0.5), edge), scores


def centre_of_mass(maps: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """See `model_zoo.codecs.dsnt`."""
    scores = maps.amax(dim=(2, 3))[..., None]
    mass = maps.clamp(min=0.0) / torch.where(scores > 0, scores, 1.0)[..., None]
    middles = []
    for summed, cells in ((2, size[1]), (3, size[0])):  # what is left runs along x, then along y
        marginal = mass.sum(dim=summed).double()
        total = marginal.sum(dim=-1, keepdim=True)
        moment = marginal @ torch.tensor(dsnt.axis(cells)[:, None])
        middles.append(((moment / torch.where(total > 0, total, 1.0) + 1.0) * cells - 1.0) / 2.0)
    return torch.cat(middles, dim=-1), scores


_DECODERS: Mapping[str, InGraph] = MappingProxyType(
    {"argmax_shift": argmax_shift, "dark": dark_unblurred, "dsnt": centre_of_mass, "udp": udp_unblurred}
)


def decoder(codec: Codec) -> InGraph | None:
    """The codec's own decoder for the graph; None where it cannot be there: a plug-in, or one that blurs."""
    blurs = codec.dark_blur_kernel > 0 and codec.decoder in ("dark", "udp")
    return None if blurs else _DECODERS.get(codec.decoder)


class Keypoints(nn.Module):
    """Decode heatmaps to keypoints of the crop.

    Args:
        decode: one of `decoder`'s.
        size: (H, W) of the maps.
        stride: crop pixels per cell.
    """

    def __init__(self, decode: InGraph, size: Size, stride: float) -> None:
        super().__init__()
        self.decode, self.size, self.stride = decode, size, stride

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, H, W) heatmaps -> (B, K, 3) float32: x and y in pixels of the crop, and score."""
        points, scores = self.decode(maps, self.size)
        pixels = points * self.stride + (self.stride - 1) / 2
        return torch.cat([pixels.float(), scores.float()], dim=-1)


def to_onnx(
    net: nn.Module, outputs: Sequence[str], normalisation: Normalisation, size: Size
) -> onnx.ModelProto:
    """Trace a net and let it take raw pixels.

    Args:
        net: (N, 3, h, w) normalised crops to one tensor, or a tuple of them, whose first axis is N.
        outputs: name of each.
        normalisation: what stands before the net.
        size: (height, width) of the crops.

    Returns:
        A checked model with one input, `INPUT`, and a free batch size.

    Raises:
        ExportError: the mean is no whole number from 0 to 255, so pixels cannot be normalised exactly in the graph.
    """
    if normalisation.mean != int(normalisation.mean) or not 0 <= normalisation.mean <= 255:
        raise ExportError(
            f"normalisation.mean must be a whole number from 0 to 255, got {normalisation.mean}"
        )
    example, stream = torch.zeros(2, 3, *size), io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is the older of torch's two; it needs no further package and is ten times faster.
        warnings.simplefilter("ignore", DeprecationWarning)
        # The decoders' constants are no data and shall be constants of the graph.
        warnings.filterwarnings("ignore", r"torch\.tensor results are registered", torch.jit.TracerWarning)
        torch.onnx.export(
            net.eval(),
            (example,),
            stream,
            input_names=[_NORMALISED],
            output_names=list(outputs),
            dynamic_axes={name: {0: "N"} for name in (_NORMALISED, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(stream.getvalue())
    with torch.inference_mode():
        answers = net(example)
    for output, answer in zip(
        model.graph.output, answers if isinstance(answers, tuple) else (answers,), strict=True
    ):  # the exporter does not see through every operator
        shape = ["N", *answer.shape[1:]]
        output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape))
    _prepend_normalisation(model.graph, normalisation, size)
    onnx.checker.check_model(model, full_check=True)
    return model


def _prepend_normalisation(graph: onnx.GraphProto, how: Normalisation, size: Size) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array(1 / how.scale, np.float32), "pixel_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(how.mean, np.uint8), "pixel_mean"))
    graph.node.insert(0, helper.make_node("Transpose", [INPUT], [_PLANES], perm=[0, 3, 1, 2]))
    graph.node.insert(
        1, helper.make_node("DequantizeLinear", [_PLANES, "pixel_scale", "pixel_mean"], [_NORMALISED])
    )
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", *size, 3]))


def _peaks(maps: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The maps in one row (B, K, H W); and of each maximum, (B, K, 1): index in the row, column, row, value."""
    flat = maps.flatten(2)
    cell = flat.argmax(dim=-1, keepdim=True)
    column, row = cell % width, torch.div(cell, width, rounding_mode="trunc")
    return flat, cell, column, row, flat.gather(-1, cell)


def _at(flat: Tensor, cell: Tensor, size: Size, offsets: list[int]) -> Tensor:
    """Values (B, K, len(offsets)) that far from the maxima; some other value where that is outside of the map."""
    return flat.gather(-1, (cell + torch.tensor(offsets)).clamp(0, size[0] * size[1] - 1))


_FAR = (
    (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (-2, 0), (0, 2), (0, -2), (1, 1), (1, -1), (-1, 1), (-1, -1),
)  # fmt: skip
"""x and y of the neighbours that DARK's differences are made from."""
_FAR_DIFFERENCES = (
    (0, 2, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 2, -2, 0, 0, 0, 0, 0, 0, 0, 0),
    (-2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0),
    (-2, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 1, -1, -1, 1),
)
"""Quarters of each neighbour in the derivatives x, y, xx, yy, xy."""
_NEAR = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1))
"""x and y of the neighbours that UDP's differences are made from."""
_NEAR_DIFFERENCES = (
    (0, 2, -2, 0, 0, 0, 0),
    (0, 0, 0, 2, -2, 0, 0),
    (-8, 4, 4, 0, 0, 0, 0),
    (-8, 0, 0, 4, 4, 0, 0),
    (4, -2, -2, -2, -2, 2, 2),
)
"""Quarters of each neighbour in the derivatives x, y, xx, yy, xy."""


def _newton(logs: Tensor, quarters: tuple[tuple[int, ...], ...], also: Tensor | None = None) -> Tensor:
    """Steps (B, K, 2), see `model_zoo.codecs._newton`; none where `also` (B, K, 1) is False."""
    differences = logs @ (torch.tensor(quarters, dtype=torch.float64).T / 4)
    dx, dy, dxx, dyy, dxy = differences.split(1, dim=-1)
    determinant = dxx * dyy - dxy * dxy
    steps = (determinant > FLAT) & (dxx < 0)
    if also is not None:
        steps = steps & also
    step = torch.cat([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1)
    step = torch.where(steps, step, 0.0) / torch.where(steps, determinant, 1.0)
    length = step.square().sum(dim=-1, keepdim=True).sqrt()
    return step * (LONGEST / length.clamp(min=LONGEST))
