"""Learning rates over a run, as a share of the highest rate: pure functions of progress.

A run that goes on after an interruption follows the same curve. Progress, total and warm-up are in one unit of
the caller's choice: epochs with fractions, or steps.

Sources: Loshchilov and Hutter, ICLR 2017, arXiv:1608.03983 (cosine annealing); Jiang et al. 2023, arXiv:2303.07399
(flat, then cosine).
"""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine(
    progress: float, *, total: float, warmup: float = 0.0, start: float = 0.0, final: float = 0.0
) -> float:
    """Linear rise over the warm-up, then half a cosine to the final share.

    Args:
        progress: done so far, from 0 to total; beyond, the final share stays.
        total: length of the run.
        warmup: length of the rise, less than total.
        start: share at the beginning of the rise.
        final: share at the end of the run.
    """
    return flat_cosine(progress, total=total, warmup=warmup, start=start, final=final, flat=0.0)


def flat_cosine(
    progress: float,
    *,
    total: float,
    warmup: float = 0.0,
    start: float = 1e-5,
    final: float = 0.05,
    flat: float = 0.5,
) -> float:
    """Linear rise over the warm-up, the highest rate until a part of the run is over, then half a cosine.

    Args:
        progress, total, warmup, start, final: as in `cosine`.
        flat: part of the run after which the rate falls, less than 1; a longer warm-up delays that to its own end.
    """
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    falls_from = max(warmup, flat * total)
    done = min(max((progress - falls_from) / (total - falls_from), 0.0), 1.0)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


SCHEDULES: dict[str, Callable[..., float]] = {"cosine": cosine, "flat_cosine": flat_cosine}
"""Each schedule by name."""
