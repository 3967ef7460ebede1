"""Sets that an ablation makes for its rows: the arguments of `reppose-train synth`, and where what they make lies.

Rows that ask for the same set share it. A row's configuration calls it `made`, wherever the annotations of a training
set may stand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, field_validator

from trainer.synth import families

PLACEHOLDER = "made"
"""What stands for the made set in `data.train`."""


class Made(BaseModel):
    """Arguments of `reppose-train synth`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["body", "hand"] = "body"
    """What is made."""
    n: PositiveInt = 4000
    """Pictures."""
    seed: NonNegativeInt = 1
    """Of everything in them; not that of the trainings."""
    size: PositiveInt | None = None
    """Longer side in pixels; that of the kind where it is not given."""
    without: tuple[str, ...] = ()
    """Families that are left out, see `trainer.synth.families`."""

    @field_validator("without")
    @classmethod
    def _once_each(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(names)))

    def model_post_init(self, _: Any) -> None:
        """ConfigError: the kind has no family of such a name."""
        families.check(self.without, self.kind)

    @property
    def name(self) -> str:
        """Of the folder; sets of different arguments have different ones."""
        words = [self.kind, str(self.n), str(self.seed), *([f"{self.size}px"] if self.size else [])]
        return "-".join([*words, *(["without", *self.without] if self.without else [])])

    def annotations(self, out: Path) -> Path:
        """The JSON of the set, absolute, for the folder of an ablation."""
        return (out / PLACEHOLDER / self.name / f"{self.kind}.json").resolve()

    def words(self, out: Path) -> list[str]:
        """The command that makes it, or goes on with it."""
        command = [sys.executable, "-m", "trainer", "synth", str(self.annotations(out).parent)]
        size = ["--size", str(self.size)] if self.size else []
        left_out = [word for name in self.without for word in ("--without", name)]
        return [
            *command, "--kind", self.kind, "--n", str(self.n), "--seed", str(self.seed), *size, *left_out,
            "--jobs", "1",
        ]  # fmt: skip


def filled_in(document: dict[str, Any], made: Made, out: Path) -> dict[str, Any]:
    """A configuration with the path of the made set in place of `made`."""
    data = document.get("data") or {}
    train = [
        source | {"annotations": str(made.annotations(out))}
        if isinstance(source, dict) and source.get("annotations") == PLACEHOLDER
        else source
        for source in data.get("train") or []
    ]
    return document | {"data": {**data, "train": train}}
