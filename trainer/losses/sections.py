"""The `losses` section of a configuration: which terms there are, and how much each counts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

from trainer.losses.rle import Form, Residual


class Term(BaseModel):
    """One term of the weighted sum. A plain number in its place is its weight."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    weight: NonNegativeFloat = 1.0
    """Factor of the term; 0 leaves it out."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"weight": value} if is_number else value


class DSNT(Term):
    """Distance of the expectation from the label, and the shape of the map. Sigma is the codec's."""

    distance: Literal["euclidean", "l1", "mse"] = "euclidean"
    """Of the expectation from the label, on (-1, 1)."""
    regulariser: Literal["js", "kl", "variance"] | None = "js"
    """Divergence from a Gaussian about the label, or the variance of the map; null for none."""
    strength: NonNegativeFloat = 1.0
    """Factor of the regulariser."""


class Integral(Term):
    """Distance of the debiased expectation from the label; the correction is that of `net.debiased`, else the sum."""

    distance: Literal["euclidean", "l1", "mse"] = "l1"
    """On (-1, 1)."""


class SimCC(Term):
    """Divergence of both axes from their labels."""

    sigma_px: PositiveFloat = 2.5
    """Standard deviation of the labels, in pixels."""


class RLE(Term):
    """Likelihood of the label under a density of the error that a flow learns."""

    form: Form = "mmpose"
    """Which of the losses at the head of `losses.rle`."""
    residual: Residual | None = "laplace"
    """Density that the flow corrects; null lets the flow learn all of it."""


class Coordinates(Term):
    """Difference of the coordinates x / width - 0.5, y / height - 0.5."""

    kind: Literal["l1", "l2", "smooth_l1", "laplace", "gaussian"] = "l1"
    """The last two learn a scale with every coordinate."""
    beta: PositiveFloat = 0.02
    """smooth_l1: where the parabola ends."""


class Bone(Term):
    """Differences of the distances between keypoints."""

    pairs: Literal["edges", "all"] = "edges"
    """The skeleton's bones, or every pair of keypoints."""
    between: Literal["coordinates", "heatmaps"] = "coordinates"
    """Lengths in crop widths, or how much the maps differ."""


class Classification(Term):
    """Cross-entropy of the class."""

    smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the label that is spread over all classes."""


class Losses(BaseModel):
    """The terms; what is not named is not there."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_by_name=True
    )

    heatmap: Term | None = None
    """Maps against a Gaussian about the label: cross-entropy for a softmax head, mean square for a linear one."""
    dsnt: DSNT | None = None
    """See `losses.dsnt`."""
    integral: Integral | None = None
    """See `losses.integral`."""
    simcc: SimCC | None = None
    """See `losses.simcc`."""
    rle: RLE | None = None
    """See `losses.rle`."""
    coordinates: Coordinates | None = None
    """See `losses.regression`."""
    bone: Bone | None = None
    """See `losses.bone`."""
    oks: Term | None = None
    """See `losses.oks`."""
    depth: Term | None = None
    """Absolute difference of z, in crop widths, of the further head `net.depth`; of crops with a depth label alone."""
    presence: Term | None = None
    """Cross-entropy of the further head `net.presence`."""
    handedness: Term | None = None
    """Cross-entropy of the further head `net.handedness`."""
    class_: Classification | None = Field(None, alias="class")
    """Cross-entropy of the further head `net.classes`."""

    def terms(self) -> dict[str, float]:
        """Weights of the terms that are there, by their names in the file."""
        found = {field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}
        return {name: term.weight for name, term in found.items() if term is not None}


KEYPOINT_TERMS = frozenset({"heatmap", "dsnt", "integral", "simcc", "rle", "coordinates"})
"""Terms that can train a keypoint head alone."""
OWN_TERM = {
    "softmax": "heatmap",
    "linear": "heatmap",
    "dsnt": "dsnt",
    "simcc": "simcc",
    "regression": "coordinates",
    "rle": "rle",
}
"""The usual term of each keypoint head."""
_ON_COORDINATES = frozenset({"coordinates", "bone", "oks"})
TERMS_OF_HEAD = {
    "softmax": _ON_COORDINATES | {"heatmap"},
    "linear": frozenset({"heatmap", "bone"}),
    "dsnt": _ON_COORDINATES | {"dsnt", "integral"},
    "simcc": _ON_COORDINATES | {"simcc"},
    "regression": _ON_COORDINATES,
    "rle": _ON_COORDINATES | {"rle"},
}
"""Every term that a keypoint head can be trained with."""
