"""What the workers of a model do with a batch of jobs: images to pixels, to crops, to heatmaps, to keypoints.

One hop off the event loop in all. The header of an image is judged here too, because reading the header of a hostile
file can take long and must not hold up other clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np

from model_zoo import geometry
from model_zoo.errors import HeatmapError, UnknownDecoder
from model_zoo.scores import SURE_SCORE, of_rules
from model_zoo.skeletons import Skeleton
from service import decoding, heads, images, render
from service.errors import InvalidBoxes, ServiceError
from service.heads import Answers
from service.images import Decoded, ImageLimits
from service.looks import (
    Job,
    Look,
    Seen,
    as_told,
    box_of_the_sure,
    coarsest,
    pose_of,
    without_context,
)
from service.metrics import StageMetrics
from service.pipeline import Answer, Device, Net
from service.runner import Runner
from service.types import BoxSource, Floats, Image, Prediction, Reading, Timing


class Stages:
    """What the workers of one model do.

    Args:
        runner: the model.
        skeleton: what it finds.
        limits: for every image.
        batch_size: most crops in one call of the model.
        metrics: where the time goes.
        device: makes the calls of the net, together with those of other workers; None to make them in the worker.
    """

    def __init__(
        self,
        runner: Runner,
        skeleton: Skeleton,
        limits: ImageLimits,
        batch_size: int,
        metrics: StageMetrics,
        device: Device | None = None,
    ) -> None:
        self._runner = runner
        self._manifest = runner.manifest
        self._skeleton = skeleton
        self._further = heads.outputs(runner.manifest)
        self._sure_score = float(of_rules(SURE_SCORE, runner.manifest.score_calibration))
        self._limits = limits
        self._batch_size = batch_size
        self._metrics = metrics
        self._call = partial(_call_alone, metrics.ran) if device is None else device.call

    def open_worker(self) -> partial[list[Prediction | Exception]]:
        """A function for one worker thread: a batch of jobs to their answers, with a crop buffer of its own."""
        return partial(self._answer, np.empty((self._batch_size, *self._manifest.input.size, 3), np.uint8))

    def _answer(self, crops: Image, jobs: Sequence[Job]) -> list[Prediction | Exception]:
        answers: dict[int, Prediction | Exception] = {}
        taken_s = time.perf_counter()
        # The graph answers keypoints or heatmaps, so that those who want the one and the other are never in one call.
        for net, inside in ((self._runner.keypoints, True), (self._runner.run, False)):
            numbered = [
                (index, job) for index, job in enumerate(jobs) if (job.decoder.function is None) is inside
            ]
            for group in self._decoded(crops, numbered, taken_s, answers):
                answers |= self._answered(net, crops, group)
        told = [answers[index] for index in range(len(jobs))]
        self._note(jobs, told, taken_s)
        return told

    def _answered(self, net: Net, crops: Image, group: Sequence[Seen]) -> dict[int, Prediction | Exception]:
        """The answers to a group, which is of no use afterwards: what it held is free at once.

        A frame and its looks hold each other, and images are too large to wait for the collector of such garbage.
        """
        try:
            self._estimate(net, crops, group)
        except Exception as error:  # the model failed; frames of other groups have their answers
            return {seen.index: error for seen in group}
        else:
            return {seen.index: self._told(seen) for seen in group}
        finally:
            for seen in group:
                seen.looks, seen.decoded = [], None

    def _told(self, seen: Seen) -> Prediction | Exception:
        try:
            return seen.error or self._prediction(seen)
        except Exception as error:  # drawing failed
            return error

    def _note(self, jobs: Sequence[Job], told: Sequence[Prediction | Exception], taken_s: float) -> None:
        """Count what a batch answered."""
        now_s = time.perf_counter()
        predictions = [each for each in told if isinstance(each, Prediction)]
        self._metrics.answered(
            [
                now_s - job.since_s
                for job, each in zip(jobs, told, strict=True)
                if isinstance(each, Prediction)
            ],
            [pose.score for each in predictions for pose in each.poses if pose.present],
        )
        traces = [job.trace for job in jobs if job.trace is not None]
        if traces:
            model = f"{self._manifest.name}@{self._manifest.version}"
            traces[0].batch(traces, taken_s, {"reppose.model": model, "reppose.batch.frames": len(jobs)})

    def _decoded(
        self,
        crops: Image,
        jobs: Sequence[tuple[int, Job]],
        taken_s: float,
        answers: dict[int, Prediction | Exception],
    ) -> Iterator[list[Seen]]:
        """Decode frames, in groups that together hold little more than the largest image that is allowed.

        The first crops of a group, as many as `crops` holds, are cut at once, while the pixels are still in the
        processor's cache. Whatever is wrong with one frame becomes its answer.
        """
        group: list[Seen] = []
        held = cut = 0
        for (index, job), maps in zip(jobs, self._maps([job for _, job in jobs]), strict=True):
            started_s = time.perf_counter()
            try:
                seen = self._open(index, job, maps)
                decode_s = time.perf_counter() - started_s
                for look, crop in zip(seen.looks, crops[cut:], strict=False):
                    self._cut(look, crop)
            except Exception as error:
                answers[index] = _without_frames(error) if isinstance(error, ServiceError) else error
                decode_s = time.perf_counter() - started_s
                continue
            finally:
                self._metrics.spent("decode", decode_s)
            seen.queue_s, seen.decode_s = taken_s - job.since_s, decode_s
            if job.trace is not None:
                job.trace.stage("queue", job.since_s, taken_s)
                job.trace.stage("decode", started_s, started_s + decode_s)
            group.append(seen)
            cut = min(len(crops), cut + len(seen.looks))
            if job.boxes is not None and not job.render and seen.looks[-1].cut_s is not None:
                seen.decoded = None
            else:
                held += seen.decoded.pixels.shape[0] * seen.decoded.pixels.shape[1]
            if held >= self._limits.pixels:
                yield group
                group, held, cut = [], 0, 0
        if group:
            yield group

    def _maps(self, jobs: Sequence[Job]) -> list[Sequence[Floats]]:
        """For each job the (2, 3) maps to the crops of its boxes."""
        boxes = [box for job in jobs for box in job.boxes or ()]
        if not boxes:
            return [()] * len(jobs)
        spec = self._manifest.input
        maps = iter(geometry.upright_crop_affine(boxes, spec.size, spec.padding))
        return [list(islice(maps, len(job.boxes or ()))) for job in jobs]

    def _open(self, index: int, job: Job, maps: Sequence[Floats]) -> Seen:
        frame, limits = job.frame, self._limits
        if frame.meter is not None:
            limits = images.MeteredLimits(limits.bytes, limits.pixels, limits.side, frame.meter)
        if frame.pixels_size is None:
            decoded = images.decode(frame.data, limits, self._reduction(job, maps))
        else:
            decoded = Decoded(images.bare(frame.data, frame.pixels_size, limits), frame.pixels_size)
        if job.boxes is None:
            spec = self._manifest.input
            box = without_context(geometry.whole_image_box(decoded.size), spec.padding)
            seen = Seen(index, job, decoded, decoded.size, BoxSource.IMAGE)
            (whole,) = geometry.upright_crop_affine([box], spec.size, spec.padding)
            seen.looks = [Look(seen, box, whole)]
            return seen
        height, width = decoded.size
        for number, (x, y, box_width, box_height) in enumerate(job.boxes):
            if min(x + box_width, width - 0.5) <= max(x, -0.5) or min(y + box_height, height - 0.5) <= max(
                y, -0.5
            ):
                raise InvalidBoxes(
                    f"box {number} lies outside of the image, which has {width} x {height} pixels"
                )
        seen = Seen(index, job, decoded, decoded.size, BoxSource.REQUEST)
        seen.looks = [Look(seen, box, matrix) for box, matrix in zip(job.boxes, maps, strict=True)]
        return seen

    def _reduction(self, job: Job, maps: Sequence[Floats]) -> float:
        """How far a frame may be reduced while it is decoded, once for all its boxes.

        Not at all to be drawn on, and not without boxes: a first look at a reduced frame lays the box a little
        elsewhere, which moves the joints of the second look, and it mostly needs the frame in full.
        """
        if job.boxes is None or job.render:
            return 1.0
        return coarsest(max(matrix[0, 0] for matrix in maps))

    def _cut(self, look: Look, crop: Image) -> None:
        """Resample a look's part of its frame into the crop."""
        started_s = time.perf_counter()
        decoded = look.seen.decoded
        geometry.crop(decoded.pixels, decoded.crop_map(look.map), self._manifest.input.size, out=crop)
        ended_s = time.perf_counter()
        look.cut_s = ended_s - started_s
        if look.seen.job.trace is not None:
            look.seen.job.trace.stage("warp", started_s, ended_s)

    def _estimate(self, net: Net, crops: Image, group: Sequence[Seen]) -> None:
        self._look(net, crops, [look for seen in group for look in seen.looks])
        firsts, found = [], []
        for seen in group:
            if seen.source is BoxSource.IMAGE and seen.error is None:
                (first,) = seen.looks
                box = box_of_the_sure(first.points, first.scores >= self._sure_score, seen.size)
                first.box = geometry.whole_image_box(seen.size)
                if box is not None:
                    firsts.append(first)
                    found.append(box)
        if not found:
            return
        spec = self._manifest.input
        maps = geometry.upright_crop_affine(found, spec.size, spec.padding)
        seconds = [Look(first.seen, *each) for first, *each in zip(firsts, found, maps, strict=True)]
        self._look(net, crops, seconds)
        for first, second in zip(firsts, seconds, strict=True):
            seen = first.seen
            if seen.error is None and second.scores.mean() >= first.scores.mean():
                seen.source, seen.looks = BoxSource.FOUND, [second]

    def _look(self, net: Net, crops: Image, looks: Sequence[Look]) -> None:
        """Fill in what is found by every look; an error of a decoder goes to the frames that asked for it."""
        for start in range(0, len(looks), self._batch_size):
            chunk = looks[start : start + self._batch_size]
            batch = crops[: len(chunk)]
            for look, crop in zip(chunk, batch, strict=True):
                if look.cut_s is None:
                    self._cut(look, crop)
            times = [time.perf_counter()]
            answer, together = self._call(net, batch)
            times.append(time.perf_counter())
            self._read(chunk, answer, np.array([look.map for look in chunk]))
            times.append(time.perf_counter())
            self._metrics.spent("warp", sum(look.cut_s for look in chunk))
            stages = [*zip(("infer", "decode_keypoints"), times, times[1:], strict=False)]
            for stage, began_s, ended_s in stages:
                self._metrics.spent(stage, ended_s - began_s)
            for seen in {look.seen for look in chunk}:
                seen.infer_s += times[1] - times[0]
                seen.batch = max(seen.batch, together)
                if seen.job.trace is not None:
                    for stage in stages:
                        seen.job.trace.stage(*stage, {"reppose.batch.crops": together})

    def _read(self, chunk: Sequence[Look], answer: Answer, maps: Floats) -> None:
        if isinstance(answer, Answers):
            self._hear(chunk, answer.more, maps)
            answer = answer.main
        by_decoder: dict[str, list[int]] = {}
        for row, look in enumerate(chunk):
            by_decoder.setdefault(look.seen.job.decoder.name, []).append(row)
        parts = list(by_decoder.values())
        for rows in parts:
            decoder = chunk[rows[0]].seen.job.decoder
            picked = slice(None) if len(rows) == len(chunk) else rows  # the usual case needs no copy
            try:
                points, scores = decoding.read(decoder, self._manifest, answer[picked], maps[picked])
            except Exception as error:  # it may be anybody's plug-in
                if len(rows) > 1:  # one of them may be at fault
                    parts += [[row] for row in rows]
                else:
                    chunk[rows[0]].seen.error = error
                continue
            told = as_told(points, scores)
            means = told[1].mean(axis=1).round(4).tolist()
            for row, *found, mean in zip(rows, points, scores, *told, means, strict=True):
                look = chunk[row]
                look.points, look.scores, *its_told = found
                look.answer = (*its_told, mean)
        for row, look in enumerate(chunk):
            if look.seen.job.compare and look.seen.error is None:
                try:
                    look.readings = self._compare(answer[[row]], maps[[row]])
                except Exception as error:  # one of all decoders failed, which only this frame asked for
                    look.seen.error = error
            if look.seen.job.heatmaps and look.seen.error is None:
                look.heatmaps = decoding.in_frame(self._manifest, answer[row], maps[row])

    def _hear(self, chunk: Sequence[Look], more: Sequence[Floats], maps: Floats) -> None:
        """Fill in what the net says beside keypoints; numbers that are none are the error of their frame alone."""
        try:
            said = heads.read(self._further, more, maps, [look.seen.job.min_presence for look in chunk])
        except HeatmapError as error:
            if len(chunk) == 1:
                chunk[0].seen.error = error
                return
            for row, look in enumerate(chunk):
                self._hear([look], [each[[row]] for each in more], maps[[row]])
        else:
            for look, each in zip(chunk, said, strict=True):
                look.heads = each

    def _compare(self, heatmaps: Floats, maps: Floats) -> tuple[Reading, ...]:
        """What every decoder finds in one crop."""
        readings = []
        for name in decoding.names(self._manifest):
            try:
                decoder = decoding.pick(self._manifest, name, on_heatmaps=True)
            except UnknownDecoder as error:  # a plug-in that cannot be loaded, which nobody named
                raise HeatmapError(str(error)) from error
            points, scores = decoding.read(decoder, self._manifest, heatmaps, maps)
            readings.append(Reading(name, *as_told(points[0], scores[0])))
        return tuple(readings)

    def _prediction(self, seen: Seen) -> Prediction:
        poses = tuple(pose_of(look, seen.source) for look in seen.looks)
        if self._metrics.found is not None:
            self._metrics.found(poses)
        for pose in poses if seen.job.compare else ():
            if pose.comparison is not None:
                self._metrics.compared(pose.comparison.disagreement_px)
        picture = None
        if seen.job.render:
            began_s = time.perf_counter()
            drawn = render.draw(seen.decoded.pixels, poses, self._skeleton, self._manifest.score_calibration)
            picture = render.png(drawn)
            ended_s = time.perf_counter()
            self._metrics.spent("render", ended_s - began_s)
            if seen.job.trace is not None:
                seen.job.trace.stage("render", began_s, ended_s)
        return Prediction(
            model=self._manifest.name,
            version=self._manifest.version,
            decoder=seen.job.decoder.name,
            size=seen.size,
            keypoints=self._manifest.keypoints,
            poses=poses,
            timing=Timing(seen.queue_s, seen.decode_s, seen.infer_s, seen.batch),
            picture=picture,
        )


def _call_alone(ran: Callable[[int], None], net: Net, crops: Image) -> tuple[Answer, int]:
    """The answer, and how many crops were in the call; as `pipeline.Device.call`, but here and now."""
    answer = net(crops)
    ran(len(crops))
    return answer, len(crops)


def _without_frames(error: BaseException) -> Exception:
    """The error, and what it came of, without the frames they passed through: these hold the image, and the error."""
    at: BaseException | None = error
    while at is not None and at.__traceback__ is not None:
        at.__traceback__ = None
        at = at.__cause__ or at.__context__
    return error
