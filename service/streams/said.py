"""What is said of one person in a video beside keypoints: whether they are there, and which class they are of.

A single frame may be wrong: a blurred hand is no hand, a hand between two gestures is a third one. So probabilities
are means over the last moments, by time and not by frames, and a decision stays until the mean is clearly elsewhere:

- who is there is gone when presence falls below the least one by a margin, and back when it rises above it by as much;
- a class is another one when that is likelier by a lead. Frames in which nobody is sure to be there count less.

A pure function, `calm`, as `smoothing.smooth` is. The state is rounded to float32 at every step, so that writing it
down loses nothing.

Axes: C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from service.types import Classified, Floats, Heads


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a moment is, and how clear is clear."""

    presence_s: float = 0.12
    """Time constant of presence."""
    classes_s: float = 0.25
    """Time constant of the classes of somebody who is sure to be there."""
    margin: float = 0.1
    """Of presence, to either side of the least one."""
    lead: float = 0.15
    """By which another class must be likelier."""
    gap_s: float = 0.5
    """A longer pause between two frames is a new beginning."""


RULES = Rules()


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What is remembered of one person. All numbers are float32 ones and finite."""

    time_s: float
    """When the last frame was taken."""
    presence: float | None
    """Mean; None of a model that does not tell."""
    present: bool
    """What was decided."""
    classes: tuple[tuple[Floats, int], ...]
    """Means (C,), and the index of the class that was decided on, one pair per output of classes."""


def bounds(least: float, rules: Rules = RULES) -> tuple[float, float]:
    """Presence below which somebody is gone, and from which they are back; both can be reached whatever `least` is."""
    return max(least - rules.margin, least / 2), min(least + rules.margin, (least + 1) / 2)


def calm(before: Said | None, time_s: float, said: Heads, rules: Rules = RULES) -> tuple[Heads, Said]:
    """Take in what is said in a frame.

    Args:
        before: what was remembered; None for a person who is new.
        time_s: when the frame was taken; not before that.
        said: by the model.
        rules: as above.

    Returns:
        What is said by now, with the depth as it came, and what is to be remembered.
    """
    if before is not None and not (_fits(before, said) and time_s - before.time_s <= rules.gap_s):
        before = None
    dt = 0.0 if before is None else time_s - before.time_s
    presence, present = _presence(before, said, dt, rules)
    sure = 1.0 if said.presence is None else said.presence
    follow = -math.expm1(-dt * sure / rules.classes_s)
    classes = tuple(
        _class(None if before is None else before.classes[index], each, follow, rules)
        for index, each in enumerate(said.classes)
    )
    answer = replace(
        said,
        presence=None if presence is None else round(presence, 4),
        present=present,
        classes=tuple(
            Classified(each.of, each.labels, np.round(means.astype(np.float64), 4), chosen)
            for each, (means, chosen) in zip(said.classes, classes, strict=True)
        ),
    )
    return answer, Said(time_s, presence, present, classes)


def _fits(before: Said, said: Heads) -> bool:
    """Whether both are of the same model."""
    return (
        (before.presence is None) == (said.presence is None)
        and len(before.classes) == len(said.classes)
        and all(
            len(means) == len(each.labels)
            for (means, _), each in zip(before.classes, said.classes, strict=True)
        )
    )


def _presence(before: Said | None, said: Heads, dt: float, rules: Rules) -> tuple[float | None, bool]:
    if said.presence is None:
        return None, True
    if before is None or before.presence is None:
        return float(np.float32(said.presence)), said.presence >= said.least
    mean = before.presence + (said.presence - before.presence) * -math.expm1(-dt / rules.presence_s)
    gone, back = bounds(said.least, rules)
    return float(np.float32(mean)), mean >= (gone if before.present else back)


def _class(
    before: tuple[Floats, int] | None, said: Classified, follow: float, rules: Rules
) -> tuple[Floats, int]:
    if before is None:
        return np.asarray(said.probabilities, np.float32), said.chosen
    means, chosen = before
    means = (means + (said.probabilities - means) * follow).astype(np.float32)
    likeliest = int(means.argmax())
    return means, likeliest if means[likeliest] >= means[chosen] + rules.lead else chosen
