"""From a trained run to a bundle: fuse a copy, write ONNX, compare all three nets on real crops, write the folder.

The graph takes raw pixels, (N, h, w, 3) uint8, and normalises them itself by Transpose and DequantizeLinear, which is
exactly (pixel - mean) / scale and lets a quantised net start from the pixels as they are. It answers heatmaps whose
best possible peak is 1. The manifest stands in the graph's metadata too.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError
from torch import Tensor, nn

from model_zoo import bundle, codecs, geometry, skeletons
from model_zoo.manifest import (
    Accuracy,
    BundleManifest,
    DataSet,
    HeatmapOutput,
    InputSpec,
    Normalisation,
    Training,
)
from trainer import card, evaluate
from trainer.checkpoint import RunFolder
from trainer.config import RunConfig
from trainer.data.people import Person
from trainer.errors import ExportError
from trainer.loop import Torch
from trainer.nets.pose import OUTPUT_STRIDE, PoseNet, heatmaps, multiply_adds
from trainer.nets.repvgg import deployed

OPSET = 17
INPUT, OUTPUT = "images", "heatmaps"
TOLERANCE = 1e-3
"""Largest difference between heatmaps of the three nets; their peak is 1."""
TOLERANCE_PX = 0.05
"""Largest difference between keypoints of the three nets, in crop pixels, where the heatmap is sure of them."""
SURE = 0.3
"""Score from which a keypoint takes part in the comparison of positions: a flat map has no steady maximum."""


class OnnxNet:
    """An exported graph as `evaluate.Net`, on one thread.

    Args:
        model: path of the file, or its bytes.
    """

    def __init__(self, model: Path | bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        source = model if isinstance(model, bytes) else str(model)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) raw crops -> (B, K, H, W) heatmaps."""
        return self._session.run([OUTPUT], {INPUT: images})[0]


@dataclass(frozen=True)
class Difference:
    """How far a net is from the one that was trained, on the same crops."""

    net: str
    heatmap: float
    """Largest absolute difference of the maps."""
    points_px: float
    """Largest distance of sure keypoints, in crop pixels."""


def trained_net(folder: RunFolder) -> PoseNet:
    """The averaged weights of a run, in training form and evaluation mode."""
    config = folder.config()
    net = PoseNet(config.net, len(skeletons.skeleton(config.skeleton)))
    net.load_state_dict(folder.load_checkpoint()["average"])
    return net.eval()


def to_onnx(net: nn.Module, config: RunConfig) -> onnx.ModelProto:
    """The deployed graph of a net: raw pixels in, heatmaps out, dynamic batch.

    Raises:
        ExportError: the mean is no whole number from 0 to 255, so pixels cannot be normalised exactly in the graph.
    """
    height, width = config.phases[-1].size
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is the older of torch's two; it needs no further package and is ten times faster.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            _WithHeatmaps(deployed(net).eval(), config),
            (torch.zeros(2, 3, height, width),),
            stream,
            input_names=["normalised"],
            output_names=[OUTPUT],
            dynamic_axes={"normalised": {0: "N"}, OUTPUT: {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(stream.getvalue())
    _prepend_normalisation(model, config.normalisation, (height, width))
    onnx.checker.check_model(model, full_check=True)
    return model


def compare(net: nn.Module, model: bytes, config: RunConfig, images: NDArray[np.uint8]) -> list[Difference]:
    """Run trained, fused and exported net on the same (N, h, w, 3) crops; says how far the last two are from the first.

    Raises:
        ExportError: a difference beyond `TOLERANCE` or `TOLERANCE_PX`.
    """
    cpu = torch.device("cpu")
    expected = Torch(net, config, cpu)(images)
    decode = codecs.decoder(config.codec.decoder)
    points, scores = decode(expected, config.codec)
    if not (sure := scores >= SURE).any():
        sure = scores >= scores.max()  # a net that is sure of nothing is compared where it is surest
    differences = []
    for name, other in (("fused", Torch(deployed(net), config, cpu)), ("ONNX Runtime", OnnxNet(model))):
        maps = other(images)
        moved = np.linalg.norm(decode(maps, config.codec)[0] - points, axis=-1)[sure] * OUTPUT_STRIDE
        differences.append(Difference(name, float(np.abs(maps - expected).max()), float(moved.max())))
    for each in differences:
        if not (each.heatmap <= TOLERANCE and each.points_px <= TOLERANCE_PX):
            raise ExportError(
                f"the {each.net} net differs from the trained one by {each.heatmap:.2g} in its heatmaps "
                f"and {each.points_px:.2g} px; at most {TOLERANCE} and {TOLERANCE_PX} px are accepted"
            )
    return differences


def export(
    folder: RunFolder,
    root: Path,
    version: str,
    crops: NDArray[np.uint8],
    measured: dict[str, list[Person]],
    *,
    replace: bool = False,
) -> tuple[bundle.Bundle, list[Difference]]:
    """Write `<root>/<name>/<version>/` from a run, with the accuracy of the exported graph itself.

    Args:
        folder: the run.
        root: folder of bundles.
        version: of the new bundle.
        crops: (N, h, w, 3) real crops for the comparison.
        measured: people by set name; the card says how well the graph does on each.
        replace: whether the version may exist already.

    Raises:
        ExportError: the three nets disagree, or the manifest cannot be written from the run.
        CheckpointError: the folder holds no run, or one without a finished epoch.
        BundleExists: the version exists and `replace` was not asked for.
    """
    config = folder.config()
    net = trained_net(folder)
    model = to_onnx(net, config)
    try:
        draft = _manifest(folder, config, net, version)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise ExportError(f"{where}: {first['msg']}, got {first['input']!r}") from error
    plain = model.SerializeToString()
    differences = compare(net, plain, config, crops)
    accuracy = []
    for name, people in measured.items():
        command = f"reppose-train evaluate {config.name}@{version} --data DATA --on {name}.json"
        for score in evaluate.scores(OnnxNet(plain), people, draft, draft.codec.decoder):
            accuracy.append(
                Accuracy(
                    data=name,
                    metric=score.metric,
                    value=round(score.value, 2),
                    people=score.people,
                    decoder=draft.codec.decoder,
                    command=command,
                )
            )
    manifest = draft.model_copy(update={"accuracy": tuple(accuracy)})
    for key, value in bundle.metadata_of(manifest).items():
        helper.set_model_props(model, {key: value})
    files = {
        manifest.model_file: model.SerializeToString(),
        "README.md": card.text(manifest, differences).encode(),
    }
    return bundle.write(root, manifest, files, replace=replace), differences


class _WithHeatmaps(nn.Module):
    """The net and the step from its logits to heatmaps."""

    def __init__(self, net: nn.Module, config: RunConfig) -> None:
        super().__init__()
        self.net, self.config = net, config

    def forward(self, x: Tensor) -> Tensor:
        return heatmaps(self.net(x), self.config.net.head, self.config.codec.sigma_cells)


def _prepend_normalisation(model: onnx.ModelProto, how: Normalisation, size: tuple[int, int]) -> None:
    """Replace the input by raw pixels, (N, h, w, 3) uint8."""
    if how.mean != int(how.mean) or not 0 <= how.mean <= 255:
        raise ExportError(f"normalisation.mean must be a whole number from 0 to 255, got {how.mean}")
    graph = model.graph
    inner = graph.input[0].name
    graph.initializer.append(numpy_helper.from_array(np.array(1 / how.scale, np.float32), "pixel_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(how.mean, np.uint8), "pixel_mean"))
    graph.node.insert(0, helper.make_node("Transpose", [INPUT], ["planes"], perm=[0, 3, 1, 2]))
    graph.node.insert(
        1, helper.make_node("DequantizeLinear", ["planes", "pixel_scale", "pixel_mean"], [inner])
    )
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", *size, 3]))


def _manifest(folder: RunFolder, config: RunConfig, net: PoseNet, version: str) -> BundleManifest:
    height, width = config.phases[-1].size
    facts, state = folder.facts(), folder.load_checkpoint()
    plain = deployed(net)
    return BundleManifest(
        name=config.name,
        version=version,
        description=config.description,
        licence=config.licence,
        skeleton=config.skeleton,
        keypoints=skeletons.skeleton(config.skeleton).keypoints,
        pixel_convention=geometry.PIXEL_CONVENTION,
        input=InputSpec(name=INPUT, height=height, width=width, padding=config.padding),
        normalisation=config.normalisation,
        outputs=(
            HeatmapOutput(
                name=OUTPUT,
                height=height // OUTPUT_STRIDE,
                width=width // OUTPUT_STRIDE,
                stride=OUTPUT_STRIDE,
            ),
        ),
        codec=config.codec,
        macs=multiply_adds(plain, (height, width)),
        parameters=sum(each.numel() for each in plain.parameters()),
        opset=OPSET,
        training=Training(
            command=facts["command"],
            config=config.model_dump(mode="json"),
            seed=config.seed,
            epochs=state["epoch"],
            hours=round(sum(row["seconds"] for row in state["history"]) / 3600, 2),
            hardware=facts["hardware"],
            started=facts["started"],
            versions=facts["versions"],
            data=tuple(
                DataSet(name=source.annotations.stem, people=people, licence=source.licence)
                for source, people in zip(config.data.train, facts["people"], strict=True)
            ),
        ),
    )


def run_as_net(folder: RunFolder) -> tuple[Torch, BundleManifest]:
    """The averaged weights of a run as `evaluate.Net`, with the manifest that its export would have."""
    config, net = folder.config(), trained_net(folder)
    return Torch(net, config, torch.device("cpu")), _manifest(folder, config, net, "run")
