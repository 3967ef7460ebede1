"""Lines over time as SVG, drawn here: the service has no plotter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from service.types import Floats

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
_WIDTH, _HEIGHT, _MARGIN = 900, 260, 48

Panel = tuple[str, Floats, Mapping[str, Floats]]
"""Label, (T,) seconds, and name -> (T,) values."""


def page(title: str, panels: Sequence[Panel], *, first: Sequence[str] = ()) -> str:
    """The picture: one panel below the other.

    Args:
        title: of the whole.
        panels: what to draw.
        first: colours of the first lines of each panel, before `COLOURS`; the truth is black, say.
    """
    drawn = "".join(_panel(_HEIGHT * index, *panel, (*first, *COLOURS)) for index, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{len(panels) * _HEIGHT + 30}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_MARGIN}" y="18" font-size="14">{escape(title)}</text>'
        f'<g transform="translate(0 30)">{drawn}</g></svg>\n'
    )


def _panel(
    top: int, label: str, times: Floats, tracks: Mapping[str, Floats], colours: tuple[str, ...]
) -> str:
    every = np.concatenate(list(tracks.values()))
    low, high = float(every.min()), float(every.max())
    wide, tall = _WIDTH - 2 * _MARGIN, _HEIGHT - 60
    x = _MARGIN + (times - times[0]) / max(float(np.ptp(times)), 1e-9) * wide
    parts = [
        f'<rect x="{_MARGIN}" y="{top + 20}" width="{wide}" height="{tall}" fill="none" stroke="#cccccc"/>',
        f'<text x="{_MARGIN}" y="{top + 14}">{escape(label)}</text>',
        f'<text x="4" y="{top + 26}">{high:.1f}</text><text x="4" y="{top + 20 + tall}">{low:.1f}</text>',
        f'<text x="{_MARGIN}" y="{top + tall + 36}">{times[0]:.1f} s</text>',
        f'<text x="{_WIDTH - _MARGIN - 30}" y="{top + tall + 36}">{times[-1]:.1f} s</text>',
    ]
    for index, (name, track) in enumerate(tracks.items()):
        colour = colours[index % len(colours)]
        y = top + 20 + (high - track) / max(high - low, 1e-9) * tall
        points = " ".join(f"{left:.1f},{down:.1f}" for left, down in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        parts.append(
            f'<text x="{_MARGIN + 180 + 90 * index}" y="{top + 14}" fill="{colour}">{escape(name)}</text>'
        )
    return "".join(parts)
