"""Pictures out of focus: Gaussian blur of another strength for every crop."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor
from torch.nn import functional

_LEAST_PX = 0.3
_REACH = 3.0
"""Standard deviations that a kernel reaches."""


class Blur(BaseModel):
    """Crops out of focus."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    probability: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of blurred crops."""
    most_px: PositiveFloat = 2.0
    """Largest standard deviation, in pixels of the crop."""


def draw(how: Blur, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count,) standard deviations in pixels, 0 for none; the generator is used in a fixed order."""
    blurred = rng.random(count) < how.probability
    return np.where(blurred, rng.uniform(_LEAST_PX, max(how.most_px, _LEAST_PX), count), 0.0)


def apply(images: Tensor, sigmas: NDArray[np.float64]) -> Tensor:
    """(B, 3, h, w) raw crops blurred by (B,) standard deviations; those of 0 stay as they are."""
    todo = np.flatnonzero(sigmas > 0)
    if not len(todo):
        return images
    at = torch.from_numpy(todo).to(images.device)
    sigma = torch.from_numpy(sigmas[todo]).to(images.device, torch.float32)
    reach = int(np.ceil(_REACH * sigmas.max()))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(-1, keepdim=True)).repeat_interleave(images.shape[1], 0)
    count, (height, width) = len(todo) * images.shape[1], images.shape[-2:]
    planes = images[at].float().reshape(1, count, height, width)
    for kernel, pad in (
        (kernels[:, None, None], (reach, reach, 0, 0)),
        (kernels[:, None, :, None], (0, 0, reach, reach)),
    ):
        planes = functional.conv2d(functional.pad(planes, pad, mode="replicate"), kernel, groups=count)
    found = (planes.reshape(len(todo), -1, height, width) + 0.5).clamp(0, 255).to(images.dtype)
    return images.index_copy(0, at, found)
