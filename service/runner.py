"""A model in memory: the only importer of ONNX Runtime.

One session serves all worker threads. It uses no threads of its own and never spins: with one caller per core this
costs the least processor time, and the cores belong to the decoding of images as much as to the net.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnxruntime as ort

from model_zoo import bundle, outputs
from model_zoo.bundle import Bundle
from model_zoo.errors import ManifestError
from model_zoo.manifest import BundleManifest, Precision
from model_zoo.outputs import Output
from service import heads
from service.errors import StartupError
from service.heads import Answers
from service.types import Floats, Image

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""What may run a graph, and ONNX Runtime's name for it."""
ON_GPU = ("cuda", "tensorrt")
"""Those of NVIDIA's GPUs."""
AUTO = ("cuda", "cpu")
"""What `auto` tries, in this order. The others are worth it only where somebody has measured that."""

_ELEMENT = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class Runner:
    """One graph, loaded and held against its manifest.

    Args:
        session: of the bundle's graph.
        manifest: of the same bundle.

    Raises:
        ManifestError: the graph is not what the manifest says.
    """

    def __init__(self, session: ort.InferenceSession, manifest: BundleManifest) -> None:
        _check_shapes(session, manifest)
        _check_metadata(session, manifest)
        self.manifest = manifest
        self.provider = next(name for name, full in PROVIDERS.items() if full == session.get_providers()[0])
        """What runs the graph, by its name in PROVIDERS."""
        self._session = session
        self._further = [each.name for each in heads.outputs(manifest)]
        self._options = ort.RunOptions()
        self._options.only_execute_path_to_fetches = True

    def run(self, crops: Image) -> Floats | Answers:
        """Run the net on a batch, without the decoder that may follow it. May be called from many threads at once.

        Args:
            crops: (N, h, w, 3) RGB uint8 of the manifest's size.

        Returns:
            (N, K, H, W) float32 heatmaps; of a net that says more than that, `Answers` with them.
        """
        return self._fetch(self.manifest.heatmaps, crops)

    def keypoints(self, crops: Image) -> Floats | Answers:
        """Run the net and the graph's own decoder on a batch, as `run` does; (N, K, 3) x, y in the crop, score."""
        return self._fetch(self.manifest.keypoints_output, crops)

    def _fetch(self, output: Output, crops: Image) -> Floats | Answers:
        fed = {self.manifest.input.name: self._fed(crops)}
        main, *more = self._session.run([output.name, *self._further], fed, self._options)
        return Answers(main, tuple(more)) if more else main

    def warm_up(self, size: int) -> None:
        """Run once with one crop and once with `size`, so that the first request finds all memory in place."""
        height, width = self.manifest.input.size
        for count in {1, size}:
            for output in filter(None, (self.manifest.heatmaps, self.manifest.keypoints_output)):
                self._fetch(output, np.zeros((count, height, width, 3), np.uint8))

    def _fed(self, crops: Image) -> np.ndarray:
        """The crops as the graph wants them; untouched for the usual graph, which takes raw NHWC pixels."""
        spec, normalisation = self.manifest.input, self.manifest.normalisation
        fed: np.ndarray = crops
        if spec.layout == "NCHW":
            fed = fed.transpose(0, 3, 1, 2)
        if spec.dtype == "float32":
            fed = fed.astype(np.float32)
            if not normalisation.inside_graph:
                fed = (fed - np.float32(normalisation.mean)) / np.float32(normalisation.scale)
        return np.ascontiguousarray(fed)


def load(found: Bundle, precision: Precision = "fp32", provider: str = "cpu") -> Runner:
    """Load a graph of a verified bundle.

    Args:
        found: the bundle.
        precision: what the graph computes in.
        provider: what runs it: one of PROVIDERS, which must be there, or `auto` for the first of AUTO that is.

    Raises:
        StartupError: the provider is not there.
        ManifestError: the bundle has no such graph, ONNX Runtime cannot load it, or it is not what the manifest says.
    """
    path = found.int8_path if precision == "int8" else found.model_path
    if path is None:
        raise ManifestError(
            f"{found.name}@{found.version} has no graph in {precision}; `reppose-zoo quantize` adds one"
        )
    return Runner(_session(path, provider), found.manifest)


def _session(path: Path, provider: str) -> ort.InferenceSession:
    """With the provider that was asked for. ONNX Runtime itself would fall back to the processor and only log it."""
    if provider == "auto":
        for name in AUTO[:-1]:
            with contextlib.suppress(StartupError):
                return _session(path, name)
        return _session(path, AUTO[-1])
    offered = ort.get_available_providers()
    if PROVIDERS[provider] not in offered:
        raise StartupError(
            f"this ONNX Runtime cannot run models by {provider}, only by {', '.join(offered)}; "
            "REPPOSE_MODELS__PROVIDER chooses, and the README says what to install"
        )
    session = _open(path, PROVIDERS[provider])
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise StartupError(
            f"ONNX Runtime could not start {provider} for {path} and took {session.get_providers()[0]} instead: "
            "its driver or libraries are missing, see the lines above"
        )
    return session


def _open(path: Path, provider: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(path, options, providers=[provider], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ManifestError(f"{path}: ONNX Runtime cannot load it: {error}") from error


def _check_shapes(session: ort.InferenceSession, manifest: BundleManifest) -> None:
    spec = manifest.input
    if spec.dtype == "uint8" and not manifest.normalisation.inside_graph:
        raise ManifestError(f"{manifest.name}: a graph that takes uint8 must normalise inside")
    height, width = spec.size
    crop = [height, width, 3] if spec.layout == "NHWC" else [3, height, width]
    inputs = {each.name: each for each in session.get_inputs()}
    answers = {each.name: each for each in session.get_outputs()}
    named = [output.name for output in manifest.outputs]
    if set(inputs) != {spec.name} or not answers.keys() >= set(named):
        raise ManifestError(
            f"{manifest.name}: the manifest names input {spec.name} and output {', '.join(named)}, the graph has "
            f"{sorted(inputs)} and {sorted(answers)}"
        )
    made = [
        ("output", answers[each.name], _ELEMENT["float32"], [*outputs.shape(each, len(manifest.keypoints))])
        for each in manifest.outputs
    ]
    for what, found, element, shape in (
        ("input", inputs[spec.name], _ELEMENT[spec.dtype], crop),
        *made,
    ):
        # the first axis is the batch: it has a name instead of a number
        if found.type != element or list(found.shape[1:]) != shape or isinstance(found.shape[0], int):
            raise ManifestError(
                f"{manifest.name}: by its manifest the {what} is {element} [N, {', '.join(map(str, shape))}], "
                f"the graph says {found.type} {found.shape}"
            )


def _check_metadata(session: ort.InferenceSession, manifest: BundleManifest) -> None:
    """The graph's own copy of the manifest must agree on all that changes what the model computes or is called."""
    inside = bundle.manifest_from_metadata(session.get_modelmeta().custom_metadata_map)
    for field in ("name", "version", "skeleton", "input", "normalisation", "outputs", "codec", "calibration"):
        if getattr(inside, field) != getattr(manifest, field):
            raise ManifestError(
                f"{manifest.name}: the metadata inside the graph disagrees with the manifest on {field}"
            )
