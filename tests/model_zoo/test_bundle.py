"""Bundles on disk: whole or absent, checked on every read, found by name and natural version."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.errors import BundleCorrupt, BundleExists, BundleNotFound, ManifestError, ModelZooError

FILES = {"model.onnx": b"the graph", "README.md": b"# Toy\n"}


@pytest.fixture
def written(tmp_path: Path, manifest_of) -> Bundle:
    """The bundle toy@1 under a fresh root."""
    return bundle.write(tmp_path, manifest_of(), FILES)


def test_write_and_read_agree(written, tmp_path):
    assert written.folder == tmp_path / "toy" / "1"
    assert written == bundle.read(written.folder) == bundle.find("toy", roots=[tmp_path])
    assert (written.name, written.version) == ("toy", "1")
    assert written.model_path.read_bytes() == FILES["model.onnx"]
    assert {path.name for path in written.folder.iterdir()} == {*FILES, "manifest.json"}
    for name, content in FILES.items():
        assert written.manifest.files[name].sha256 == hashlib.sha256(content).hexdigest()
        assert written.manifest.files[name].bytes == len(content)


def test_a_second_graph_in_8_bits_belongs_to_the_bundle(tmp_path, manifest_of, written):
    assert written.int8_path is None
    both = FILES | {"model.int8.onnx": b"the same in 8 bits"}
    made = bundle.write(tmp_path, manifest_of(version="2", int8_file="model.int8.onnx"), both)
    assert bundle.read(made.folder).int8_path.read_bytes() == b"the same in 8 bits"
    with pytest.raises(ManifestError, match=r"int8 file 'model\.int8\.onnx' is not among"):
        bundle.write(tmp_path, manifest_of(version="3", int8_file="model.int8.onnx"), FILES)


def test_nothing_but_the_bundle_is_left(written, tmp_path):
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["1"]


def test_others_may_read_it_as_far_as_the_umask_allows(written):
    unmasked = os.umask(0)
    os.umask(unmasked)
    assert written.folder.stat().st_mode & 0o777 == 0o777 & ~unmasked
    assert written.model_path.stat().st_mode & 0o777 == 0o666 & ~unmasked


def test_a_published_version_is_not_overwritten_by_accident(written, tmp_path, manifest_of):
    with pytest.raises(BundleExists, match="toy/1 exists already"):
        bundle.write(tmp_path, manifest_of(), {"model.onnx": b"another"})
    assert bundle.read(written.folder) == written
    assert len(list((tmp_path / "toy").iterdir())) == 1


def test_a_replaced_version_keeps_nothing_of_the_old(written, tmp_path, manifest_of):
    replaced = bundle.write(tmp_path, manifest_of(), {"model.onnx": b"another"}, replace=True)
    assert bundle.read(written.folder) == replaced
    assert {path.name for path in replaced.folder.iterdir()} == {"model.onnx", "manifest.json"}
    assert len(list((tmp_path / "toy").iterdir())) == 1


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"README.md": b"x"}, "model file 'model.onnx' is not among"),
        ({**FILES, "../escaped": b"x"}, r"\.\./escaped"),
        ({**FILES, "/tmp/escaped": b"x"}, "/tmp/escaped"),
        ({**FILES, ".hidden": b"x"}, "hidden"),
        ({**FILES, "empty": b""}, r"empty\.bytes"),
        ({**FILES, "manifest.json": b"{}"}, "manifest.json cannot list itself"),
    ],
)
def test_files_that_are_no_bundle_are_refused_before_anything_is_written(
    tmp_path, manifest_of, files, complaint
):
    with pytest.raises(ManifestError, match=complaint):
        bundle.write(tmp_path / "root", manifest_of(), files)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("replace", [False, True])
def test_a_write_that_fails_leaves_everything_as_it_was(tmp_path, manifest_of, monkeypatch, replace):
    before = bundle.write(tmp_path, manifest_of(), FILES) if replace else None
    calls = iter(range(100))

    def full_disk(descriptor: int) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        bundle.write(tmp_path, manifest_of(), {"model.onnx": b"another", "more": b"x"}, replace=replace)
    assert [bundle.read(each) for each in bundle.discover(tmp_path)] == ([before] if before else [])
    assert len(list((tmp_path / "toy").iterdir())) == (1 if before else 0)


def test_a_replacement_that_cannot_move_in_gives_the_place_back(written, tmp_path, manifest_of, monkeypatch):
    rename, calls = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output"):
        bundle.write(tmp_path, manifest_of(), {"model.onnx": b"another"}, replace=True)
    assert bundle.read(written.folder) == written


KILLED = """
import os, sys
from pathlib import Path
from model_zoo import bundle
from model_zoo.manifest import BundleManifest

survived = int(sys.argv[3])
real = os.fsync
def fsync(descriptor):
    global survived
    survived -= 1
    if survived < 0:
        os._exit(9)
    real(descriptor)
os.fsync = fsync
manifest = BundleManifest.model_validate_json(Path(sys.argv[2]).read_bytes())
bundle.write(Path(sys.argv[1]), manifest, {"model.onnx": b"new", "more": b"x"}, replace=True)
"""


@pytest.mark.parametrize("survived", [0, 1, 2, 3, 4])
def test_a_writer_that_dies_leaves_the_old_bundle_or_the_new_one(tmp_path, manifest_of, survived):
    root, document = tmp_path / "root", tmp_path / "document.json"
    document.write_text(manifest_of().model_dump_json())
    old = bundle.write(root, manifest_of(), FILES)
    command = [sys.executable, "-c", KILLED, str(root), str(document), str(survived)]
    died = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, timeout=60)
    assert died.returncode == 9
    (found,) = bundle.discover(root)
    left = bundle.read(found)
    assert left == old or left.model_path.read_bytes() == b"new"
    assert (left == old) == (survived < 4)  # the last sync comes after the rename
    again = bundle.write(root, manifest_of(), {"model.onnx": b"newer"}, replace=True)
    assert bundle.find("toy", roots=[root]) == again


def test_of_many_writers_of_one_version_one_wins(tmp_path, manifest_of):
    def write(writer: int) -> Bundle | None:
        try:
            return bundle.write(tmp_path, manifest_of(), {"model.onnx": b"%d" % writer * 1000})
        except BundleExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [each for each in pool.map(write, range(16)) if each]
    assert winners == [bundle.find("toy", roots=[tmp_path])]
    assert len(list((tmp_path / "toy").iterdir())) == 1


def test_many_replacements_at_once_leave_one_whole_bundle(tmp_path, manifest_of):
    def write(writer: int) -> Bundle:
        return bundle.write(tmp_path, manifest_of(), {"model.onnx": b"%d" % writer * 1000}, replace=True)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(write, range(16)))
    assert bundle.find("toy", roots=[tmp_path]) in made
    assert len(list((tmp_path / "toy").iterdir())) == 1


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]), "sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "bytes instead of"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: (path.unlink(), path.mkdir()), "missing"),
        (lambda path: (path.unlink(), path.symlink_to("nowhere")), "missing"),
    ],
    ids=["flipped bit", "cut", "longer", "gone", "folder", "dangling link"],
)
def test_a_file_that_was_touched_is_named(written, name, tamper, complaint):
    tamper(written.folder / name)
    with pytest.raises(BundleCorrupt, match=complaint) as caught:
        bundle.read(written.folder)
    assert str(written.folder / name) in str(caught.value)


def edited(folder: Path, **changes) -> None:
    """Change fields of a bundle's manifest on the disk."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"files": {}}, "model file 'model.onnx' is not among"),
        ({"model_file": "other.onnx"}, "model file 'other.onnx' is not among"),
        ({"model_file": "../../model.onnx"}, "manifest.json: model_file: "),
        ({"files": {"../model.onnx": {"sha256": "0" * 64, "bytes": 1}}}, r"files\.\.\./model\.onnx"),
        ({"files": {"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}}, "/etc/passwd"),
        ({"macs": "many"}, "macs: .*integer"),
        ({"macs": -1, "opset": -1}, r"macs: .* \(and 1 more\)"),
        ({"unheard_of": 1}, "unheard_of: Extra inputs"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_by_field(written, changes, complaint):
    edited(written.folder, **changes)
    with pytest.raises(ManifestError, match=complaint):
        bundle.read(written.folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ManifestError, match=r"there is no manifest\.json"):
            bundle.read(folder)


def test_a_boundless_manifest_is_not_parsed(written):
    (written.folder / "manifest.json").write_bytes(b" " * (bundle.MOST_MANIFEST_BYTES + 1))
    with pytest.raises(ManifestError, match="longer than"):
        bundle.read(written.folder)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory, manifest_of) -> Bundle:
    """A bundle whose manifest the fuzzing tests overwrite."""
    return bundle.write(tmp_path_factory.mktemp("fuzz"), manifest_of(), FILES)


def survives(folder: Path, text: bytes) -> None:
    """Read a bundle with this manifest: it works, or it fails as promised. Anything else fails the test."""
    (folder / "manifest.json").write_bytes(text)
    with contextlib.suppress(ModelZooError):
        bundle.read(folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(text=st.binary(max_size=200))
@example(text=b"")
@example(text=b"\xff\xfe{}")
@example(text=b"[" * 100_000)
@example(text=b'{"name": "\\ud800"}')
def test_any_bytes_for_a_manifest_fail_as_promised(victim, text):
    survives(victim.folder, text)


@given(data=st.data())
def test_any_value_in_any_field_fails_as_promised(victim, data):
    document = json.loads(victim.manifest.model_dump_json())
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    survives(victim.folder, json.dumps(document).encode())


@given(at=st.floats(0, 1), inserted=st.binary(max_size=3), removed=st.integers(0, 40))
def test_any_damage_to_a_manifest_fails_as_promised(victim, at, inserted, removed):
    text = victim.manifest.model_dump_json(indent=2).encode()
    place = int(at * len(text))
    survives(victim.folder, text[:place] + inserted + text[place + removed :])


def test_versions_count_as_people_count(tmp_path, manifest_of):
    for version in ("10", "9", "1.10", "1.9", "2-b", "2"):
        bundle.write(tmp_path, manifest_of(version=version), FILES)
    bundle.write(tmp_path, manifest_of(name="another", version="3"), FILES)
    found = [f"{path.parent.name}@{path.name}" for path in bundle.discover(tmp_path)]
    assert found == ["another@3", "toy@1.9", "toy@1.10", "toy@2", "toy@2-b", "toy@9", "toy@10"]
    assert bundle.find("toy", roots=[tmp_path]).version == "10"
    assert bundle.find("toy", "1.9", roots=[tmp_path]).version == "1.9"


def test_leftovers_and_strangers_are_not_discovered(written, tmp_path):
    shutil.copytree(written.folder, tmp_path / "toy" / ".2.0123abcd")
    shutil.copytree(tmp_path / "toy", tmp_path / ".trash")
    (tmp_path / "toy" / "3").mkdir()
    (tmp_path / "README.md").write_text("no bundle")
    assert bundle.discover(tmp_path) == [written.folder]
    assert bundle.discover(tmp_path / "absent") == []


def test_the_first_root_wins_and_the_newest_of_all_roots_is_found(tmp_path, manifest_of):
    one, two = tmp_path / "one", tmp_path / "two"
    first = bundle.write(one, manifest_of(), FILES)
    bundle.write(two, manifest_of(), {"model.onnx": b"another"})
    assert bundle.find("toy", roots=[one, two]) == first
    newer = bundle.write(two, manifest_of(version="2"), FILES)
    assert bundle.find("toy", roots=[one, two]) == newer


@pytest.mark.parametrize(
    ("name", "version"), [("tyo", None), ("toy", "2"), ("../toy", None), ("toy", "../toy/1"), ("", "")]
)
def test_what_is_not_there_is_answered_with_what_is(written, tmp_path, name, version):
    with pytest.raises(BundleNotFound, match="known: toy@1"):
        bundle.find(name, version, roots=[tmp_path])


def test_nothing_at_all_is_said_so(tmp_path):
    with pytest.raises(BundleNotFound, match="known: none"):
        bundle.find("toy", roots=[tmp_path])


@pytest.mark.parametrize("place", ["toy/2", "other/1"])
def test_a_bundle_under_a_false_name_is_refused(written, tmp_path, place):
    shutil.copytree(written.folder, tmp_path / place)
    name, version = place.split("/")
    with pytest.raises(ManifestError, match="calls itself toy@1"):
        bundle.find(name, version, roots=[tmp_path])


def test_the_bundles_of_this_package_are_whole():
    for folder in bundle.discover(bundle.BUILTIN):
        assert bundle.find(folder.parent.name, folder.name).folder == folder
