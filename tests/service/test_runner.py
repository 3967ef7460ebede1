"""A graph is what its manifest says, or it is not served."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.errors import ManifestError
from service import runner
from tests import tiny_model
from tests.service.conftest import Scene


@pytest.fixture(scope="module")
def loaded(tiny_bundle_root: Path) -> runner.Runner:
    return runner.load(bundle.find("tiny", "1", [tiny_bundle_root]))


def crops(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, tiny_model.HEIGHT, tiny_model.WIDTH, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_every_row_is_the_same_alone_and_in_any_batch(loaded: runner.Runner) -> None:
    batch = crops(7)
    together = loaded.run(batch)
    assert together.shape == (
        7,
        19,
        tiny_model.HEIGHT // tiny_model.STRIDE,
        tiny_model.WIDTH // tiny_model.STRIDE,
    )
    assert together.dtype == np.float32
    for row, crop in enumerate(batch):
        np.testing.assert_allclose(loaded.run(crop[None])[0], together[row], atol=1e-6)


def test_many_threads_may_share_it(loaded: runner.Runner) -> None:
    expected = {seed: loaded.run(crops(2, seed)) for seed in range(4)}
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(10):
            if not np.array_equal(loaded.run(crops(2, seed)), expected[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_painted_joint_is_the_peak_of_its_map(loaded: runner.Runner, scene: Scene) -> None:
    loaded.warm_up(4)
    size = (tiny_model.HEIGHT, tiny_model.WIDTH)
    joints = tiny_model.person((12, 12, 72, 96))
    maps = loaded.run(tiny_model.paint(size, joints, radius=5)[None])[0]
    rows, columns = np.divmod(maps.reshape(19, -1).argmax(axis=1), maps.shape[2])
    found = (np.stack([columns, rows], axis=-1) + 0.5) * tiny_model.STRIDE - 0.5
    assert np.abs(found - joints).max() < 5
    np.testing.assert_allclose(maps.max(axis=(1, 2)), 1, atol=0.06)


def written(folder: Path, graph: bytes, **changes: object) -> Bundle:
    facts = tiny_model.manifest(**changes)
    return bundle.write(folder, facts, {facts.model_file: graph})


TINY = tiny_model.manifest()
MAPS = {"name": "heatmaps", "height": tiny_model.HEIGHT // 2, "width": tiny_model.WIDTH // 2, "stride": 2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": {"name": "picture", "height": 128, "width": 96}}, "names input picture"),
        ({"input": {"name": "image", "height": 128, "width": 96, "dtype": "float32"}}, "float"),
        ({"input": {"name": "image", "height": 128, "width": 96, "layout": "NCHW"}}, r"\[N, 3, 128, 96\]"),
        ({"outputs": [MAPS | {"name": "maps"}]}, "output maps"),
        ({"outputs": [MAPS | {"height": 32, "width": 24, "stride": 4}]}, r"\[N, 19, 32, 24\]"),
        ({"normalisation": {"inside_graph": False}}, "normalise inside"),
        ({"normalisation": {"mean": 1.0}}, "disagrees with the manifest on normalisation"),
        ({"codec": {"sigma_cells": 2.0}}, "disagrees with the manifest on codec"),
        ({"version": "9"}, "disagrees with the manifest on version"),
        ({"outputs": [{"name": "points", "kind": "keypoints"}], "codec": None}, "output points"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=said):
        runner.load(written(tmp_path, tiny_model.graph(TINY), **changes))


def test_a_graph_without_metadata(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="metadata"):
        runner.load(written(tmp_path, tiny_model.graph(TINY, metadata={})))


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot load"):
        runner.load(written(tmp_path, b"not a graph"))


def test_a_batch_of_fixed_size_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(tiny_model.graph(TINY))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ManifestError, match="the graph says"):
        runner.load(written(tmp_path, model.SerializeToString()))


@pytest.mark.parametrize("inside", [True, False])
def test_graphs_that_take_numbers_get_them(inside: bool, tmp_path: Path) -> None:
    """float32 NCHW: the runner converts, and normalises where the graph does not."""
    spec = {"name": "image", "height": 128, "width": 96, "dtype": "float32", "layout": "NCHW"}
    scaled = {"mean": tiny_model.GREY, "scale": tiny_model.CONTRAST}
    facts = tiny_model.manifest(input=spec, normalisation=scaled | {"inside_graph": inside})
    model = onnx.load_from_string(tiny_model.graph(facts))
    del model.graph.node[:2]
    if inside:
        grey = onnx.numpy_helper.from_array(np.array(tiny_model.GREY, np.float32), "grey as number")
        model.graph.initializer.append(grey)
        model.graph.node.insert(0, onnx.helper.make_node("Sub", ["image", "grey as number"], ["shifted"]))
        model.graph.node.insert(1, onnx.helper.make_node("Mul", ["shifted", "scale"], ["numbers"]))
    else:
        model.graph.node[0].input[0] = "image"
    tensor = model.graph.input[0].type.tensor_type
    tensor.elem_type = onnx.TensorProto.FLOAT
    for dim, size in zip(tensor.shape.dim[1:], (3, 128, 96), strict=True):
        dim.dim_value = size
    loaded = runner.load(bundle.write(tmp_path, facts, {facts.model_file: model.SerializeToString()}))
    plain = runner.load(tiny_model.write(tmp_path, version="raw"))
    np.testing.assert_allclose(loaded.run(crops(2)), plain.run(crops(2)), atol=1e-4)
