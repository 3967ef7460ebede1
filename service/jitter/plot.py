"""One joint through one clip as an SVG: raw and smoothed, and how far each is from the truth."""

from __future__ import annotations

from collections.abc import Mapping

from service import plots
from service.types import Floats

_RAW = "#999999"


def svg(title: str, times: Floats, truth: Floats, tracks: Mapping[str, Floats]) -> str:
    """The picture.

    Args:
        title: of the whole.
        times: (T,) seconds.
        truth: (T,) one coordinate in pixels.
        tracks: name -> (T,) the same coordinate; the raw one first.
    """
    apart = {name: track - truth for name, track in tracks.items()}
    return plots.page(
        title,
        [
            ("position [px]", times, {**tracks, "truth": truth}),
            ("distance from the truth [px]", times, apart),
        ],
        first=(_RAW,),
    )
