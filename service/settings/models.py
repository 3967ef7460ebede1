"""Settings of the models and of those who run them."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from model_zoo import bundle
from service.settings.group import Group, NamedPath


class ModelSettings(Group):
    """Which models are served."""

    roots: tuple[NamedPath, ...] = (bundle.BUILTIN,)
    """Folders of bundles, separated by colons like PATH; every bundle in them is loaded."""
    default: str = "body19-small"
    """Model of a request that names none: `name` for its latest version, or `name@version`."""
    precision: Literal["auto", "fp32", "int8"] = "auto"
    """What the models compute in; auto takes 8 bits where a bundle has such a graph."""
    min_presence: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least probability that somebody is there, of models that tell it; below, there are no keypoints. A request may
    name another one."""
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "openvino"] = "cpu"
    """What runs the models; one that is not there ends the start, only auto goes from cuda to cpu by itself."""

    @field_validator("roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


class BatchSettings(Group):
    """How frames of many clients share one call of the model."""

    mode: Literal["auto", "fused", "pipelined"] = "auto"
    """fused: the workers run the net themselves; pipelined: one thread runs it for all of them, which take twice as
    many threads; auto: pipelined on cuda and tensorrt, else fused."""
    window_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """Longest that a call of the net waits for the crops of other workers; in pipelined mode only."""
    size: PositiveInt = 8
    """Most crops in one call, and most frames that one worker takes at once."""
    queue: PositiveInt = 256
    """Most frames waiting per model; one more is refused at once."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Threads per model; 0 for one per processor that this process may use (affinity and cgroup quota), two in
    pipelined mode."""
    pin: Literal["auto", "on", "off"] = "auto"
    """Tie each worker to one processor; auto does where there is one worker per processor of the affinity mask."""
    stuck_s: PositiveFloat = 30.0
    """A worker that has been at its batch for this long, and for ten times what a batch costs, hangs: its batch fails
    and another worker takes its place."""
