"""A torch net as what `trainer.evaluate` measures: raw crops in, heatmaps or keypoints out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.config import RunConfig
from trainer.nets import answers, further
from trainer.nets.pose import heatmaps


@dataclass(frozen=True)
class Torch:
    """A torch net as `evaluate.Net`."""

    net: nn.Module
    config: RunConfig
    device: torch.device

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) raw crops -> (B, K, H, W) heatmaps, of a softmax or linear head."""
        with torch.inference_mode():
            answer = self._answer(images)
            logits = answer if isinstance(answer, Tensor) else answer["heatmaps"]
            return heatmaps(logits.float(), self.config.net.head, self.config.codec.sigma_cells).cpu().numpy()

    def keypoints(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, h, w, 3) raw crops -> (B, K, 3): x and y in crop pixels, and score; of any other head."""
        with torch.inference_mode():
            found = answers.served(
                self._answer(images), self.config.net, self.config.codec, images.shape[1:3]
            )
            return found.cpu().numpy()

    def further(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """(B, h, w, 3) raw crops -> what the net answers beside heatmaps and keypoints, by name; as the graph does."""
        names = further.names(self.config)
        if not names:
            return {}
        with torch.inference_mode():
            found = further.served(self._answer(images), self.config, images.shape[1:3])
            return {name: each.float().cpu().numpy() for name, each in zip(names, found, strict=True)}

    def _answer(self, images: NDArray[np.uint8]) -> Any:
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        return self.net(normalised(pixels, self.config))


def normalised(pixels: Tensor, config: RunConfig) -> Tensor:
    """(B, 3, h, w) raw pixels -> the net's numbers, channels_last."""
    floats = pixels.to(torch.float32, memory_format=torch.channels_last, copy=True)
    return floats.sub_(config.normalisation.mean).div_(config.normalisation.scale)
