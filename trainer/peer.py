"""Somebody else's net, run by a program of its own: `trainer/peers` has them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError


class Peer:
    """A program that speaks as `trainer/peers/mediapipe_pose.py` says; a context, at whose end it ends.

    Args:
        python: of the environment that has the net.
        program: to run there.

    Raises:
        DataError: it cannot be started there.
    """

    def __init__(self, python: Path, program: Path) -> None:
        try:
            self._process = subprocess.Popen(
                [python, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise DataError(f"{python} cannot run {program.name}: {error}") from error
        try:
            about = json.loads(self._process.stdout.readline())
            self.name: str = about["name"]
            self.licence: str = about["licence"]
            self.keypoints = tuple(about["keypoints"])
            """That it answers."""
        except (ValueError, TypeError, KeyError) as error:
            self._process.communicate()
            raise DataError(f"{python} cannot run {program.name}: it does not say what it is") from error
        self._scratch = tempfile.TemporaryDirectory(prefix="reppose-peer-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._scratch.cleanup()

    def find(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
        """Points (N, K, 2) in pixels of (N, h, w, 3) crops, and scores (N, K), 0 where nobody was found."""
        shown, out = Path(self._scratch.name) / "crops.npy", Path(self._scratch.name) / "found.npz"
        np.save(shown, crops)
        self._ask({"crops": str(shown), "out": str(out)})
        with np.load(out) as found:
            return found["points"], found["scores"]

    def timed(self, crops: NDArray[np.uint8], calls: int) -> float:
        """Processor time of a call for the first of (N, h, w, 3) crops, milliseconds, the mean of so many calls."""
        shown = Path(self._scratch.name) / "one.npy"
        np.save(shown, crops[:1])
        return self._ask({"time": str(shown), "calls": calls})["ms"]

    def _ask(self, question: dict[str, object]) -> dict[str, float]:
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            answer = ""
        else:
            answer = self._process.stdout.readline()
        if not answer:
            raise DataError(f"{self.name} ended without an answer")
        return json.loads(answer)
