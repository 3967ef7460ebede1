"""BundleManifest: every fact that is needed to run a model and to judge it, in one typed document.

The same document stands in `manifest.json` beside the model and, without the hashes of the files, in the
metadata of the ONNX file itself (key `reppose.manifest`), so that a single `.onnx` describes itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from model_zoo import skeletons
from model_zoo.errors import SkeletonError
from model_zoo.outputs import (
    ClassesOutput,
    DepthOutput,
    Document,
    HeatmapOutput,
    KeypointsOutput,
    Output,
    PresenceOutput,
)

NEWEST_SCHEMA = 2
"""Newest form of this document. 2 added outputs beside heatmaps and keypoints, calibration, latency, documents."""
MOST_OUTPUTS = 16
SCORES = "scores"
"""What calibration calls the scores of keypoints, whichever output they are read from."""
ONNX_METADATA_KEY = "reppose.manifest"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}$")]
"""A plain name: no folders, nothing hidden, nothing that leads out of the bundle."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Precision = Literal["fp32", "int8"]


class Normalisation(Document):
    """How pixels become the net's numbers: (pixel - mean) / scale, the same for all channels."""

    mean: float = 114.0
    """Subtracted from every pixel value, 0..255."""
    scale: PositiveFloat = 58.0
    """Divides the difference."""
    inside_graph: bool = True
    """True: the graph takes raw pixels and does this itself."""


class InputSpec(Document):
    """The one input of the graph: a batch of crops."""

    name: str
    """Name of the graph's input."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """Element type."""
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    """Order of the axes; N is dynamic."""
    channels: Literal["RGB"] = "RGB"
    """Order of the colour channels."""
    height: PositiveInt
    """Crop height in pixels."""
    width: PositiveInt
    """Crop width in pixels."""
    padding: PositiveFloat = 1.25
    """Context around the person's box that the net was trained with; see `geometry.crop_affine`."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), the order that `geometry` takes."""
        return self.height, self.width


class Codec(Document):
    """How keypoints were written as heatmaps, and how to read them back."""

    kind: Literal["gaussian"] = "gaussian"
    """Target of the training: a Gaussian about the un-rounded point."""
    sigma_cells: PositiveFloat
    """Standard deviation of the target in cells."""
    decoder: str = "dark"
    """Decoder that the accuracy below was measured with; the default of a request."""
    dark_blur_kernel: Annotated[int, Field(ge=0)] = 0
    """Side of the Gaussian blur before DARK's Newton step, odd; 0 for none."""

    @model_validator(mode="after")
    def _blurs_about_a_cell(self) -> Self:
        if self.dark_blur_kernel and self.dark_blur_kernel % 2 == 0:
            raise ValueError(f"dark_blur_kernel must be 0 or odd, got {self.dark_blur_kernel}")
        return self


class Hashes(Document):
    """One file of the bundle."""

    sha256: Sha256
    """Of the whole file."""
    bytes: PositiveInt
    """Size of the file."""


class DataSet(Document):
    """Where labels and pictures came from."""

    name: str
    """Name of the set and split."""
    people: PositiveInt
    """Annotated people used."""
    licence: str
    """Terms of the pictures and labels."""


class Training(Document):
    """Where the weights come from: enough to make them again."""

    command: str
    """The command that was run."""
    config: dict[str, object]
    """The resolved configuration of the run."""
    seed: int
    """Seed of the run."""
    epochs: Annotated[float, Field(ge=0)]
    """Passes over the training set."""
    hours: Annotated[float, Field(ge=0)]
    """Wall-clock hours of training."""
    hardware: str
    """What it ran on."""
    started: str
    """Date, ISO 8601."""
    versions: dict[str, str]
    """Python, torch and the like."""
    data: tuple[DataSet, ...]
    """Training sets, those of the runs before among them."""
    before: tuple[str, ...] = ()
    """Commands of the runs whose weights this one began with, the first one first."""


class Accuracy(Document):
    """One measured figure."""

    data: str
    """Set and split that it was measured on."""
    metric: str
    """PCK@0.2, PCKh@0.5, OKS-AP, ..."""
    value: float
    """In per cent."""
    people: PositiveInt
    """People that counted."""
    decoder: str
    """Decoder used."""
    command: str
    """Command that printed the figure."""
    precision: Precision = "fp32"
    """Which of the bundle's graphs was measured."""


class Agreement(Document):
    """How far another form of the net is from the net that was trained, at most, on the same real crops."""

    net: str
    """The form: fused, ONNX Runtime, ..."""
    heatmap: Annotated[float, Field(ge=0)] | None = None
    """Difference of the heatmaps, whose best possible peak is 1; none for a net without heatmaps."""
    points_px: Annotated[float, Field(ge=0)]
    """Distance of sure keypoints in crop pixels."""
    probability: Annotated[float, Field(ge=0)] | None = None
    """Difference of presence and of the probabilities of classes; none for a net without them."""
    depth_px: Annotated[float, Field(ge=0)] | None = None
    """Difference of the depths in crop pixels; none for a net without depth."""


class Latency(Document):
    """How long one of the graphs takes for one crop on one thread."""

    precision: Precision
    """Which of the bundle's graphs."""
    ms: PositiveFloat
    """Milliseconds of processor time, on the hardware named below."""
    ratio: PositiveFloat
    """To the reference, measured in turns with it in the same run."""
    reference: str
    """Model and graph that it is compared with."""
    hardware: str
    """Processor that it was measured on."""
    command: str
    """The command that was run."""


class Calibration(Document):
    """How probabilities were made to come true as often as they say, and how often they do.

    Log-odds x of the net became scale x + shift; of several classes, logits became scale times as large. The graph does
    so itself, but for scores that are read from its heatmaps, see `model_zoo.scores`.
    """

    of: str
    """Name of the output, or `scores` for those of keypoints."""
    scale: PositiveFloat
    """1 / temperature."""
    shift: float = 0.0
    """Added to log-odds; 0 for several classes."""
    event: str
    """What the probability is of."""
    data: str
    """Set and split that this was fitted and measured on."""
    count: PositiveInt
    """Labelled cases that counted."""
    bins: PositiveInt
    """Of the expected calibration error: as many equal parts of 0 to 1."""
    error_before: Annotated[float, Field(ge=0, le=1)]
    """Expected calibration error without it: mean distance of probability and frequency."""
    error: Annotated[float, Field(ge=0, le=1)]
    """The same with it, each half of the cases by what was fitted on the other half."""
    command: str
    """The command that was run."""


class Quantisation(Document):
    """How the int8 graph was made from the fp32 graph."""

    method: str
    """How the ranges of the activations were found: minmax, percentile, ..., and what else was done."""
    data: str
    """Set whose pictures the ranges come from."""
    crops: PositiveInt
    """Crops that were looked at."""
    command: str
    """The command that was run."""
    mean_shift_px: Annotated[float, Field(ge=0)]
    """Mean distance of keypoints between both graphs, weighted by their scores, in crop pixels."""
    versions: dict[str, str]
    """Of the packages that did it."""


class BundleManifest(Document):
    """All facts about one version of one model."""

    schema_version: Literal[1, 2] = 1
    """Version of this document's form; the oldest that has what it says, so that older services read it too."""
    name: Name
    """Name of the model, as in a request."""
    version: Name
    """Version of the model."""
    description: str
    """One line for people."""
    licence: str
    """Terms under which the weights may be used."""
    skeleton: str
    """Name of the skeleton, see `skeletons`."""
    keypoints: tuple[str, ...]
    """Names of the K keypoints in output order; always those of the skeleton."""
    pixel_convention: Literal["centre-integer"] = "centre-integer"
    """Where pixel centres lie; see `geometry`."""
    input: InputSpec
    """The crop that goes in."""
    normalisation: Normalisation = Normalisation()
    """Pixels to numbers."""
    outputs: tuple[Output, ...] = Field(min_length=1, max_length=MOST_OUTPUTS)
    """What comes out: heatmaps, keypoints or both, and maybe more; at most one of each kind, but of classes of each
    `of`."""
    codec: Codec | None = None
    """Keypoints to heatmaps and back; none for a net without heatmaps."""
    model_file: FileName = "model.onnx"
    """File name of the graph."""
    int8_file: FileName | None = None
    """File name of a second graph with the same input and outputs that computes in 8 bits; none without one."""
    files: dict[FileName, Hashes] = Field(default_factory=dict)
    """Every other file of the bundle by name; empty inside the ONNX metadata."""
    macs: PositiveInt
    """Multiply-adds of one crop."""
    parameters: PositiveInt
    """Weights of the deployed graph."""
    opset: PositiveInt
    """ONNX operator set."""
    training: Training
    """Where the weights come from."""
    accuracy: tuple[Accuracy, ...] = ()
    """What was measured."""
    agreement: tuple[Agreement, ...] = ()
    """How far the forms of the net are from the trained one."""
    quantisation: Quantisation | None = None
    """How `int8_file` was made; none without one."""
    calibration: tuple[Calibration, ...] = ()
    """What was done to probabilities; none where they are as the net learnt them."""
    latency: tuple[Latency, ...] = ()
    """How fast the graphs are; none where that was not measured."""
    documents: tuple[FileName, ...] = ()
    """Files of the bundle to read after its card, such as a comparison of techniques."""

    @field_validator("schema_version", mode="before")
    @classmethod
    def _is_known(cls, version: Any) -> Any:
        if isinstance(version, int) and version > NEWEST_SCHEMA:
            raise ValueError(
                f"{version} is newer than this software, which reads up to {NEWEST_SCHEMA}: update it"
            )
        return version

    @model_serializer(mode="wrap")
    def _as_old_as_possible(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the first form has not, and what says nothing then."""
        document = handler(self)
        if self.schema_version == 1:
            for late in ("calibration", "latency", "documents"):
                document.pop(late, None)
            for each in document.get("agreement", ()):
                for late in ("probability", "depth_px"):
                    each.pop(late, None)
        return document

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        try:
            expected = skeletons.skeleton(self.skeleton).keypoints
        except SkeletonError as error:
            raise ValueError(str(error)) from error
        if self.keypoints != expected:
            raise ValueError(f"keypoints differ from those of skeleton {self.skeleton}")
        self._outputs_agree()
        self._calibration_agrees()
        if self.schema_version < (
            needed := schema_of(self.outputs, self.calibration, self.latency, self.documents)
        ):
            raise ValueError(f"schema_version {self.schema_version} has no such parts; {needed} has")
        if self.heatmaps is not None:
            self._can_be_decoded(self.heatmaps)
        if self.int8_file == self.model_file:
            raise ValueError("int8_file and model_file are the same file")
        return self

    def _outputs_agree(self) -> None:
        if len({each.name for each in self.outputs}) < len(self.outputs):
            raise ValueError("two outputs have the same name")
        if len({_identity(each) for each in self.outputs}) < len(self.outputs):
            raise ValueError("two outputs have the same kind, or are classes of the same")
        if self.heatmaps is None and self.keypoints_output is None:
            raise ValueError("there must be an output of heatmaps or of keypoints")
        if self.depth is not None and self.depth.root not in self.keypoints:
            raise ValueError(f"depth is relative to {self.depth.root!r}, which {self.skeleton} has not")

    def _calibration_agrees(self) -> None:
        known = [
            SCORES,
            *(each.name for each in self.outputs if isinstance(each, PresenceOutput | ClassesOutput)),
        ]
        names = [each.of for each in self.calibration]
        if len(set(names)) < len(names):
            raise ValueError("one output is calibrated twice")
        if unknown := set(names) - set(known):
            raise ValueError(f"calibration of {', '.join(sorted(unknown))}: known are {', '.join(known)}")
        if SCORES in [each.name for each in self.outputs]:
            raise ValueError(
                f"no output may be called {SCORES!r}: calibration means those of keypoints by it"
            )

    def _can_be_decoded(self, output: HeatmapOutput) -> None:
        covered = (output.height * output.stride, output.width * output.stride)
        if covered != self.input.size:
            raise ValueError(f"output {output.name} covers {covered} pixels, the crop is {self.input.size}")
        if self.codec is None:
            raise ValueError("codec is missing: nobody can read heatmaps without it")

    @property
    def heatmaps(self) -> HeatmapOutput | None:
        """The heatmap output; None for a net that has none."""
        return next((each for each in self.outputs if isinstance(each, HeatmapOutput)), None)

    @property
    def keypoints_output(self) -> KeypointsOutput | None:
        """The output of keypoints that are decoded already; None for a graph that leaves that to others."""
        return next((each for each in self.outputs if isinstance(each, KeypointsOutput)), None)

    @property
    def presence(self) -> PresenceOutput | None:
        """The output that says whether anybody is there; None without one."""
        return next((each for each in self.outputs if isinstance(each, PresenceOutput)), None)

    @property
    def depth(self) -> DepthOutput | None:
        """The output of z; None without one."""
        return next((each for each in self.outputs if isinstance(each, DepthOutput)), None)

    @property
    def classes(self) -> tuple[ClassesOutput, ...]:
        """The outputs of classes."""
        return tuple(each for each in self.outputs if isinstance(each, ClassesOutput))

    @property
    def score_calibration(self) -> Calibration | None:
        """That of the keypoints' scores; None where they are as the net gives them."""
        return next((each for each in self.calibration if each.of == SCORES), None)


def schema_of(outputs: Iterable[Output], *parts: Iterable[Calibration | Latency | FileName]) -> int:
    """The oldest `schema_version` of a manifest with these outputs, and these parts that the first form has not."""
    first = all(isinstance(each, HeatmapOutput | KeypointsOutput) for each in outputs)
    return 1 if first and not any(tuple(each) for each in parts) else 2


def _identity(output: Output) -> tuple[str, str]:
    return output.kind, output.of if isinstance(output, ClassesOutput) else ""
