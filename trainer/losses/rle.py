"""Residual log-likelihood estimation, RLE: regression under a density of the error that a flow learns.

Axes: B crops, K joints, D dimensions of a point, N joints of any crops. Points may have any unit; the published one
is x / width - 0.5, y / height - 0.5. The flow serves training only.

With e = (predicted - target) / sigma, Q a unit Laplace or Gaussian density and G the flow's density, the paper
minimises per joint

    paper:     sum_d [log sigma_d - log Q(e_d)] - log G(e)

What the two public codes compute is another loss, and the published accuracies are theirs. Their log sigma counts
twice and log G counts D times, since it is added to each coordinate; the official one has its own Laplace term:

    mmpose:    sum_d [2 log sigma_d + log 2 + |e_d|] - D log G(e)              with sigma + 1e-9 in e
    official:  sum_d [2 log sigma_d + log sqrt(2 pi) + |e_d| / sqrt(2)] - D log G(e)

Each is summed over the joints and divided by B. Without residual log Q drops out, and one log sigma of the public
forms with it.

Source: Li et al., ICCV 2021, arXiv:2107.11291; RealNVP: Dinh et al. 2017, arXiv:1605.08803. Differs from the public
codes: joints of weight 0 never enter the flow (there they do and are multiplied by 0, so that one bad label is NaN);
log sigma is computed from the logit and sigma is bounded below, so logits of any size stay finite; the flow runs in
its own precision under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.losses.masks import bounded, precise

Form = Literal["mmpose", "official", "paper"]
Residual = Literal["laplace", "gaussian"]

MASKS_2D = ((0, 1), (1, 0)) * 3
"""Which coordinates each coupling keeps."""
MASKS_3D = ((0, 0, 1), (1, 1, 0)) * 3
"""As `MASKS_2D`, for points in space."""
LARGEST_LOGIT = 30.0
"""Sigma logits beyond +-this count as this: a sigma of 1e-13, which float32 still bears squared."""
_SOFTENING = 1e-9
_LOG_SQRT_2PI = math.log(2 * math.pi) / 2


class RealNVP(nn.Module):
    """An invertible map between errors and a standard normal variable, made of affine couplings.

    Args:
        masks: one (D,) row of 0 and 1 per coupling: 1 keeps the coordinate, 0 moves it.
        hidden: width of the small nets in the couplings.
    """

    def __init__(self, masks: Sequence[Sequence[int]] = MASKS_2D, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("masks", torch.tensor(masks, dtype=torch.float32))
        dimensions = self.masks.shape[1]
        self.scales = nn.ModuleList(
            nn.Sequential(*_layers(dimensions, hidden), nn.Tanh()) for _ in self.masks
        )
        self.shifts = nn.ModuleList(nn.Sequential(*_layers(dimensions, hidden)) for _ in self.masks)

    def forward(self, z: Tensor) -> Tensor:
        """Generate: (N, D) standard normal values -> (N, D) errors."""
        with _own_precision(z):
            x = z.to(self.masks.dtype)
            for mask, scale, shift in zip(self.masks, self.scales, self.shifts, strict=True):
                kept = x * mask
                x = kept + (1 - mask) * (x * torch.exp(scale(kept)) + shift(kept))
            return x

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `forward`: (N, D) errors -> (N, D) values and the log-determinants (N,) of that map."""
        with _own_precision(x):
            z = x.to(self.masks.dtype)
            log_determinant = z.new_zeros(len(z))
            for mask, scale, shift in zip(
                reversed(self.masks), reversed(self.scales), reversed(self.shifts), strict=True
            ):
                kept, moved = z * mask, 1 - mask
                log_scale = scale(kept) * moved
                z = kept + moved * (z - shift(kept)) * torch.exp(-log_scale)
                log_determinant = log_determinant - log_scale.sum(-1)
            return z, log_determinant

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density of (N, D) errors, (N,). With all weights 0, that of the standard normal."""
        z, log_determinant = self.inverse(x)
        return -(z.square() / 2 + _LOG_SQRT_2PI).sum(-1) + log_determinant


class RLELoss(nn.Module):
    """Negative log-likelihood of the target, summed over the joints and divided by the crops. May be negative.

    Args:
        dimensions: D, 2 or 3. Mixed batches take one loss of each kind, as the authors do: a joint without a depth
            label has no place in a flow over three coordinates.
        form: which of the losses at the head of this module.
        residual: the density Q; None learns the whole density with the flow. The official form knows no Gaussian.
        flow: used instead of a new one.
    """

    def __init__(
        self,
        dimensions: int = 2,
        *,
        form: Form = "mmpose",
        residual: Residual | None = "laplace",
        flow: RealNVP | None = None,
    ) -> None:
        super().__init__()
        if form == "official" and residual == "gaussian":
            raise ValueError("the official form of RLE has a Laplace residual or none")
        self.form, self.residual = form, residual
        self.flow = RealNVP({2: MASKS_2D, 3: MASKS_3D}[dimensions]) if flow is None else flow

    def forward(self, predicted: Tensor, sigma_logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """The loss of a batch, a scalar; 0 with its gradient path where every weight is 0.

        Args:
            predicted: (B, K, D) points.
            sigma_logits: (B, K, D); sigma is their sigmoid.
            target: (B, K, D) points.
            weights: (B, K) or (B, K, D) >= 0. What stands at a joint without any weight does not matter; the flow
                sees all coordinates of the others.
        """
        if weights.ndim == 2:
            weights = weights[..., None].expand_as(predicted)
        counted = (weights > 0).any(-1)
        rows = (precise(each)[counted] for each in (predicted, sigma_logits, target, weights))
        return self._summed(*rows) / max(len(predicted), 1)

    def _summed(self, predicted: Tensor, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Weighted losses of (N, D) points, summed."""
        error = standardised(predicted, logits, target, softening=_SOFTENING * (self.form == "mmpose"))
        log_g = self.flow.log_prob(error)[:, None]
        log_sigma = functional.logsigmoid(_bounded(logits))
        residual = self._residual(predicted, logits, target, error)
        if self.form == "paper":
            joint_weights = weights.amax(-1, keepdim=True)
            return ((log_sigma + residual) * weights).sum() - (log_g * joint_weights).sum()
        flow_weights = weights[:, :1] if self.form == "official" else weights
        return ((log_sigma - log_g) * flow_weights + residual * weights).sum()  # log G counts D times

    def _residual(self, predicted: Tensor, logits: Tensor, target: Tensor, error: Tensor) -> Tensor:
        """-log Q, (N, D); of the public forms with their second log sigma."""
        if self.residual is None:
            return torch.zeros_like(error)
        if self.form == "official":
            return official_log_q(predicted, logits, target)
        minus_log_q = {"laplace": _laplace, "gaussian": _gaussian}[self.residual](error)
        return minus_log_q if self.form == "paper" else minus_log_q + functional.logsigmoid(_bounded(logits))


def standardised(
    predicted: Tensor, sigma_logits: Tensor, target: Tensor, *, softening: float = 0.0
) -> Tensor:
    """The error in units of sigma, (predicted - target) / (sigma + softening); all (..., D)."""
    reciprocal = 1 + torch.exp(-_bounded(sigma_logits))  # of a sigmoid, without the loss of digits
    return (predicted - target) * (reciprocal / (1 + softening * reciprocal))


def official_log_q(predicted: Tensor, sigma_logits: Tensor, target: Tensor) -> Tensor:
    """The official code's -log Q, log(sigma sqrt(2 pi)) + |error| / (sqrt(2) sigma); all (..., D)."""
    error = standardised(predicted, sigma_logits, target, softening=_SOFTENING / math.sqrt(2))
    return functional.logsigmoid(_bounded(sigma_logits)) + _LOG_SQRT_2PI + error.abs() / math.sqrt(2)


def scores(sigma_logits: Tensor) -> Tensor:
    """Confidence (B, K) from (B, K, D) logits: 1 minus the mean sigma."""
    return 1 - sigma_logits.sigmoid().mean(-1)


def _laplace(error: Tensor) -> Tensor:
    return error.abs() + math.log(2)


def _gaussian(error: Tensor) -> Tensor:
    return error.square() / 2 + _LOG_SQRT_2PI


def _bounded(sigma_logits: Tensor) -> Tensor:
    return bounded(sigma_logits, -LARGEST_LOGIT, LARGEST_LOGIT)


def _layers(dimensions: int, hidden: int) -> list[nn.Module]:
    """A small net, near 0 at first, so that a new flow is nearly the identity."""
    linear = [nn.Linear(dimensions, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, dimensions)]
    for each in linear:
        nn.init.xavier_uniform_(each.weight, gain=0.01)
        nn.init.zeros_(each.bias)
    return [linear[0], nn.LeakyReLU(), linear[1], nn.LeakyReLU(), linear[2]]


def _own_precision(values: Tensor) -> torch.autocast:
    return torch.autocast(values.device.type, enabled=False)
