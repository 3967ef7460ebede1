"""Put calibration into a graph: an affine map of the log-odds before the sigmoid or softmax that an output ends with.

Scores of keypoints have no such last step; their log-odds are taken, mapped and made probabilities again behind what
the graph answers. What was put in is found again by its name, so that a graph can be calibrated anew.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from model_zoo.manifest import SCORES, BundleManifest
from model_zoo.outputs import HANDEDNESS, ClassesOutput
from model_zoo.scores import SMALLEST
from trainer.errors import ExportError
from trainer.reliability import Affine


def calibrated(
    model: onnx.ModelProto, manifest: BundleManifest, maps: Mapping[str, Affine]
) -> onnx.ModelProto:
    """A copy of a graph whose probabilities went through these maps, and through none that it had for the same ones.

    Args:
        model: as `trainer.export.to_onnx` or `trainer.quantise` makes it, calibrated before or not.
        manifest: of its outputs.
        maps: by name of an output of presence or classes, or `SCORES`.

    Raises:
        ExportError: an output does not end as those of our graphs do.
    """
    model = copy.deepcopy(model)
    for name, affine in maps.items():
        if name == SCORES:
            if manifest.keypoints_output is not None:
                _calibrate_scores(model.graph, manifest.keypoints_output.name, affine)
        else:
            _calibrate_output(model.graph, name, affine, _signs(manifest, name))
    onnx.checker.check_model(model, full_check=True)
    return model


def _signs(manifest: BundleManifest, name: str) -> list[float]:
    """How the shift counts for each number of an output; of a pair of hands, against each other."""
    output = next(each for each in manifest.outputs if each.name == name)
    if isinstance(output, ClassesOutput):
        return [1.0, -1.0] if output.of == HANDEDNESS else [0.0] * len(output.labels)
    return [1.0]


def _calibrate_output(graph: onnx.GraphProto, name: str, affine: Affine, signs: list[float]) -> None:
    shifts = affine.shift * np.array(signs)
    if _overwritten(graph, name, affine.scale, shifts):
        return
    last = _maker(graph, name)
    if last.op_type not in ("Sigmoid", "Softmax"):
        raise ExportError(
            f"output {name} ends with {last.op_type}: only a Sigmoid or Softmax can be calibrated"
        )
    scale, shift = _constants(graph, name, affine.scale, shifts)
    nodes = [
        helper.make_node("Mul", [last.input[0], scale], [f"{name}/scaled"]),
        helper.make_node("Add", [f"{name}/scaled", shift], [f"{name}/calibrated"]),
    ]
    _insert_before(graph, last, nodes)
    last.input[0] = f"{name}/calibrated"


def _calibrate_scores(graph: onnx.GraphProto, output: str, affine: Affine) -> None:
    if _overwritten(graph, SCORES, affine.scale, np.array([affine.shift])):
        return
    last = _maker(graph, output)
    last.output[0] = f"{output}/raw"
    scale, shift = _constants(graph, SCORES, affine.scale, np.array([affine.shift]))
    bounds = {
        f"{SCORES}/from": np.array([2]), f"{SCORES}/to": np.array([3]), f"{SCORES}/zero": np.array([0]),
        f"{SCORES}/axis": np.array([2]), f"{SCORES}/low": np.float32(SMALLEST),
        f"{SCORES}/high": np.float32(1 - SMALLEST), f"{SCORES}/one": np.float32(1),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(np.asarray(each), key) for key, each in bounds.items())

    def named(step: str) -> str:
        return f"{SCORES}/{step}"

    graph.node.extend(
        [
            helper.make_node(
                "Slice", [f"{output}/raw", named("zero"), named("from"), named("axis")], [named("points")]
            ),
            helper.make_node(
                "Slice", [f"{output}/raw", named("from"), named("to"), named("axis")], [named("own")]
            ),
            helper.make_node("Clip", [named("own"), named("low"), named("high")], [named("inside")]),
            helper.make_node("Sub", [named("one"), named("inside")], [named("rest")]),
            helper.make_node("Div", [named("inside"), named("rest")], [named("ratio")]),
            helper.make_node("Log", [named("ratio")], [named("odds")]),
            helper.make_node("Mul", [named("odds"), scale], [named("scaled")]),
            helper.make_node("Add", [named("scaled"), shift], [named("calibrated")]),
            helper.make_node("Sigmoid", [named("calibrated")], [named("probabilities")]),
            helper.make_node("Concat", [named("points"), named("probabilities")], [output], axis=2),
        ]
    )


def _constants(graph: onnx.GraphProto, name: str, scale: float, shifts: np.ndarray) -> tuple[str, str]:
    names = (f"{name}/scale", f"{name}/shift")
    for key, value in zip(names, (np.array([scale]), shifts), strict=True):
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), key))
    return names


def _overwritten(graph: onnx.GraphProto, name: str, scale: float, shifts: np.ndarray) -> bool:
    """Whether the graph has such a map already; then it has these numbers now."""
    new = {f"{name}/scale": np.array([scale]), f"{name}/shift": shifts}
    there = [each for each in graph.initializer if each.name in new]
    for each in there:
        each.CopyFrom(numpy_helper.from_array(new[each.name].astype(np.float32), each.name))
    return bool(there)


def _maker(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    for node in graph.node:
        if name in node.output:
            return node
    raise ExportError(f"the graph makes no output {name}")


def _insert_before(graph: onnx.GraphProto, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
    at = next(index for index, each in enumerate(graph.node) if each.output[0] == node.output[0])
    for offset, each in enumerate(nodes):
        graph.node.insert(at + offset, each)
