"""The `distillation` section of a configuration: three ways to learn from more than the labels."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator

from trainer.distill.okdhp import Ensemble, Weighting
from trainer.distill.teacher import Mixing

Share = Annotated[float, Field(ge=0, le=1)]


class Okdhp(BaseModel):
    """Branches of the net that teach each other; one is exported."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    branches: Annotated[int, Field(ge=2, le=8)] = 3
    """How many."""
    ensemble: Ensemble = "mean"
    """What teaches them: their mean, a mean with learnt weights, or heads on groups of them."""
    weighting: Weighting = Weighting()
    """How much each part of the loss counts."""


class NetAugmentation(BaseModel):
    """The net is trained as the leading channels of a wider one; it alone is exported."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    multipliers: Annotated[tuple[Annotated[float, Field(ge=1)], ...], Field(min_length=2)] = (1.0, 1.8, 2.6)
    """That the widths of each step's second pass are drawn from."""
    alpha: NonNegativeFloat = 1.0
    """Weight of the second pass."""
    until: Share = 0.5
    """Part of the run after which there is no second pass."""
    sort: bool = True
    """Whether the most important channels become the net's own at the start of every epoch with a second pass."""
    norm_batches: PositiveInt = 8
    """Training batches that the running statistics of the net are estimated on when it is measured or exported."""


class Teaching(Mixing):
    """A larger net's opinion of the same crops is learnt beside the labels."""

    bundle: str
    """NAME[@VERSION] of a bundle, or its folder."""


class Distillation(BaseModel):
    """A teacher; or online distillation, network augmentation or both, where the wider net has branches as well."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    okdhp: Okdhp | None = None
    """Online distillation between branches."""
    netaug: NetAugmentation | None = None
    """Network augmentation."""
    teacher: Teaching | None = None
    """Distillation from a bundle."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.teacher is not None and self.reshapes:
            raise ValueError("choose teacher, or okdhp and netaug; they do not go together")
        if self.netaug is not None and self.okdhp is not None and self.okdhp.ensemble == "groups":
            raise ValueError("netaug does not go with okdhp.ensemble groups, whose heads read several widths")
        return self

    @property
    def reshapes(self) -> bool:
        """Whether the net that is trained is another than the one that is exported."""
        return self.okdhp is not None or self.netaug is not None
