"""A net that can be checked: it reads a frame from three coloured dots, and keypoints lie in that frame.

Run as a program it speaks as those of `trainer/peers`, for hands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

HAND = (
    "wrist",
    *(f"thumb_{joint}" for joint in ("cmc", "mcp", "ip", "tip")),
    *(
        f"{finger}_{joint}"
        for finger in ("pinky", "ring", "middle", "index")  # no order but its own
        for joint in ("mcp", "pip", "dip", "tip")
    ),
)
DOTS = np.array([[40.0, 30], [85, 40], [50, 90]])
"""Centres of the red, green and blue dot in a picture of 120 x 120."""


def places(count: int) -> Floats:
    """Where keypoints (K, 2) lie in the frame of the dots, whose corners are (0, 0), (1, 0) and (0, 1)."""
    return np.random.default_rng(count).uniform(-0.3, 1, (count, 2))


class Made:
    """The net.

    Args:
        keypoints: in its own order.
        partners: for each the one that has its place in a mirror image.
    """

    def __init__(self, keypoints: Sequence[str] = HAND, partners: Sequence[int] | None = None) -> None:
        self.name, self.licence, self.keypoints = "Dots 1.0", "none", tuple(keypoints)
        self._partners = list(range(len(keypoints)) if partners is None else partners)
        self._rng = np.random.default_rng(1)

    def find(self, crops: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """As `trainer.peer.Peer`; where it sees white it guesses."""
        found = np.zeros((len(crops), len(self.keypoints), 2))
        scores = np.zeros(found.shape[:2])
        for index, crop in enumerate(crops):
            frame = [_centre(crop, channel) for channel in range(3)]
            if any(dot is None for dot in frame):
                continue
            axes = np.array(frame[1:]) - frame[0]
            where = places(len(self.keypoints))
            found[index] = frame[0] + (where[self._partners] if np.linalg.det(axes) < 0 else where) @ axes
            found[index] += self._rng.normal(0, 40, found[index].shape) * (crop.min(axis=2) > 200).any()
            scores[index] = 1
        return found, scores


def _centre(crop: NDArray[np.uint8], channel: int) -> tuple[float, float] | None:
    colour = crop.astype(int)
    rows, columns = np.nonzero(colour[..., channel] - np.delete(colour, channel, axis=2).max(axis=2) > 100)
    return (columns.mean(), rows.mean()) if len(rows) else None


def main() -> None:
    """Answer until stdin ends."""
    net = Made()
    print(json.dumps({"name": net.name, "licence": net.licence, "keypoints": net.keypoints}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        points, scores = net.find(np.load(wanted["crops"]))
        np.savez(wanted["out"], points=points, scores=scores)
        print("{}", flush=True)


if __name__ == "__main__":
    main()
