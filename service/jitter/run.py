"""The whole measurement: make the clips, run them through the service, and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import InvalidRequest
from service.jitter import made, motion, plot, recording, report
from service.jitter.motion import KnownClip
from service.jitter.report import Row
from service.predictor import Predictor
from service.registry import ServedModel
from service.streams import smoothers

SMOOTHERS = (smoothers.NONE, "ema", smoothers.DEFAULT)


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    data: Path
    """Folder with the photographs' annotations and `video/*.mp4`."""
    annotations: str
    """COCO keypoints, relative to `data`: of photographs, or of clips that were made to order."""
    stills: int
    """How many photographs, or clips."""
    seed: int
    """Which ones, and the camera's noise."""
    rates: tuple[int, ...]
    """Frames a second; made clips have their own."""
    videos: bool
    """Whether to measure the videos too."""


@dataclass(frozen=True)
class Result:
    """What was found."""

    synthetic: list[Row]
    filmed: list[Row]
    left_out: int
    """Clips in which nobody was followed all through."""
    plot: str | None
    """An SVG of the first clip at the highest rate up to 30; None where nobody was followed in it."""


async def measure(
    predictor: Predictor,
    model: ServedModel,
    plan: Plan,
    say: Callable[[str], None],
    *,
    names: Sequence[str] = SMOOTHERS,
) -> Result:
    """Run a plan; `say` is told how far it is.

    Raises:
        InvalidRequest: the data cannot be read.
        ServiceError: the model cannot answer a frame.
    """
    makers = {name: smoothers.make(name, {}) for name in names}
    clips = _clips(plan)
    films = sorted((plan.data / "video").glob("*.mp4")) if plan.videos else []
    if not clips and not films:
        raise InvalidRequest(f"nothing to measure in {plan.data}")
    finished = iter(range(1, len(clips) + 1))
    recordings = await recording.record_clips(
        predictor, model, clips, lambda: say(f"clip {next(finished)} of {len(clips)}")
    )
    rows, left_out = report.synthetic(clips, recordings, makers)
    filmed = []
    for film in films:
        times, frames = recording.video_frames(film)
        found = await recording.record(predictor, model, frames, times)
        followed = sum(len(each.times) for each in found)
        say(f"{film.name}: {len(times)} frames, {len(found)} identities, followed in {followed}")
        filmed += report.filmed(film.stem, found, makers)
    return Result(rows, filmed, left_out, _plot(clips, recordings, makers))


def _clips(plan: Plan) -> Sequence[KnownClip]:
    """Those of a made set as they are, or photographs in motion at every rate."""
    annotations = plan.data / plan.annotations
    known = made.clips(annotations, plan.stills, plan.seed) if plan.stills else []
    if known is not None:
        return known
    stills = motion.stills(annotations, plan.stills, plan.seed)
    return [
        motion.Clip(still, kind, rate, plan.seed + index)
        for rate in plan.rates
        for index, still in enumerate(stills)
        for kind in motion.KINDS
    ]


def _plot(clips, recordings, makers) -> str | None:
    """The joint that moves most, of the first clip at a usual rate."""
    usual = [i for i, clip in enumerate(clips) if clip.rate_hz <= 30 and recordings[i]]
    if not usual:
        return None
    chosen = max(usual, key=lambda i: clips[i].rate_hz)
    clip, found = clips[chosen], max(recordings[chosen], key=lambda each: len(each.times))
    name = next((each for each in ("right_wrist", *clip.names) if each in found.keypoints), None)
    if name is None or name not in clip.names:
        return None
    truth = clip.truth(found.times)[:, clip.names.index(name), 0]
    joint = found.keypoints.index(name)
    tracks = {label: recording.smooth(found, each).points[:, joint, 0] for label, each in makers.items()}
    return plot.svg(f"{clip.kind} at {clip.rate_hz} fps: {name}, x", found.times, truth, tracks)
