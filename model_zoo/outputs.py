"""What a graph answers: one typed description for each kind of output.

Axes: N crops, K keypoints of the skeleton, C classes, H x W heatmap cells. All outputs are float32, and N comes first.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}$")]
"""Name of a class, or of what there are classes of."""
MOST_CLASSES = 1000
HANDEDNESS = "handedness"
"""What classes are of that say which hand of the person it is; a mirror image shows the other one."""


class Document(BaseModel):
    """A part of a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class HeatmapOutput(Document):
    """One output of the graph: (N, K, H, W) float32 heatmaps, best possible peak 1."""

    name: str
    """Name of the graph's output."""
    kind: Literal["heatmaps"] = "heatmaps"
    """What the numbers are."""
    height: PositiveInt
    """Cells down."""
    width: PositiveInt
    """Cells across."""
    stride: PositiveFloat
    """Crop pixels that one cell covers."""


class KeypointsOutput(Document):
    """One output of the graph: (N, K, 3) float32, each keypoint's x and y in pixels of the crop, and its score."""

    name: str
    """Name of the graph's output."""
    kind: Literal["keypoints"] = "keypoints"
    """What the numbers are."""
    decoder: str | None = None
    """Name of the decoder that the graph applies to its heatmaps; none where the net answers keypoints itself."""


class PresenceOutput(Document):
    """One output of the graph: (N,) float32, the probability that what the keypoints belong to is in the crop."""

    name: str
    """Name of the graph's output."""
    kind: Literal["presence"] = "presence"
    """What the numbers are."""
    of: Label = "person"
    """What is there or not: a person, a hand."""


class ClassesOutput(Document):
    """One output of the graph: (N, C) float32, the probabilities of C classes that exclude each other."""

    name: str
    """Name of the graph's output."""
    kind: Literal["classes"] = "classes"
    """What the numbers are."""
    of: Label
    """What there are classes of: `gesture`, `handedness`."""
    labels: Annotated[tuple[Label, ...], Field(min_length=2, max_length=MOST_CLASSES)]
    """Names of the C classes in output order."""
    mirror: tuple[int, ...] | None = None
    """Index of the class that each one becomes in a mirror image; none where they stay as they are."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        count = len(self.labels)
        if len(set(self.labels)) < count:
            raise ValueError(f"classes of {self.of}: two labels are the same")
        if self.mirror is None:
            if self.of == HANDEDNESS:
                raise ValueError(f"classes of {HANDEDNESS} must say what each becomes in a mirror image")
        elif len(self.mirror) != count or any(
            not 0 <= other < count or self.mirror[other] != own for own, other in enumerate(self.mirror)
        ):
            raise ValueError(f"classes of {self.of}: mirror must give each of the {count} labels a partner")
        return self


class DepthOutput(Document):
    """One output of the graph: (N, K) float32, each keypoint's z relative to the root's; larger is farther away."""

    name: str
    """Name of the graph's output."""
    kind: Literal["depth"] = "depth"
    """What the numbers are."""
    root: str
    """Keypoint whose z is 0."""
    unit: Literal["crop_px"] = "crop_px"
    """What `scale` counts: pixels of the crop, as of x and y, so that the skeleton has the same scale along z."""
    scale: PositiveFloat = 1.0
    """Units that a difference of 1 stands for."""


def _kind(output: object) -> object:
    """What an output is; one that does not say is heatmaps, the only kind of the first manifests."""
    if isinstance(output, dict):
        return output.get("kind", "heatmaps")
    return getattr(output, "kind", None)


Output = Annotated[
    Annotated[HeatmapOutput, Tag("heatmaps")]
    | Annotated[KeypointsOutput, Tag("keypoints")]
    | Annotated[PresenceOutput, Tag("presence")]
    | Annotated[ClassesOutput, Tag("classes")]
    | Annotated[DepthOutput, Tag("depth")],
    Discriminator(_kind),
]


def shape(output: Output, keypoints: int) -> tuple[int, ...]:
    """Of one crop's share of an output, for a skeleton of so many keypoints."""
    if isinstance(output, HeatmapOutput):
        return keypoints, output.height, output.width
    if isinstance(output, KeypointsOutput):
        return keypoints, 3
    if isinstance(output, ClassesOutput):
        return (len(output.labels),)
    return (keypoints,) if isinstance(output, DepthOutput) else ()
