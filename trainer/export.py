"""From a trained run to a bundle: fuse a copy, write ONNX, compare all three nets on real crops, write the folder.

The graph takes raw pixels and answers heatmaps whose best possible peak is 1 and, where the decoder can be in the
graph, see `trainer.graph`, the keypoints in them as well. Who asks for one of the two pays for no more than that. A net
whose head answers keypoints gives those alone. The manifest stands in the graph's metadata too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper
from pydantic import ValidationError
from torch import Tensor, nn

from model_zoo import bundle, geometry, skeletons
from model_zoo.manifest import (
    Accuracy,
    Agreement,
    BundleManifest,
    DataSet,
    HeatmapOutput,
    InputSpec,
    KeypointsOutput,
    Output,
    Precision,
    Training,
    schema_of,
)
from trainer import agreement, card, evaluate, graph
from trainer.checkpoint import RunFolder
from trainer.config import RunConfig
from trainer.data.people import Person
from trainer.errors import CheckpointError, ExportError
from trainer.graph import INPUT, OPSET
from trainer.nets import answers, build, further
from trainer.nets.build import HeadedNet
from trainer.nets.pose import MAP_HEADS, heatmaps, multiply_adds
from trainer.nets.repvgg import deployed
from trainer.nets.served import Torch

OUTPUT, KEYPOINTS = "heatmaps", "keypoints"

Calibrated = tuple[onnx.ModelProto, BundleManifest]
"""A graph whose probabilities come true, and the manifest that says so."""


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
        self._options = onnxruntime.RunOptions()
        self._options.only_execute_path_to_fetches = True

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) raw crops -> (B, K, H, W) heatmaps."""
        return self._run(OUTPUT, images)

    def keypoints(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) raw crops -> (B, K, 3): x and y in crop pixels, and score; of a graph that answers them."""
        return self._run(KEYPOINTS, images)

    def further(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """(B, h, w, 3) raw crops -> what the graph answers beside heatmaps and keypoints, by name."""
        names = [each.name for each in self._session.get_outputs() if each.name not in (OUTPUT, KEYPOINTS)]
        return dict(zip(names, self._session.run(names, {INPUT: images}), strict=True)) if names else {}

    def served(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """(B, h, w, 3) raw crops -> all that the service asks for, by name: heatmaps only where no keypoints are."""
        names = [each.name for each in self._session.get_outputs()]
        if KEYPOINTS in names:
            names = [name for name in names if name != OUTPUT]
        return dict(zip(names, self._session.run(names, {INPUT: images}, self._options), strict=True))

    def _run(self, output: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._session.run([output], {INPUT: images}, self._options)[0]


def trained_net(folder: RunFolder) -> HeadedNet:
    """The averaged weights of a run without what only its training needed, in training form and evaluation mode.

    Raises:
        CheckpointError: the run has no finished epoch, or no checkpoint that can be read.
    """
    net, state = build.plain(folder.config()), folder.load_checkpoint()
    if not state["epoch"]:
        raise CheckpointError(f"{folder.path} has no finished epoch yet")
    net.load_state_dict(state.get("plain", state["average"]))
    return net.eval()


def to_onnx(net: nn.Module, config: RunConfig) -> onnx.ModelProto:
    """The deployed graph of a net: raw pixels in, heatmaps, keypoints and what further heads say out, dynamic batch.

    Raises:
        ExportError: the mean is no whole number from 0 to 255, so pixels cannot be normalised exactly in the graph.
    """
    served = (_Served if config.net.head in MAP_HEADS else _ServedKeypoints)(deployed(net), config)
    return graph.to_onnx(served, served.outputs, config.normalisation, config.phases[-1].size)


def compare(net: nn.Module, model: bytes, config: RunConfig, images: NDArray[np.uint8]) -> list[Agreement]:
    """Run trained, fused and exported net on the same (N, h, w, 3) crops; says how far the others are from the first.

    Keypoints that the graph decodes itself are compared with those of `model_zoo.codecs` from the graph's own heatmaps.

    Raises:
        ExportError: a difference beyond the tolerances of `agreement`.
    """
    cpu = torch.device("cpu")
    trained, fused = Torch(net, config, cpu), Torch(deployed(net), config, cpu)
    found = agreement.measure(trained, {"fused": fused, "ONNX Runtime": OnnxNet(model)}, config, images)
    agreement.check(found)
    return found


def export(
    folder: RunFolder,
    root: Path,
    version: str,
    crops: NDArray[np.uint8],
    measured: dict[str, list[Person]],
    *,
    replace: bool = False,
    calibrate: Callable[[onnx.ModelProto, BundleManifest], Calibrated] | None = None,
) -> bundle.Bundle:
    """Write `<root>/<name>/<version>/` from a run, with the accuracy of the exported graph itself.

    Args:
        folder: the run.
        root: folder of bundles.
        version: of the new bundle.
        crops: (N, h, w, 3) real crops for the comparison.
        measured: people by set name; the card says how well the graph does on each.
        replace: whether the version may exist already.
        calibrate: see `calibrate.on`; None leaves probabilities as the net learnt them.

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
    agreed = compare(net, plain, config, crops)
    if calibrate is not None:
        model, draft = calibrate(model, draft)
        plain = model.SerializeToString()
    manifest = draft.model_copy(
        update={"agreement": tuple(agreed), "accuracy": accuracy(OnnxNet(plain), draft, measured)}
    )
    files = {manifest.model_file: described(model, manifest), "README.md": card.text(manifest).encode()}
    return bundle.write(root, manifest, files, replace=replace)


def accuracy(
    net: OnnxNet, manifest: BundleManifest, measured: dict[str, list[Person]], precision: Precision = "fp32"
) -> tuple[Accuracy, ...]:
    """How well a bundle's graph does on each set, with the command that prints the same."""
    decoder = None if manifest.heatmaps is None else manifest.codec.decoder
    option = "" if precision == "fp32" else f" --precision {precision}"
    return tuple(
        Accuracy(
            data=name,
            metric=score.metric,
            value=round(score.value, 2),
            people=score.people,
            decoder=decoder or "none",
            command=f"reppose-train evaluate {manifest.name}@{manifest.version} --data DATA --on {name}.json{option}",
            precision=precision,
        )
        for name, people in measured.items()
        for score in evaluate.scores(net, people, manifest, decoder)
    )


def described(model: onnx.ModelProto, manifest: BundleManifest) -> bytes:
    """The graph as a file that carries its manifest."""
    helper.set_model_props(model, bundle.metadata_of(manifest))
    return model.SerializeToString()


class _Served(nn.Module):
    """A net with heatmaps, and the steps from its logits to what the graph answers."""

    def __init__(self, net: nn.Module, config: RunConfig) -> None:
        super().__init__()
        self.net, self.config = net, config
        height, width = (side // config.net.stride for side in config.phases[-1].size)
        decode = graph.decoder(config.codec)
        self.keypoints = decode and graph.Keypoints(decode, (height, width), config.net.stride)
        self.outputs = (OUTPUT, *((KEYPOINTS,) if decode else ()), *further.names(config))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found, config = self.net(x), self.config
        maps = heatmaps(found["heatmaps"], config.net.head, config.codec.sigma_cells)
        points = () if self.keypoints is None else (self.keypoints(maps),)
        return maps, *points, *further.served(found, config, config.phases[-1].size)


class _ServedKeypoints(nn.Module):
    """A net that answers keypoints, as the graph gives them."""

    def __init__(self, net: nn.Module, config: RunConfig) -> None:
        super().__init__()
        self.net, self.config = net, config
        self.outputs = (KEYPOINTS, *further.names(config))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found, config, size = self.net(x), self.config, self.config.phases[-1].size
        points = answers.served(found, config.net, config.codec, size)
        return points, *further.served(found, config, size)


def _manifest(folder: RunFolder, config: RunConfig, net: HeadedNet, version: str) -> BundleManifest:
    height, width = config.phases[-1].size
    facts, state = folder.facts(), folder.load_checkpoint()
    plain = deployed(net)
    return BundleManifest(
        schema_version=schema_of(_outputs(config)),
        name=config.name,
        version=version,
        description=config.description,
        licence=config.licence,
        skeleton=config.skeleton,
        keypoints=skeletons.skeleton(config.skeleton).keypoints,
        pixel_convention=geometry.PIXEL_CONVENTION,
        input=InputSpec(name=INPUT, height=height, width=width, padding=config.padding),
        normalisation=config.normalisation,
        outputs=_outputs(config),
        codec=config.codec if config.net.head in MAP_HEADS else None,
        macs=multiply_adds(plain, (height, width)),
        parameters=sum(each.numel() for each in plain.parameters()),
        opset=OPSET,
        training=Training(
            command=facts["command"],
            config=config.model_dump(mode="json", by_alias=True),
            seed=config.seed,
            epochs=state["epoch"],
            hours=round(sum(row["seconds"] for row in state["history"]) / 3600, 2),
            hardware=facts["hardware"],
            started=facts["started"],
            versions=facts["versions"],
            data=tuple(DataSet(**each) for each in folder.learnt_from()),
            before=tuple(folder.commands()[:-1]),
        ),
    )


def _outputs(config: RunConfig) -> tuple[Output, ...]:
    return *_of_keypoints(config), *further.outputs(config)


def _of_keypoints(config: RunConfig) -> tuple[HeatmapOutput | KeypointsOutput, ...]:
    if config.net.head not in MAP_HEADS:
        return (KeypointsOutput(name=KEYPOINTS),)
    height, width = (side // config.net.stride for side in config.phases[-1].size)
    maps = HeatmapOutput(name=OUTPUT, height=height, width=width, stride=config.net.stride)
    if graph.decoder(config.codec) is None:
        return (maps,)
    return maps, KeypointsOutput(name=KEYPOINTS, decoder=config.codec.decoder)


def run_as_net(folder: RunFolder) -> tuple[Torch, BundleManifest]:
    """The averaged weights of a run as `evaluate.Net`, with the manifest that its export would have."""
    config, net = folder.config(), trained_net(folder)
    return Torch(net, config, torch.device("cpu")), _manifest(folder, config, net, "run")
