"""The codecs against numbers of the original implementations; see the note beside them."""

from __future__ import annotations

import numpy as np
import pytest

from model_zoo.codecs import argmax_shift, dark, dsnt, gaussian, udp

EXACT = {"rtol": 1e-9, "atol": 1e-11}
FLOAT32 = {"rtol": 0, "atol": 1e-5}
DECODED = {"rtol": 0, "atol": 1e-3}


def encoder_case(numbers, case):
    """Size (height, width), sigma, visibility and weights of an encoder's case."""
    width, height = numbers[f"case{case}_heatmap_wh"]
    return (
        (int(height), int(width)),
        float(numbers[f"case{case}_sigma"]),
        numbers[f"case{case}_visible"],
        numbers[f"case{case}_weights"],
    )


@pytest.mark.parametrize("case", range(5))
def test_dsnt(golden, case):
    numbers = {key.removeprefix(f"case{case}_"): value for key, value in golden("dsnt").items()}
    size, sigma = numbers["logits"].shape[2:], float(numbers["sigma_px"])
    probabilities = dsnt.softmax(numbers["logits"])
    coordinates = dsnt.expectation(probabilities)
    np.testing.assert_allclose(probabilities, numbers["probs"], **EXACT)
    np.testing.assert_allclose(coordinates, numbers["coords"], **EXACT)
    np.testing.assert_allclose(dsnt.to_cells(coordinates, size), numbers["coords_px"], **EXACT)
    np.testing.assert_allclose(
        dsnt.to_cells(numbers["coords"], size), numbers["coords_px_from_norm"], **EXACT
    )
    np.testing.assert_allclose(dsnt.to_cells(numbers["target"], size), numbers["target_px"], **EXACT)
    np.testing.assert_allclose(
        dsnt.to_normalised(numbers["target_px"], size), numbers["target_roundtrip"], **EXACT
    )
    np.testing.assert_allclose(dsnt.target(numbers["target"], size, sigma), numbers["gauss"], **EXACT)
    np.testing.assert_allclose(
        dsnt.target(numbers["target"], size, sigma, normalise=False), numbers["gauss_unnormalized"], **EXACT
    )


@pytest.mark.parametrize("case", [0, 1, 3, 4])
def test_dsnt_decode_is_the_expectation_of_a_flat_map(golden, case):
    numbers = golden("dsnt")
    points, _ = dsnt.decode(numbers[f"case{case}_probs"])
    np.testing.assert_allclose(points, numbers[f"case{case}_coords_px"], **EXACT)


@pytest.mark.parametrize("cells", [1, 4, 7, 14, 64])
def test_dsnt_axis(golden, cells):
    np.testing.assert_allclose(dsnt.axis(cells), golden("dsnt")[f"axis_{cells}"], **EXACT)


@pytest.mark.parametrize("case", [0, 1])
def test_unbiased_encoding(golden, case):
    numbers = golden("dark")
    size, sigma, visible, expected = encoder_case(numbers, case)
    stride = numbers[f"case{case}_input_wh"] / numbers[f"case{case}_heatmap_wh"]
    points = numbers[f"case{case}_keypoints_input_px"] / stride
    weights = gaussian.weights(points, size, sigma, visible)
    maps = gaussian.draw(points, size, sigma) * weights[:, None, None]
    np.testing.assert_array_equal(weights, expected)
    np.testing.assert_allclose(maps, numbers[f"case{case}_heatmaps_encoded"], **FLOAT32)


@pytest.mark.parametrize("case", [0, 1])
def test_msra_encoding(golden, case):
    numbers = golden("heatmap_msra")
    size, sigma, visible, expected = encoder_case(numbers, case)
    points = numbers[f"case{case}_keypoints_input_px"] / numbers[f"case{case}_scale"]
    maps, weights = gaussian.draw_msra(points, size, sigma, visible)
    np.testing.assert_array_equal(weights, expected)
    np.testing.assert_allclose(maps, numbers[f"case{case}_clean_heatmaps"], **FLOAT32)


@pytest.mark.parametrize("case", [0, 1])
def test_udp_encoding(golden, case):
    numbers = golden("udp")
    size, sigma, visible, expected = encoder_case(numbers, case)
    points = numbers[f"case{case}_keypoints_input_px"] / numbers[f"case{case}_encode_scale"]
    maps, weights = gaussian.draw_udp(points, size, sigma, visible)
    np.testing.assert_array_equal(weights, expected)
    np.testing.assert_allclose(maps, numbers[f"case{case}_heatmaps_encoded"], **FLOAT32)


@pytest.mark.parametrize("maps", ["clean", "net"])
@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize(("rule", "key"), [("mmpose", "shift_axis_rule"), ("hrnet", "shift_joint_rule")])
def test_argmax_shift_with_the_published_guards(golden, case, maps, rule, key):
    numbers = golden("heatmap_msra")
    prefix = f"case{case}_{maps}"
    (points,), (scores,) = argmax_shift.decode(numbers[f"{prefix}_heatmaps"][None], rule=rule)
    peaked = numbers[f"{prefix}_score"] > 0
    assert peaked.sum() >= 8
    np.testing.assert_allclose(scores, numbers[f"{prefix}_score"], **FLOAT32)
    np.testing.assert_allclose(points[peaked], numbers[f"{prefix}_{key}"][peaked], **FLOAT32)
    if rule == "mmpose":
        scaled, expected = points * numbers[f"case{case}_scale"], numbers[f"{prefix}_decoded_input_px"]
        np.testing.assert_allclose(scaled[peaked], expected[peaked], **DECODED)


@pytest.mark.parametrize("maps", ["clean", "net"])
@pytest.mark.parametrize("case", [0, 1])
def test_argmax_shift_differs_from_the_published_guard_in_the_second_row_and_column_only(golden, case, maps):
    numbers = golden("heatmap_msra")
    prefix = f"case{case}_{maps}"
    (points,), (scores,) = argmax_shift.decode(numbers[f"{prefix}_heatmaps"][None])
    expected = numbers[f"{prefix}_shift_axis_rule"]
    same = (scores > 0)[:, None] & (np.round(points) != 1)
    np.testing.assert_allclose(points[same], expected[same], **FLOAT32)
    assert np.abs(points - expected)[scores > 0].max() <= 0.25


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("blur_kernel", "key"), [(0, "noblur"), (11, "blur11")])
@pytest.mark.parametrize("maps", ["gauss", "net", "border"])
def test_dark_with_its_guards_on(golden, maps, blur_kernel, key, dtype):
    numbers = golden("dark")
    heatmaps = numbers[f"{maps}_heatmaps"].astype(dtype)[None]
    (points,), (scores,) = dark.decode(heatmaps, blur_kernel=blur_kernel)
    peaked = scores > 0
    assert peaked.sum() >= 10
    np.testing.assert_allclose(scores, numbers[f"{maps}_maxval"], rtol=1e-6, atol=1e-11)
    np.testing.assert_allclose(points[peaked], numbers[f"{maps}_decoded_{key}"][peaked], **DECODED)


def test_dark_finds_the_true_centres(golden):
    numbers = golden("dark")
    (points,), _ = dark.decode(numbers["gauss_heatmaps"][None])
    np.testing.assert_allclose(points, numbers["gauss_centres"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("maps", ["clean", "net"])
@pytest.mark.parametrize("case", [0, 1])
def test_udp_decoding(golden, case, maps):
    numbers = golden("udp")
    heatmaps = numbers[f"case{case}_{maps}_heatmaps"][None]
    (points,), (scores,) = udp.decode(heatmaps, concave_only=False)
    np.testing.assert_allclose(scores, numbers[f"case{case}_{maps}_score"], **FLOAT32)
    np.testing.assert_allclose(points, numbers[f"case{case}_{maps}_decoded_hm_px"], **DECODED)


@pytest.mark.parametrize("case", [0, 1])
def test_udp_guarded_differs_on_the_border_only(golden, case):
    numbers = golden("udp")
    heatmaps = numbers[f"case{case}_clean_heatmaps"]
    (points,), _ = udp.decode(heatmaps[None])
    expected = numbers[f"case{case}_clean_decoded_hm_px"]
    height, width = heatmaps.shape[1:]
    inner = ((np.round(expected) > 0) & (np.round(expected) < [width - 1, height - 1])).all(axis=-1)
    assert inner.sum() >= 6
    np.testing.assert_allclose(points[inner], expected[inner], **DECODED)


def test_udp_guarded_takes_no_step_in_a_bowl(golden):
    heatmaps = golden("udp")["case1_clean_heatmaps"][
        None, :1
    ]  # peak in the corner; the blur makes a bowl of it
    assert udp.decode(heatmaps)[0].tolist() == [[[0, 0]]]
    assert udp.decode(heatmaps, concave_only=False)[0].tolist() != [[[0, 0]]]
