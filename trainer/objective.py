"""From a configuration to what a step minimises: named terms over a net's outputs and a batch, and their weighted sum.

Every term is a mean over what is labelled for it, and says over how much (`Part.weight`). With that, processes that
share a batch scale their means so that together they have the gradient of one process on the whole batch.

`Labels` hold what is true in pixels of the crop and bring it into the unit that each loss wants. What is not labelled
never counts: keypoints by their weight, depth, presence and class each by a mark of their own. Nets in space learn x, y
and z from crops with a depth label and x, y from the others, as two terms: `dsnt_3d` and `dsnt`, say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from model_zoo import skeletons
from trainer.config import RunConfig
from trainer.data.labels import UNKNOWN
from trainer.data.loader import Batch
from trainer.distill import okdhp, teacher
from trainer.losses import bone, dsnt, heatmap, integral, multitask, oks, regression, rle, simcc
from trainer.losses.awl import AutomaticWeightedLoss
from trainer.losses.masks import only
from trainer.losses.ohkm import hardest
from trainer.losses.sections import KEYPOINT_TERMS
from trainer.nets import answers
from trainer.nets.heads import Outputs
from trainer.nets.pose import MAP_HEADS


@dataclass(frozen=True)
class Part:
    """One term of a batch."""

    loss: Tensor
    """Mean over what counts; a scalar."""
    weight: Tensor
    """Over how much the mean was taken; a scalar."""
    floor: float = 1.0
    """Least weight that the mean was divided by."""
    factor: float = 1.0
    """In the sum, before the balance of the terms is learnt."""
    counted: Tensor | None = None
    """How much is labelled for it, a scalar, where the mean is over more than that; None: as much as `weight`."""

    @property
    def labelled(self) -> Tensor:
        """How much is labelled for it: 0 where the batch lacks it."""
        return self.weight if self.counted is None else self.counted

    def shared(self, together: Tensor, labelled: Tensor, processes: int) -> Part:
        """With the loss that makes the mean over the processes that of the whole batch.

        Args:
            together: weight of the whole batch.
            labelled: how much of the whole batch is.
            processes: that share it.
        """
        part, whole = self.weight.clamp(min=self.floor), together.clamp(min=self.floor)
        return replace(self, loss=self.loss * (processes * part / whole), weight=together, counted=labelled)


Parts = dict[str, Part]


@dataclass(frozen=True)
class Labels:
    """What is true about B crops with K keypoints."""

    pixels: Tensor
    """(B, K, 2) in pixels of the crop; anything where the weight is 0."""
    depth: Tensor
    """(B, K) z in pixels of the crop relative to the root; anything where the crop is not in space."""
    weights: Tensor
    """(B, K) >= 0."""
    in_space: Tensor
    """(B,) bool: every labelled keypoint has a depth."""
    areas: Tensor
    """(B,) square pixels."""
    presence: Tensor
    """(B,) 0, 1 or `UNKNOWN`."""
    classes: Tensor
    """(B,) or `multitask.IGNORED`."""
    handedness: Tensor
    """(B,) 1 left, 0 right, or `UNKNOWN`."""
    size: tuple[int, int]
    """(height, width) of the crops in pixels."""
    stride: int
    """Pixels of the crops per cell of the heatmaps."""

    @classmethod
    def of(cls, batch: Batch, stride: int) -> Labels:
        """Those of a batch, for heatmaps of this stride; where nobody is present no keypoint counts."""
        weights = only(batch.weights, batch.presence != 0)
        in_space = (batch.depth.isfinite() | (weights == 0)).all(1) & (weights > 0).any(1)
        return cls(
            pixels=batch.points,
            depth=batch.depth,
            weights=weights,
            in_space=in_space,
            areas=batch.areas,
            presence=batch.presence,
            classes=batch.classes,
            handedness=batch.handedness,
            size=tuple(batch.images.shape[-2:]),
            stride=stride,
        )

    @property
    def cells(self) -> Tensor:
        """(B, K, 2) in cells of the heatmaps."""
        return (self.pixels - (self.stride - 1) / 2) / self.stride

    @property
    def normalised(self) -> Tensor:
        """(B, K, 3) on (-1, 1), see `losses.dsnt`; z in half crop widths."""
        flat = dsnt.to_normalised(self.pixels, self.size)
        return torch.cat([flat, self.depth[..., None] * (2 / self.size[1])], dim=-1)

    def shares(self, pixels: Tensor) -> Tensor:
        """(B, K, D) pixels as x / width - 0.5, y / height - 0.5 and z / width, see `data.normalise`."""
        height, width = self.size
        extent = pixels.new_tensor([width, height, width][: pixels.shape[-1]])
        return pixels / extent - pixels.new_tensor([0.5, 0.5, 0.0][: pixels.shape[-1]])

    @property
    def points(self) -> Tensor:
        """(B, K, 3) x, y and z in pixels of the crop."""
        return torch.cat([self.pixels, self.depth[..., None]], dim=-1)


class Objective(nn.Module):
    """What a run minimises. It may learn something itself: the balance of its terms, RLE's flows.

    Args:
        config: the run.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config, self.losses = config, config.losses
        self.factors = {name: weight for name, weight in config.losses.terms().items() if weight > 0}
        skeleton = skeletons.skeleton(config.skeleton)
        if "rle" in self.factors:
            how = config.losses.rle
            self.rle = rle.RLELoss(2, form=how.form, residual=how.residual)
            self.rle_3d = (
                rle.RLELoss(3, form=how.form, residual=how.residual) if config.net.dimensions == 3 else None
            )
        if "bone" in self.factors:
            everyone = config.losses.bone.pairs == "all"
            self.bone = bone.JointBoneLoss(bone.all_pairs(len(skeleton)) if everyone else skeleton.bones)
        if "oks" in self.factors:
            self.oks = oks.OKSLoss(skeleton.sigmas)
        self.balance = AutomaticWeightedLoss(self.names()) if config.weighting == "automatic" else None

    def names(self) -> list[str]:
        """Every part that a batch may have."""
        keypoints = [name for name in self.factors if name in KEYPOINT_TERMS]
        if self.config.net.dimensions == 3:
            keypoints = [each for name in keypoints for each in (name, f"{name}_3d")]
        rest = [name for name in self.factors if name not in KEYPOINT_TERMS]
        if self.config.distillation.okdhp is not None:
            rest += ["ensemble", "distillation"]
        if self.config.distillation.teacher is not None:
            rest += [f"teacher_{name}" for name in (*keypoints, "maps")]
        return [*keypoints, *rest]

    def forward(
        self, outputs: Outputs, labels: Labels, *, epoch: float, told: teacher.Targets | None = None
    ) -> Parts:
        """The parts of a batch.

        Args:
            outputs: of the net.
            labels: of the batch.
            epoch: done so far, with fractions.
            told: a teacher's answer to the batch.
        """
        if self.config.distillation.okdhp is not None:
            return self._between_branches(outputs, labels, epoch)
        parts = self._on_keypoints(outputs, self._mined(outputs, labels))
        if told is not None:
            share = self.config.distillation.teacher.share_at(epoch / self.config.epochs)
            parts = {name: replace(part, factor=part.factor * (1 - share)) for name, part in parts.items()}
            taught = self._taught(outputs, labels, told)
            parts |= {f"teacher_{n}": replace(p, factor=p.factor * share) for n, p in taught.items()}
        terms = {
            "bone": self._bone,
            "oks": self._oks,
            "presence": self._presence,
            "handedness": self._handedness,
            "class": self._class,
            "depth": self._depth,
        }
        for name in self.factors.keys() & terms.keys():
            parts[name] = replace(terms[name](outputs, labels), factor=self.factors[name])
        return dict(sorted(parts.items()))

    def total(self, parts: Parts) -> Tensor:
        """The weighted sum; with learnt balance, of those parts that the batch has labels for.

        A part without labels is 0 and stays in the sum, so that every parameter of the net has a gradient in every
        step: processes that share a batch wait for all of them.
        """
        scaled = {name: part.factor * part.loss for name, part in parts.items()}
        if self.balance is None:
            return torch.stack(list(scaled.values())).sum()
        there = {name: loss for name, loss in scaled.items() if parts[name].factor * parts[name].labelled > 0}
        absent = [0.0 * loss for name, loss in scaled.items() if name not in there]
        return torch.stack([*absent, *([self.balance(there)] if there else [])]).sum()

    def _on_keypoints(self, outputs: Outputs, labels: Labels) -> Parts:
        """The terms that train the keypoint head."""
        terms: dict[str, Callable[[Outputs, Labels], Parts]] = {
            "heatmap": self._heatmap,
            "dsnt": self._dsnt,
            "integral": self._integral,
            "simcc": self._simcc,
            "rle": self._rle,
            "coordinates": self._coordinates,
        }
        return {
            part_name: replace(part, factor=self.factors[name])
            for name in terms
            if name in self.factors
            for part_name, part in terms[name](outputs, labels).items()
        }

    def _mined(self, outputs: Outputs, labels: Labels) -> Labels:
        """With the weights of the hardest keypoints alone, where that is asked for."""
        if self.config.ohkm is None:
            return labels
        with torch.no_grad():
            if self.config.net.head in MAP_HEADS:
                maps, sigma = outputs["heatmaps"], self.config.codec.sigma_cells
                apart = heatmap.PER_KEYPOINT[self.config.net.head](maps, labels.cells, labels.weights, sigma)
            else:
                found = labels.shares(answers.points(outputs, self.config.net, labels.size)[..., :2])
                apart = (found - labels.shares(labels.pixels)).abs().mean(-1)
        return replace(labels, weights=hardest(apart, labels.weights, self.config.ohkm))

    def _heatmap(self, outputs: Outputs, labels: Labels) -> Parts:
        return {"heatmap": self._maps_part(self._maps_loss(outputs["heatmaps"], labels), labels)}

    def _maps_loss(self, maps: Tensor, labels: Labels) -> Tensor:
        loss = heatmap.LOSSES[self.config.net.head]
        return loss(maps, labels.cells, labels.weights, self.config.codec.sigma_cells)

    def _maps_part(self, loss: Tensor, labels: Labels) -> Part:
        return Part(loss, labels.weights.sum(), floor=heatmap.SMALLEST_WEIGHT)

    def _dsnt(self, outputs: Outputs, labels: Labels) -> Parts:
        how, sigma = self.losses.dsnt, self.config.codec.sigma_cells

        def part(target: Tensor, weights: Tensor) -> Part:
            loss = dsnt.total(
                outputs["logits"], target, weights, sigma=sigma,
                distance=how.distance, regulariser=how.regulariser, strength=how.strength,
            )  # fmt: skip
            return Part(loss, weights.sum())

        return self._by_dimension("dsnt", labels, labels.normalised, part)

    def _integral(self, outputs: Outputs, labels: Labels) -> Parts:
        how = self.losses.integral
        target = labels.normalised[..., :2]
        mass = self.config.net.debiased or "sum"
        loss = integral.loss(outputs["logits"], target, labels.weights, mass=mass, distance=how.distance)
        return {"integral": Part(loss, labels.weights.sum())}

    def _simcc(self, outputs: Outputs, labels: Labels) -> Parts:
        ratio = self.config.net.split_ratio
        sigma = self.losses.simcc.sigma_px * ratio
        x, y, weights = simcc.labels(
            labels.pixels, labels.weights, labels.size, sigma=(sigma, sigma), split_ratio=ratio
        )
        loss = simcc.kl((outputs["simcc_x"], outputs["simcc_y"]), (x, y), weights, beta=answers.SIMCC_BETA)
        return {"simcc": Part(loss, weights.sum())}

    def _rle(self, outputs: Outputs, labels: Labels) -> Parts:
        points, sigmas = outputs["points"], outputs["sigma_logits"]

        def part(target: Tensor, weights: Tensor) -> Part:
            dimensions = target.shape[-1]
            loss = (self.rle if dimensions == 2 else self.rle_3d)(
                points[..., :dimensions], sigmas[..., :dimensions], target, weights
            )
            return Part(loss, loss.new_tensor(float(len(points))), counted=weights.sum())

        return self._by_dimension("rle", labels, labels.shares(labels.points), part)

    def _coordinates(self, outputs: Outputs, labels: Labels) -> Parts:
        how = self.losses.coordinates
        found = labels.shares(answers.points(outputs, self.config.net, labels.size))

        def part(target: Tensor, weights: Tensor) -> Part:
            predicted = found[..., : target.shape[-1]]
            if how.kind in ("laplace", "gaussian"):
                likelihood = {"laplace": regression.laplace, "gaussian": regression.gaussian}[how.kind]
                loss = likelihood(predicted, outputs["log_scales"], target, weights)
            elif how.kind == "smooth_l1":
                loss = regression.smooth_l1(predicted, target, weights, beta=how.beta)
            else:
                loss = {"l1": regression.l1, "l2": regression.l2}[how.kind](predicted, target, weights)
            return Part(loss, weights.sum())

        return self._by_dimension("coordinates", labels, labels.shares(labels.points), part)

    def _by_dimension(
        self, name: str, labels: Labels, target: Tensor, part: Callable[[Tensor, Tensor], Part]
    ) -> Parts:
        """Crops with and without a depth label apart, for a net in space; `target` is (B, K, 3)."""
        if self.config.net.dimensions == 2:
            return {name: part(target[..., :2], labels.weights)}
        flat, deep = (only(labels.weights, kind) for kind in (~labels.in_space, labels.in_space))
        return {name: part(target[..., :2], flat), f"{name}_3d": part(target, deep)}

    def _taught(self, outputs: Outputs, labels: Labels, told: teacher.Targets) -> Parts:
        """The teacher's maps as they are; its points in the place of labels. Of nobody it teaches nothing."""
        told = replace(told, weights=only(told.weights, labels.presence != 0))
        if told.maps is None:
            nowhere = torch.zeros_like(labels.in_space)
            return self._on_keypoints(
                outputs, replace(labels, pixels=told.points, weights=told.weights, in_space=nowhere)
            )
        maps = outputs["heatmaps"]
        if self.config.net.head == "softmax":
            temperature = self.config.distillation.teacher.temperature
            loss = teacher.heatmap_loss(maps, told.maps, told.weights, temperature)
        else:
            loss = teacher.map_loss(maps, told.maps, told.weights)
        factor = self.factors.get("heatmap", 1.0)
        return {"maps": Part(loss, told.weights.sum(), floor=heatmap.SMALLEST_WEIGHT, factor=factor)}

    def _between_branches(self, outputs: Outputs, labels: Labels, epoch: float) -> Parts:
        how = self.config.distillation.okdhp.weighting
        found = okdhp.loss(
            okdhp.Outputs(**outputs),
            lambda maps: self._maps_loss(maps, labels),
            labels.weights,
            epoch,
            how,
        )
        rise, own = okdhp.ramp_up(epoch, how.rise_epochs), self.factors["heatmap"]
        crops = found.distillation.new_tensor(float(len(labels.weights)))
        return {
            "distillation": Part(
                found.distillation, crops, factor=how.distillation * rise, counted=labels.weights.sum()
            ),
            "ensemble": replace(self._maps_part(found.ensemble, labels), factor=own * how.ensemble),
            "heatmap": replace(self._maps_part(found.branches, labels), factor=own),
        }

    def _bone(self, outputs: Outputs, labels: Labels) -> Part:
        if self.losses.bone.between == "heatmaps":
            found = outputs["heatmaps"]
            if self.config.net.head == "softmax":
                found = dsnt.softmax(found)
            sigma = self.config.codec.sigma_cells
            cells = torch.where((labels.weights > 0)[..., None], labels.cells, 0.0)
            target = heatmap.gaussians(cells, found.shape[-2:], sigma)
            if self.config.net.head == "softmax":
                target = target / target.sum((-2, -1), keepdim=True).clamp(min=1e-12)
        else:
            found = answers.points(outputs, self.config.net, labels.size)[..., :2] / labels.size[1]
            target = labels.pixels / labels.size[1]
        pairs = labels.weights[:, self.bone.pairs].prod(-1)
        return Part(self.bone(found, target, labels.weights), pairs.sum())

    def _oks(self, outputs: Outputs, labels: Labels) -> Part:
        found = answers.points(outputs, self.config.net, labels.size)[..., :2]
        loss = self.oks(found, labels.pixels, labels.weights, labels.areas)
        return Part(loss, (labels.weights > 0).any(-1).sum().to(loss))

    def _presence(self, outputs: Outputs, labels: Labels) -> Part:
        weights = (labels.presence != UNKNOWN).to(labels.presence)
        return Part(multitask.presence(outputs["presence"], labels.presence, weights), weights.sum())

    def _handedness(self, outputs: Outputs, labels: Labels) -> Part:
        known = (labels.handedness != UNKNOWN) & (labels.presence != 0)
        weights = known.to(labels.handedness)
        return Part(multitask.presence(outputs["handedness"], labels.handedness, weights), weights.sum())

    def _depth(self, outputs: Outputs, labels: Labels) -> Part:
        weights = only(labels.weights, labels.in_space)
        found, target = outputs["depth"][..., None], labels.depth[..., None] / labels.size[1]
        return Part(regression.l1(found, target, weights), weights.sum())

    def _class(self, outputs: Outputs, labels: Labels) -> Part:
        smoothing = self.losses.class_.smoothing
        loss = multitask.classification(outputs["class"], labels.classes, smoothing=smoothing)
        return Part(loss, (labels.classes != multitask.IGNORED).sum().to(loss))
