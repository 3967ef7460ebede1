"""SimCC's labels and loss: MMPose's numbers, and what must hold for any label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model_zoo.codecs import simcc as codec
from trainer.losses import simcc

FLOAT32 = {"rtol": 0, "atol": 1e-5}
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def crop(numbers: dict[str, torch.Tensor], *keys: str) -> list[torch.Tensor]:
    """Numbers of one crop as a batch of one."""
    return [numbers[key][None] for key in keys]


@pytest.mark.parametrize("case", [0, 1])
def test_golden_labels(golden_case, case):
    numbers = golden_case("simcc", case)
    width, height = numbers["input_wh"].tolist()
    x, y, weights = simcc.labels(
        *crop(numbers, "keypoints_input_px", "visible"),
        (height, width),
        sigma=tuple(numbers["sigma_xy"].tolist()),
        split_ratio=numbers["split_ratio"].item(),
        normalise=bool(numbers["normalize"]),
    )
    torch.testing.assert_close(x[0], numbers["target_x"], **FLOAT32)
    torch.testing.assert_close(y[0], numbers["target_y"], **FLOAT32)
    assert weights[0].tolist() == numbers["weights"].tolist()


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize(
    ("key", "beta", "label_softmax"), [("kl_beta10_labelsoftmax", 10.0, True), ("kl_beta1_plain", 1.0, False)]
)
def test_golden_divergence(golden_case, case, key, beta, label_softmax):
    numbers = golden_case("simcc", case)
    loss = simcc.kl(
        tuple(crop(numbers, "pred_x", "pred_y")),
        tuple(crop(numbers, "target_x", "target_y")),
        *crop(numbers, "weights"),
        beta=beta,
        label_softmax=label_softmax,
        reduction="mmpose",
    )
    torch.testing.assert_close(loss, numbers[key], **EXACT)


def test_a_label_outside_of_the_crop_counts_as_far_as_3_sigma():
    points = torch.tensor([[[-6.5, 8.0], [-7.0, 8.0], [13.5, 8.0], [14.0, 8.0]]])  # bins -13, -14, 27, 28
    x, _, weights = simcc.labels(points, torch.full((1, 4), 0.3), (16, 8), sigma=(4.0, 4.0))
    assert weights[0].tolist() == pytest.approx([0.3, 0, 0.3, 0])
    assert x[0, 0].argmax() == 0
    assert not x[0, 1].any()


def test_a_normalised_label_sums_to_1():
    x, y, _ = simcc.labels(torch.tensor([[[96.2, 120.7]]]), torch.ones(1, 1), (256, 192), normalise=True)
    assert x.sum().item() == pytest.approx(1, abs=1e-5)
    assert y.sum().item() == pytest.approx(1, abs=1e-5)
    assert x.shape == (1, 1, 384)
    assert y.shape == (1, 1, 512)


def test_the_divergence_is_0_at_the_label_and_positive_elsewhere():
    label = simcc.labels(torch.tensor([[[4.0, 7.0]]]), torch.ones(1, 1), (16, 8))[0]
    assert simcc.divergence(label, label).item() == pytest.approx(0, abs=1e-7)
    assert simcc.divergence(label + 3, label).item() == pytest.approx(
        0, abs=1e-6
    )  # a softmax sees no constant
    assert simcc.divergence(torch.randn_like(label), label).item() > 1e-3


def test_the_published_reduction_grows_with_the_batch_and_ours_does_not():
    x, y = torch.randn(1, 3, 16), torch.randn(1, 3, 32)
    label_x, label_y, weights = simcc.labels(torch.full((1, 3, 2), 4.0), torch.ones(1, 3), (16, 8))

    def of(copies: int, reduction: str) -> float:
        repeated = [each.expand(copies, *each.shape[1:]) for each in (x, y, label_x, label_y, weights)]
        return simcc.kl(tuple(repeated[:2]), tuple(repeated[2:4]), repeated[4], reduction=reduction).item()

    assert of(4, "mmpose") == pytest.approx(4 * of(1, "mmpose"))
    assert of(4, "mean") == pytest.approx(of(1, "mean"))
    assert of(1, "mean") == pytest.approx(of(1, "mmpose"))


def test_the_codec_reads_labels_back_to_half_a_bin():
    points = 8 + 40 * torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0))
    x, y, _ = simcc.labels(points, torch.ones(2, 5), (64, 56))
    found, _ = codec.decode(x.numpy(), y.numpy())
    assert np.abs(found - points.numpy()).max() <= 0.25 + 1e-6
