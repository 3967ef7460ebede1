"""The work of a peer's worker: the same stages as ours, written as its makers' examples are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import orjson
import simplejpeg

from model_zoo import bundle, geometry
from service import runner
from service.bench.peers import Setting
from service.types import Image


class Poser:
    """JPEGs to JSON, in batches; each picture is one person that fills it."""

    def __init__(self, setting: Setting) -> None:
        cv2.setNumThreads(1)
        self._runner = runner.load(bundle.read(Path(setting.folder)), setting.precision, setting.provider)
        self._runner.warm_up(setting.batch)

    def answer(self, pictures: Sequence[bytes]) -> list[bytes]:
        """One JSON for each."""
        manifest = self._runner.manifest
        spec = manifest.input
        decoded: list[Image] = [simplejpeg.decode_jpeg(data) for data in pictures]
        boxes = np.array([(0.0, 0.0, *image.shape[1::-1]) for image in decoded])
        maps = geometry.crop_affine(boxes, spec.size, padding=spec.padding)
        crops = np.stack(
            [geometry.crop(image, matrix, spec.size) for image, matrix in zip(decoded, maps, strict=True)]
        )
        found = self._runner.keypoints(crops)
        points = geometry.apply(geometry.invert(maps), found[..., :2])
        return [
            orjson.dumps(
                {
                    "keypoints": [
                        {"name": name, "x": x, "y": y, "score": score}
                        for name, (x, y), score in zip(manifest.keypoints, of_one, scores, strict=True)
                    ]
                }
            )
            for of_one, scores in zip(points.tolist(), found[..., 2].tolist(), strict=True)
        ]
