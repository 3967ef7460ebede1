"""From a graph in float32 to one in 8 bits with the same input and outputs: static quantisation after training.

Activations are uint8 with one scale per tensor, weights int8 with one scale per output channel: the pair that CPUs
multiply fastest. The raw pixels are the first quantised tensor as they are. The last convolutions before an output and
all that follows them, softmax and decoding, stay in float32: a step of 1/256 of the range of the logits would be felt
in every keypoint, and they cost next to nothing. Of presence and classes, which are read from the mean over a map, it
is what follows that mean.

What is lost is mostly won back by two steps, each of which can be left out:

- bias correction: rounding moves the mean of a channel; the bias takes that back. Source: Nagel et al., ICCV 2019,
  arXiv:1906.04721, the form that measures the shifts on calibration crops, one layer after the other. (All layers at
  once would correct again in each what arrives from those before it, and does harm.)
- equalisation of channels: a convolution's output channels are divided, and the following one's input channels
  multiplied, by factors that bring channels of very different ranges together. Source: the same, with the ranges of
  the activations instead of those of the first weights, which have a scale per channel anyway (Xiao et al., ICML 2023,
  arXiv:2211.10438).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from model_zoo import bundle, codecs, geometry
from model_zoo.bundle import Bundle
from model_zoo.manifest import Accuracy, BundleManifest, Quantisation
from model_zoo.outputs import HANDEDNESS
from trainer import card, export
from trainer.data.people import Person
from trainer.errors import QuantisationError
from trainer.export import OnnxNet
from trainer.nets.further import GESTURE, PRESENCE
from trainer.progress import track

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
OPERATORS = ("Conv", "Add", "Relu", "Clip", "Resize", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
"""What is computed in 8 bits; everything else stays in float32."""
_POOLS = ("ReduceMean", "GlobalAveragePool")
"""Where a head of the whole crop begins: rounding of many cells averages out, so what is before may be in 8 bits."""
BINS = 2048
"""Of the histogram of an activation."""
STEPS = 255
"""Of a quantised activation."""
PERCENT = 99.999
"""Share of an activation's values that `percentile` keeps."""
BATCH = 8

JUMP = 1 / 16
"""Distance as a share of the crop's height from which on a keypoint is at another place altogether."""
MOST_LOST = 1.0
"""Points of PCK, AUC and accuracy that the graph in 8 bits may lose."""

Crops = NDArray[np.uint8]
Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Recipe:
    """How to quantise."""

    method: Method = "minmax"
    """Where an activation is cut off. `minmax`: nowhere; `percentile`: so that `PERCENT` of its values remain;
    `mse`: where the squared error is least."""
    corrected: bool = True
    """Whether biases are corrected."""
    equalised: bool = False
    """Whether channels are equalised."""

    def __str__(self) -> str:
        """For people."""
        steps = [self.method, "biases corrected"] if self.corrected else [self.method]
        return ", ".join([*steps, "channels equalised"] if self.equalised else steps)


AUTOMATIC = (
    Recipe("minmax"),
    Recipe("minmax", equalised=True),
    Recipe("percentile", equalised=True),
    Recipe("mse", equalised=True),
)
"""What is tried where nobody names a recipe."""


def recipes(method: Method) -> tuple[Recipe, ...]:
    """What is tried with one method."""
    return Recipe(method), Recipe(method, equalised=True)


def quantise(model: onnx.ModelProto, crops: Crops, recipe: Recipe) -> onnx.ModelProto:
    """The same graph in 8 bits.

    Args:
        model: as `trainer.graph.to_onnx` makes it. Never written to.
        crops: (N, h, w, 3) pictures like those that will be seen.
        recipe: how.

    Raises:
        QuantisationError: the graph does not begin with raw pixels, or there is nothing in it to quantise.
    """
    front = _Front.of(model)
    core = shape_inference.infer_shapes(front.without(model))
    inner = _inner(core)
    seen = _Observed(core, inner, front.pixels(crops))
    if recipe.equalised:
        _equalise(core, inner, seen)
        seen = _Observed(core, inner, front.pixels(crops))
    ranges = seen.ranges(recipe.method)
    for name, expected in seen.means.items() if recipe.corrected else ():
        rounded = _means(_quantised(core, inner, ranges, front), [name], front.pixels(crops))
        _add_to_bias(core, name, expected - rounded[name])
    result = front.put_before(_quantised(core, inner, ranges, front))
    onnx.checker.check_model(result)
    return result


def best(
    model: onnx.ModelProto, manifest: BundleManifest, crops: Crops, candidates: Sequence[Recipe] = AUTOMATIC
) -> tuple[onnx.ModelProto, Recipe, float]:
    """Quantise by every recipe, and keep the graph whose keypoints lie nearest to those of the graph in float32.

    Every other crop is calibrated on, and those in between are compared on.

    Returns:
        The graph, its recipe, and its `shift_px`.
    """
    calibrated, compared = crops[0::2], crops[1::2] if len(crops) > 1 else crops
    expected = keypoints(OnnxNet(model.SerializeToString()), manifest, compared)
    tried, most_px = [], JUMP * manifest.input.height
    for recipe in track(candidates, "Quantising"):
        quantised = quantise(model, calibrated, recipe)
        found = keypoints(OnnxNet(quantised.SerializeToString()), manifest, compared)
        tried.append((quantised, recipe, shift_px(expected, found, most_px)))
    return min(tried, key=lambda each: each[2])


def keypoints(net: OnnxNet, manifest: BundleManifest, crops: Crops) -> NDArray[np.floating[Any]]:
    """(N, K, 3): x and y in pixels of the crops, and score."""
    batches = [crops[at : at + BATCH] for at in range(0, len(crops), BATCH)]
    if manifest.keypoints_output is not None:
        return np.concatenate([net.keypoints(batch) for batch in batches])
    decode = codecs.decoder(manifest.codec.decoder)
    cells, scores = decode(np.concatenate([net(batch) for batch in batches]), manifest.codec)
    points = geometry.cells_to_pixels(cells, manifest.heatmaps.stride)
    return np.concatenate([points, scores[..., None]], axis=-1)


def shift_px(expected: NDArray[np.floating[Any]], found: NDArray[np.floating[Any]], most_px: float) -> float:
    """Mean distance in crop pixels between (N, K, 3) keypoints, weighted by the expected scores.

    One that jumps to another place altogether counts as `most_px`, so that a few do not hide what the others do.
    """
    distances = np.linalg.norm(found[..., :2] - expected[..., :2], axis=-1)
    weights = np.maximum(expected[..., 2], 1e-6)
    return float((np.minimum(distances, most_px) * weights).sum() / weights.sum())


def add_to(
    found: Bundle,
    quantised: onnx.ModelProto,
    facts: Quantisation,
    measured: dict[str, list[Person]],
    root: Path,
    version: str,
    *,
    replace: bool,
    force: bool,
) -> Bundle:
    """Write a bundle with both graphs, after measuring both.

    Args:
        found: the bundle to add to.
        quantised: its graph in 8 bits.
        facts: how that was made.
        measured: people by name of the set, for the model card.
        root: folder of bundles to write to.
        version: of the written bundle.
        replace: whether it may exist already.
        force: whether to write it however much is lost.

    Raises:
        QuantisationError: 8 bits lose more than `MOST_LOST` points on a set.
        BundleExists: the version exists, and `replace` was not asked for.
    """
    model = onnx.load(found.model_path)
    named = found.manifest.model_copy(update={"version": version})
    before = export.accuracy(OnnxNet(found.model_path), named, measured)
    after = export.accuracy(OnnxNet(quantised.SerializeToString()), named, measured, "int8")
    if (loss := _loss(before, after)) and not force:
        raise QuantisationError(f"{loss}; at most {MOST_LOST:g} is accepted, so nothing was written")
    others = tuple(
        each for each in found.manifest.accuracy if each.data not in measured and each.precision == "fp32"
    )
    manifest = BundleManifest.model_validate(
        named.model_dump()
        | {
            "files": {},
            "latency": [each for each in named.latency if each.precision == "fp32"],
            "int8_file": f"{Path(named.model_file).stem}.int8.onnx",
            "accuracy": (*others, *before, *after),
            "quantisation": facts,
        }
    )
    kept = {name: (found.folder / name).read_bytes() for name in found.manifest.files}
    kept.pop(found.manifest.int8_file, None)
    files = kept | {
        manifest.model_file: export.described(model, manifest),
        manifest.int8_file: export.described(quantised, manifest),
        "README.md": card.text(manifest).encode(),
    }
    return bundle.write(root, manifest, files, replace=replace)


def _loss(before: tuple[Accuracy, ...], after: tuple[Accuracy, ...]) -> str:
    """In words, the greatest loss of PCK, AUC or accuracy if it is more than `MOST_LOST`; empty otherwise."""
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if _is_limited(a.metric)]
    lost, a, b = max(
        ((a.value - b.value, a, b) for a, b in pairs), key=lambda x: x[0], default=(0.0, None, None)
    )
    if lost <= MOST_LOST:
        return ""
    return f"8 bits lose {lost:.1f} points of {a.metric} on {a.data} ({a.value:.1f} to {b.value:.1f})"


def _is_limited(metric: str) -> bool:
    return metric.startswith("PCK@") or metric.endswith((" AUC", " accuracy"))


@dataclass(frozen=True)
class _Front:
    """The first two nodes: Transpose of the pixels, DequantizeLinear to the net's numbers."""

    nodes: tuple[onnx.NodeProto, onnx.NodeProto]
    taken: onnx.ValueInfoProto
    scale: np.float32
    mean: np.uint8

    @property
    def output(self) -> str:
        return self.nodes[1].output[0]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Front:
        nodes = list(model.graph.node[:2])
        if [each.op_type for each in nodes] != ["Transpose", "DequantizeLinear"]:
            raise QuantisationError(
                "the graph does not begin with the normalisation of raw pixels: export it again"
            )
        constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        scale, mean = (constants[name] for name in nodes[1].input[1:3])
        return cls((nodes[0], nodes[1]), model.graph.input[0], np.float32(scale), np.uint8(mean))

    def without(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the graph that takes normalised planes."""
        core = copy.deepcopy(model)
        del core.graph.node[:2]
        for each in [each for each in core.graph.initializer if each.name in self.nodes[1].input]:
            core.graph.initializer.remove(each)
        height, width, channels = (each.dim_value for each in self.taken.type.tensor_type.shape.dim[1:])
        planes = helper.make_tensor_value_info(self.output, TensorProto.FLOAT, ["N", channels, height, width])
        core.graph.input[0].CopyFrom(planes)
        return core

    def pixels(self, crops: Crops) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Inputs of the graph without its front, batch by batch."""
        for at in range(0, len(crops), BATCH):
            planes = crops[at : at + BATCH].transpose(0, 3, 1, 2).astype(np.float32)
            yield {self.output: np.ascontiguousarray((planes - np.float32(self.mean)) * self.scale)}

    def put_before(self, quantised: onnx.ModelProto) -> onnx.ModelProto:
        """The quantised graph with pixels in the place of the planes that it quantises first."""
        model = copy.deepcopy(quantised)
        graph = model.graph
        (first,) = (each for each in graph.node if self.output in each.input)
        (second,) = (each for each in graph.node if first.output[0] in each.input)
        second.input[:] = [self.nodes[0].output[0], *self.nodes[1].input[1:]]
        for name, value in zip(self.nodes[1].input[1:], (self.scale, self.mean), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        graph.node.remove(first)
        graph.node.insert(0, self.nodes[0])
        graph.input[0].CopyFrom(self.taken)
        used = {name for node in graph.node for name in node.input}
        for each in [each for each in graph.initializer if each.name not in used]:
            graph.initializer.remove(each)
        del graph.value_info[:]
        return model


def _inner(core: onnx.ModelProto) -> set[str]:
    """Outputs of the nodes to quantise: of the known operators, and before the last convolutions."""
    makers = {name: node for node in core.graph.node for name in node.output}
    names = {each.name for each in core.graph.output}
    pooled = names & {PRESENCE, GESTURE, HANDEDNESS}
    tail = _before(names - pooled, makers, ("Conv",)) | _before(pooled, makers, ("Conv", *_POOLS))
    inner = {n.output[0] for n in core.graph.node if n.op_type in OPERATORS and n.output[0] not in tail}
    if not any(makers[name].op_type == "Conv" for name in inner):
        raise QuantisationError(
            "the graph has no convolution to quantise, but for the last one before an output"
        )
    return inner


def _before(outputs: set[str], makers: dict[str, onnx.NodeProto], until: tuple[str, ...]) -> set[str]:
    """Tensors on the way to these outputs, back to the first node of such a kind on every path, and with it."""
    found: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name in makers and name not in found:
            found.add(name)
            waiting += [] if makers[name].op_type in until else makers[name].input
    return found


def _is_map(tensor: onnx.ValueInfoProto) -> bool:
    return len(tensor.type.tensor_type.shape.dim) == len("NCHW")


class _Observed:
    """What the activations of a graph that are written or read in 8 bits look like on the calibration crops."""

    def __init__(
        self, core: onnx.ModelProto, inner: set[str], batches: Iterable[dict[str, NDArray[np.float32]]]
    ) -> None:
        batches = list(batches)
        read = {name for node in core.graph.node if node.output[0] in inner for name in node.input}
        maps = {each.name for each in (*core.graph.value_info, *core.graph.input) if _is_map(each)}
        names = sorted(inner | (read & maps))
        self._low, self._high = _extremes(core, names, batches)
        convolutions = [n.name for n in core.graph.node if n.op_type == "Conv" and len(n.input) > 2]
        self.means = _means(core, convolutions, batches)
        """Mean of every channel of every convolution with a bias, by name of the node, in the graph's order."""
        self._histograms = {name: np.zeros(BINS, np.int64) for name in names}
        session = _session(_answering(core, names))
        for batch in batches:
            for name, values in zip(names, session.run(names, batch), strict=True):
                counts, _ = np.histogram(values, BINS, self._span(name))
                self._histograms[name] += counts

    def channel_peaks(self, name: str) -> NDArray[np.float32]:
        """Largest value of every channel."""
        return np.maximum(self._high[name], -self._low[name])

    def ranges(self, method: Method) -> Ranges:
        """Lowest and highest value of every activation that are kept."""
        return {name: self._range(name, method) for name in self._histograms}

    def _span(self, name: str) -> tuple[float, float]:
        low, high = min(float(self._low[name].min()), 0.0), max(float(self._high[name].max()), 0.0)
        return low, high if high > low else low + 1e-6

    def _range(self, name: str, method: Method) -> tuple[float, float]:
        low, high = self._span(name)
        if method == "minmax":
            return low, high
        counts = self._histograms[name]
        edges = np.linspace(low, high, BINS + 1)
        if method == "percentile":
            share, cut = counts.cumsum() / counts.sum(), (1 - PERCENT / 100) / (2 if low < 0 else 1)
            first = np.searchsorted(share, cut) if low < 0 else 0
            return min(edges[first], 0.0), max(edges[np.searchsorted(share, 1 - cut) + 1], 0.0)
        candidates = [(low * part, high * part) for part in np.linspace(0.2, 1.0, 81)]
        return min(candidates, key=lambda kept: _squared_error(counts, edges, kept))


def _squared_error(counts: NDArray[np.int64], edges: NDArray[np.float64], kept: tuple[float, float]) -> float:
    """Squared error of cutting at `kept` and rounding."""
    values = (edges[:-1] + edges[1:]) / 2
    cut = np.clip(values, *kept)
    rounding = ((kept[1] - kept[0]) / STEPS) ** 2 / 12
    return float((counts * (np.square(values - cut) + rounding * (values == cut))).sum())


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _answering(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of the graph with these tensors among its outputs."""
    known = {each.name for each in model.graph.output}
    opened = copy.deepcopy(model)
    opened.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known
    )
    return opened


def _extremes(
    core: onnx.ModelProto, names: list[str], batches: list[dict[str, NDArray[np.float32]]]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Lowest and highest value of each channel of these tensors."""
    reduced = copy.deepcopy(core)
    wanted = []
    for name in names:
        for kind in ("ReduceMin", "ReduceMax"):
            wanted.append(f"{name}/{kind}")
            reduced.graph.node.append(
                helper.make_node(kind, [name], [wanted[-1]], axes=[0, 2, 3], keepdims=0)
            )
    session = _session(_answering(reduced, wanted))
    runs = [session.run(wanted, batch) for batch in batches]
    low = {name: np.min([run[2 * i] for run in runs], axis=0) for i, name in enumerate(names)}
    high = {name: np.max([run[2 * i + 1] for run in runs], axis=0) for i, name in enumerate(names)}
    return low, high


def _means(
    model: onnx.ModelProto, names: list[str], batches: Iterable[dict[str, NDArray[np.float32]]]
) -> dict[str, NDArray[np.float64]]:
    """Mean of every channel of the nodes of these names."""
    reduced = copy.deepcopy(model)
    wanted = [f"{name}/mean" for name in names]
    outputs = {node.name: node.output[0] for node in model.graph.node}
    for name, mean in zip(names, wanted, strict=True):
        node = helper.make_node("ReduceMean", [outputs[name]], [mean], axes=[0, 2, 3], keepdims=0)
        reduced.graph.node.append(node)
    session, only = _session(_answering(reduced, wanted)), onnxruntime.RunOptions()
    only.only_execute_path_to_fetches = True
    total, sums = 0, dict.fromkeys(names, np.float64(0))
    for batch in batches:
        size = len(next(iter(batch.values())))
        total += size
        for name, mean in zip(names, session.run(wanted, batch, only), strict=True):
            sums[name] = sums[name] + size * mean.astype(np.float64)
    return {name: each / total for name, each in sums.items()}


def _quantised(core: onnx.ModelProto, inner: set[str], ranges: Ranges, front: _Front) -> onnx.ModelProto:
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    first = {"scale": np.array(front.scale, np.float32), "zero_point": np.array(front.mean, np.uint8)}
    quantizer = QDQQuantizer(
        copy.deepcopy(core),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[node.name for node in core.graph.node if node.output[0] in inner],
        nodes_to_exclude=[],
        op_types_to_quantize=list(OPERATORS),
        extra_options={"TensorQuantOverrides": {front.output: [first]}},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {each.name: each for each in model.graph.initializer}


def _scaled(constant: onnx.TensorProto, factors: NDArray[np.floating], axis: int) -> None:
    array = numpy_helper.to_array(constant)
    shape = [1] * array.ndim
    shape[axis] = -1
    constant.CopyFrom(
        numpy_helper.from_array((array * factors.reshape(shape)).astype(np.float32), constant.name)
    )


def _add_to_bias(core: onnx.ModelProto, node: str, change: NDArray[np.float64]) -> None:
    (convolution,) = (each for each in core.graph.node if each.name == node)
    bias = _constants(core)[convolution.input[2]]
    corrected = numpy_helper.to_array(bias) + change.astype(np.float32)
    bias.CopyFrom(numpy_helper.from_array(corrected, bias.name))


def _equalise(core: onnx.ModelProto, inner: set[str], seen: _Observed) -> None:
    """Equalise the channels between every two convolutions that have a ReLU and nothing else between them."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in core.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = _constants(core)
    for before in core.graph.node:
        if before.op_type != "Conv" or before.output[0] not in inner:
            continue
        (relu, *others) = readers.get(before.output[0], [before])
        after = readers.get(relu.output[0], [])
        if others or relu.op_type != "Relu" or not after or any(each.op_type != "Conv" for each in after):
            continue
        kernels = [numpy_helper.to_array(constants[each.input[1]]) for each in after]
        channels = len(seen.channel_peaks(relu.output[0]))
        if any(each.shape[1] != channels for each in kernels):
            continue  # grouped
        weights = np.max([np.abs(each).max(axis=(0, 2, 3)) for each in kernels], axis=0)
        peaks = seen.channel_peaks(relu.output[0])
        alive = (peaks > 0) & (weights > 0)
        factors = np.sqrt(np.where(alive, peaks, 1) / np.where(alive, weights, 1))
        factors = np.where(alive, factors / np.exp(np.log(factors[alive]).mean()), 1).clip(1 / 16, 16)
        for name in before.input[1:3]:
            _scaled(constants[name], 1 / factors, 0)
        for each in after:
            _scaled(constants[each.input[1]], factors, 1)
