"""What a soak found, as promises kept or broken, tables and a plot. Knows no process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service import plots
from service.soak.run import WARM_UP, Found
from service.soak.tally import Tally

GROWTH_MB = 16.0
"""By so much the least that the server holds may grow from the second quarter of the load to the last one."""
WORST_SHARE = 0.8
"""Least share of what is fair that any stream may get."""
OVERLOAD = 1.2
"""Less than so many frames sent for each one answered, live, is no soak at more than capacity."""


@dataclass(frozen=True)
class Promise:
    """Something that must hold."""

    what: str
    measured: str
    wanted: str
    kept: bool


def promises(found: Found) -> list[Promise]:
    """All of them."""
    every, began_s, ended_s = found.tallies, *found.window_s
    live = [each for each in every if each.kind.endswith("live")]
    stayed = found.stayed and every[: found.stayed]
    growth = growth_mb(found)
    worst, who = min((share, each.name) for each, share in zip(every, shares(found), strict=True))
    load = sum(each.sent for each in live) / max(1, sum(each.answered for each in live))
    ages, turns = ages_ms(live, began_s, ended_s), turns_ms(live, began_s, ended_s)
    age, bound = (float(np.percentile(each, 99)) if each else np.inf for each in (ages, turns))
    unheard = sum(abs(each.sent - each.heard) for each in stayed)
    odd, failed = sum(each.out_of_order for each in every), sum(each.failed for each in every)
    faults = [each.fault for each in every if each.fault]
    all_open = sum(each.kind != "http" for each in every), len(every)
    gone = "-" if found.gone_s is None else f"{found.gone_s:.0f} s"
    return [
        Promise(
            "least memory, MB more in the last quarter than in the second",
            f"{growth:+.1f}",
            f"<= {GROWTH_MB:g}",
            growth <= GROWTH_MB,
        ),
        Promise("live frames sent for each answered", f"{load:.1f}", f">= {OVERLOAD:g}", load >= OVERLOAD),
        Promise(f"worst share of fair ({who})", f"{worst:.2f}", f">= {WORST_SHARE:g}", worst >= WORST_SHARE),
        Promise("p99 age live, ms; two turns of a stream", f"{age:.0f}", f"<= {bound:.0f}", age <= bound),
        Promise("frames of those who stay without an outcome", f"{unheard}", "0", unheard == 0),
        Promise("outcomes out of order", f"{odd}", "0", odd == 0),
        Promise("frames failed", f"{failed}", "0", failed == 0),
        Promise(
            "streams that broke",
            f"{len(faults)}",
            "0" + "".join(f"; {each}" for each in faults[:1]),
            not faults,
        ),
        Promise(
            "streams, sessions at the end of the load",
            "{}, {}".format(*found.before),
            "{}, {}".format(*all_open),
            found.before == all_open,
        ),
        Promise(
            f"streams, sessions left {gone} after {len(every) - found.stayed} clients vanished",
            "{}, {}".format(*found.after),
            "{}, {}".format(*found.expected),
            found.gone_s is not None and found.after == found.expected,
        ),
        Promise(
            "streams, sessions left at the end", "{}, {}".format(*found.last), "0, 0", found.last == (0, 0)
        ),
        Promise("exit code of the server after SIGTERM", f"{found.exit_code}", "0", found.exit_code == 0),
    ]


def growth_mb(found: Found) -> float:
    """By how much the least that the server held grew from the second quarter of the load to the last one.

    The least: what waits in buffers comes and goes with the moment, what is lost stays.
    """
    length_s = found.plan.seconds
    held = [(each.at_s / length_s, each.resident_mb) for each in found.samples]
    second = [mb for share, mb in held if 0.25 <= share < 0.5]
    last = [mb for share, mb in held if 0.75 <= share < 1.0]
    return min(last) - min(second) if second and last else np.inf


def shares(found: Found) -> list[float]:
    """For each stream what it was answered, as a share of what is fair: as much as all, but no more than it sent."""
    began_s, ended_s = found.window_s
    counts = [sum(began_s <= at <= ended_s for at in each.times_s) for each in found.tallies]
    mean, sent = float(np.mean(counts)), found.plan.rate_hz * (ended_s - began_s)
    return [
        count / max(1e-9, min(mean, sent) if each.kind.endswith("live") else mean)
        for each, count in zip(found.tallies, counts, strict=True)
    ]


def ages_ms(tallies: Sequence[Tally], began_s: float, ended_s: float) -> list[float]:
    """From arrival to answer, of the frames that were answered in this time."""
    return [
        age
        for each in tallies
        for age, at in zip(each.ages_ms, each.times_s, strict=True)
        if began_s <= at <= ended_s
    ]


def turns_ms(tallies: Sequence[Tally], began_s: float, ended_s: float) -> list[float]:
    """From one answer of a stream to the one after the next: none of its frames is older than that.

    With a mailbox of one a frame that is answered came after the one before it was taken out, which was when the one
    before that had its answer; what came sooner was superseded.
    """
    return [
        (later - at) * 1e3
        for each in tallies
        for at, later in zip(each.times_s, each.times_s[2:], strict=False)
        if began_s <= later <= ended_s
    ]


def table(found: Found) -> str:
    """Frames by kind of stream, and the server over time, as text."""
    began_s, ended_s = found.window_s
    lines = [
        f"{'streams':15} {'n':>3} {'sent':>8} {'answered':>8} {'dropped':>8} {'failed':>6} {'Hz each':>7} "
        f"{'age p50':>8} {'p99':>7} {'2 turns p99':>11} {'share':>6}"
    ]
    by_kind: dict[str, list[tuple[Tally, float]]] = {}
    for each, share in zip(found.tallies, shares(found), strict=True):
        by_kind.setdefault(each.kind, []).append((each, share))
    for kind, those in by_kind.items():
        tallies = [each for each, _ in those]
        ages = ages_ms(tallies, began_s, ended_s) or [np.nan]
        turns = turns_ms(tallies, began_s, ended_s) or [np.nan]
        sums = [
            sum(getattr(each, name) for each in tallies) for name in ("sent", "answered", "dropped", "failed")
        ]
        rate_hz = len(ages) / len(tallies) / (ended_s - began_s)
        lines.append(
            f"{kind:15} {len(tallies):3} {sums[0]:8} {sums[1]:8} {sums[2]:8} {sums[3]:6} {rate_hz:7.1f} "
            f"{np.percentile(ages, 50):8.0f} {np.percentile(ages, 99):7.0f} {np.percentile(turns, 99):11.0f} "
            f"{min(share for _, share in those):6.2f}"
        )
    answered = sum(len(ages_ms([each], began_s, ended_s)) for each in found.tallies)
    cost_ms = (ended_s - began_s) * 1e3 / max(1, answered)
    lines.append(
        f"{answered} frames in {ended_s - began_s:.0f} s, one in {cost_ms:.2f} ms: "
        f"a turn of {len(found.tallies)} streams takes {len(found.tallies) * cost_ms:.0f} ms\n"
    )
    held = [each.resident_mb for each in found.samples] or [np.nan]
    lines.append(f"memory of the server: {min(held):.0f} to {max(held):.0f} MB")
    lines.append(f"{'at, s':>7} {'memory, MB':>10} {'files':>6} {'streams':>8} {'sessions':>8}")
    chosen = sorted({round(index) for index in np.linspace(0, len(found.samples) - 1, 12)})
    lines += [
        f"{each.at_s:7.0f} {each.resident_mb:10.1f} {each.files:6} {each.streams:8} {each.sessions:8}"
        for each in (found.samples[index] for index in chosen)
    ]
    return "\n".join(lines)


def verdicts(judged: Sequence[Promise]) -> str:
    """Each promise with what was measured."""
    return "\n".join(
        f"{each.what:62} {each.measured:>8}  {each.wanted:12} {'kept' if each.kept else 'BROKEN'}"
        for each in judged
    )


def plot(found: Found) -> str:
    """An SVG: memory, and streams and sessions, over time."""
    at_s = np.array([each.at_s for each in found.samples])
    held = {"resident": np.array([each.resident_mb for each in found.samples])}
    counts = {
        name: np.array([getattr(each, name) for each in found.samples], float)
        for name in ("streams", "sessions", "files")
    }
    title = (
        f"{len(found.tallies)} streams, load for {found.plan.seconds:.0f} s ({WARM_UP:.0%} of it to warm up)"
    )
    return plots.page(
        title, [("memory of the server [MB]", at_s, held), ("open in the server", at_s, counts)]
    )
