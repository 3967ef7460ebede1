"""Bundles from one place to another: what arrives is what left, and what an archive may not do it cannot do."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from model_zoo import archive, bundle
from model_zoo.bundle import Bundle
from model_zoo.cli import app
from model_zoo.errors import BundleCorrupt, BundleExists, BundleNotFound, ManifestError, ModelZooError

FILES = {"model.onnx": b"the graph" * 1000, "README.md": b"# Toy"}


@pytest.fixture
def made(tmp_path: Path, manifest_of) -> Bundle:
    """toy@1 under `made`."""
    return bundle.write(tmp_path / "made", manifest_of(), FILES)


def everything_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments: object) -> Result:
    """Call reppose-zoo; an exception that it did not handle itself is raised here."""
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def tar_of(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return path


def zip_of(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for info, content in members:
            packed.writestr(info, content)
    return path


def members_of(made: Bundle, folder: str = "") -> list[tuple[str, bytes]]:
    return [(f"{folder}{path.name}", path.read_bytes()) for path in sorted(made.folder.iterdir())]


def refused(source: Path, root: Path, said: str, **options: object) -> None:
    with pytest.raises((BundleCorrupt, ManifestError), match=said):
        archive.install(source, root, **options)
    assert not root.exists()


@pytest.mark.parametrize("name", ["toy.tar.gz", "toy.zip"])
def test_what_was_packed_is_what_is_installed(name: str, made: Bundle, tmp_path: Path) -> None:
    packed, again = archive.pack(made, tmp_path / name), archive.pack(made, tmp_path / f"again-{name}")
    assert packed.read_bytes() == again.read_bytes()
    root = tmp_path / "root"
    installed, fresh = archive.install(packed, root)
    assert fresh
    assert installed == bundle.find("toy", "1", [root])
    assert everything_under(root) == everything_under(made.folder.parents[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["made", "root", name, again.name])


def test_a_folder_is_installed_without_what_does_not_belong_to_it(made: Bundle, tmp_path: Path) -> None:
    before = everything_under(made.folder.parents[1])
    (made.folder / "notes.txt").write_text("mine")
    archive.install(made.folder, tmp_path / "root")
    assert everything_under(tmp_path / "root") == before


@pytest.mark.parametrize("folder", ["", "./", "some/where/deep/"])
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_archives_may_be_made_by_other_tools(mode: str, folder: str, made: Bundle, tmp_path: Path) -> None:
    inside = tarfile.TarInfo("some")
    inside.type = tarfile.DIRTYPE
    members = [(inside, b""), *members_of(made, folder), ("elsewhere/model.onnx", b"another")]
    source = tar_of(tmp_path / "toy", *members, mode=mode)
    assert archive.install(source, tmp_path / "root")[0].manifest == made.manifest


def test_the_same_again_changes_nothing_and_another_needs_force(
    made: Bundle, tmp_path: Path, manifest_of
) -> None:
    root = tmp_path / "root"
    archive.install(made.folder, root)
    assert archive.install(made.folder, root) == (bundle.find("toy", "1", [root]), False)
    before = everything_under(root)
    other = bundle.write(tmp_path / "other", manifest_of(), {**FILES, "README.md": b"# Other"})
    with pytest.raises(BundleExists, match="--force"):
        archive.install(other.folder, root)
    assert everything_under(root) == before
    _, fresh = archive.install(other.folder, root, force=True)
    assert fresh
    assert everything_under(root) == everything_under(tmp_path / "other")


def test_a_broken_bundle_in_the_root_is_mended_by_force_alone(made: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "root"
    archive.install(made.folder, root)
    (root / "toy" / "1" / "model.onnx").write_bytes(b"rot")
    with pytest.raises(BundleExists):
        archive.install(made.folder, root)
    archive.install(made.folder, root, force=True)
    assert bundle.find("toy", "1", [root]).manifest == made.manifest


def test_what_differs_from_its_manifest_is_refused(made: Bundle, tmp_path: Path) -> None:
    contents = dict(members_of(made))
    root = tmp_path / "root"
    for changed, said in (
        (contents | {"model.onnx": b"the grapH" * 1000}, "model.onnx: sha256"),
        (contents | {"model.onnx": b"short"}, "model.onnx: 5 bytes instead of 9000"),
        ({name: each for name, each in contents.items() if name != "README.md"}, "README.md is missing"),
        ({name: each for name, each in contents.items() if name != "manifest.json"}, "0 files manifest.json"),
        (contents | {"manifest.json": b"{}"}, "manifest.json: "),
        (contents | {"manifest.json": b" " * ((1 << 20) + 1)}, "longer than"),
        (contents | {"deep/manifest.json": contents["manifest.json"]}, "2 files manifest.json"),
    ):
        refused(tar_of(tmp_path / "toy.tar.gz", *changed.items()), root, said)
        refused(zip_of(tmp_path / "toy.zip", *changed.items()), root, said)
    (made.folder / "model.onnx").write_bytes(b"the grapH" * 1000)
    refused(made.folder, root, "sha256")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..", "a\\..\\evil"])
def test_names_that_lead_out_are_refused(name: str, made: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "root"
    refused(tar_of(tmp_path / "t", *members_of(made), (name, b"x")), root, "leads out")
    refused(zip_of(tmp_path / "z", *members_of(made), (name, b"x")), root, "leads out")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_links_and_devices_are_refused(kind: bytes, made: Bundle, tmp_path: Path) -> None:
    member = tarfile.TarInfo("model.onnx")
    member.type, member.linkname = kind, "/etc/passwd"
    source = tar_of(tmp_path / "t", (member, b""), *members_of(made))
    refused(source, tmp_path / "root", "link or a device|broken one")


def test_links_in_zips_and_folders_are_refused(made: Bundle, tmp_path: Path) -> None:
    member = zipfile.ZipInfo("link")
    member.external_attr = 0o120777 << 16
    refused(
        zip_of(tmp_path / "z", (member, b"/etc/passwd"), *members_of(made)), tmp_path / "root", "is a link"
    )
    real = tmp_path / "elsewhere"
    shutil.move(made.model_path, real)
    made.model_path.symlink_to(real)
    refused(made.folder, tmp_path / "root", "is a link")


def test_what_is_too_large_is_refused(made: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "root"
    bomb = ("bomb", bytes(5_000_000))
    for source in (
        tar_of(tmp_path / "t", *members_of(made), bomb),
        zip_of(tmp_path / "z", *members_of(made), bomb),
    ):
        refused(source, root, "more than 1000000 bytes", most_bytes=1_000_000)
    crowd = [(f"file{number}", b"") for number in range(archive.MOST_MEMBERS + 1)]
    refused(tar_of(tmp_path / "t", *crowd), root, "files and folders")
    refused(zip_of(tmp_path / "z", *crowd), root, "files and folders")
    refused(made.folder, root, "more than 100 bytes", most_bytes=100)


def test_headers_cannot_fill_the_memory(tmp_path: Path) -> None:
    """A name may be as long as a tar says; this one says more than is allowed, and never comes to its end."""
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    source = tmp_path / "t"
    source.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(20_000_000)))
    refused(source, tmp_path / "root", "more than 1000000 bytes", most_bytes=1_000_000)


def test_a_name_that_stands_there_twice_is_refused(made: Bundle, tmp_path: Path) -> None:
    source = tar_of(tmp_path / "t", *members_of(made), ("model.onnx", b"another"))
    refused(source, tmp_path / "root", "twice")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["toy.tar.gz", "toy.tar", "toy.zip"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    keep=st.floats(0, 1),
)
def test_broken_archives_are_refused_in_words(
    form: str, changes: list[tuple[float, int]], keep: float, made: Bundle, tmp_path: Path
) -> None:
    """Either it is still the bundle, to the last bit, or it is refused; nothing else can come of it."""
    root, source = tmp_path / "root", tmp_path / form
    source.unlink(missing_ok=True)
    if form == "toy.tar":
        tar_of(source, *members_of(made), mode="w")
    else:
        archive.pack(made, source)
    data = bytearray(source.read_bytes())
    for at, value in changes:
        data[int(at * len(data))] = value
    source.write_bytes(data[: int(keep * len(data)) + 1])
    try:
        installed, _ = archive.install(source, root)
    except ModelZooError as error:
        said = str(error)
    else:
        said = str(source)
        assert {name: (installed.folder / name).read_bytes() for name in FILES} == FILES
    finally:
        shutil.rmtree(root, ignore_errors=True)
    assert said.startswith(str(source))


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_byte_of_a_zip_may_be_broken(packed: int, made: Bundle, tmp_path: Path) -> None:
    """Each way of packing has a reader of its own, which stumbles in its own way."""
    source, root = tmp_path / "some.zip", tmp_path / "root"
    with zipfile.ZipFile(source, "w", packed) as squeezed:
        squeezed.writestr("manifest.json", b"{}" * 40)
    whole = source.read_bytes()
    for at in range(len(whole)):
        for flipped in (0x01, 0x80, 0xFF):
            source.write_bytes(whole[:at] + bytes([whole[at] ^ flipped]) + whole[at + 1 :])
            with pytest.raises(ModelZooError) as caught:
                archive.install(source, root)
            assert str(caught.value).startswith(str(source))
    assert not root.exists()


@given(data=st.binary(max_size=2000), head=st.sampled_from([b"", b"\x1f\x8b\x08", b"PK\x03\x04"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_bring_it_down(data: bytes, head: bytes, tmp_path: Path) -> None:
    (tmp_path / "any").write_bytes(head + data)
    refused(tmp_path / "any", tmp_path / "root", "broken one|instead of one")


def test_packing_overwrites_nothing(made: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "toy.zip"
    target.write_text("mine")
    with pytest.raises(BundleExists):
        archive.pack(made, target)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("name", [*FILES, bundle.MANIFEST_FILE])
def test_what_changed_since_it_was_read_is_not_packed(name: str, made: Bundle, tmp_path: Path) -> None:
    path = made.folder / name
    path.write_bytes(path.read_bytes().replace(b"e", b"E").replace(b"T", b"t"))
    with pytest.raises((BundleCorrupt, ManifestError)):
        archive.pack(made, tmp_path / "toy.zip")
    assert not (tmp_path / "toy.zip").exists()


def test_the_commands(made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    assert run("pack", "toy", "--root", "made").stdout == "toy-1.tar.gz\n"
    first = run("install", "toy-1.tar.gz", "--root", root)
    assert first.stdout.startswith(f"installed  toy@1  {root}/toy/1\n")
    assert "SIGHUP" in first.stdout
    again = run("install", "toy-1.tar.gz", "--root", root)
    assert (again.exit_code, again.stdout) == (0, f"was there already:  toy@1  {root}/toy/1\n")
    (root / "toy" / "1" / "README.md").write_text("changed")
    refused_now = run("install", "toy-1.tar.gz", "--root", root)
    assert (refused_now.exit_code, refused_now.stderr.count("\n")) == (1, 1)
    assert run("install", "toy-1.tar.gz", "--root", root, "--force").exit_code == 0
    missing = run("install", "nothing.zip", "--root", root)
    assert (missing.exit_code, missing.stderr) == (1, "error: nothing.zip: there is no such file or folder\n")
    run("pack", "toy", "--root", "made", "--out", "toy.zip")
    assert zipfile.is_zipfile("toy.zip")
    with pytest.raises(BundleNotFound):
        archive.install(Path("absent"), root)
    if os.geteuid():
        Path("toy.zip").chmod(0)
        assert run("install", "toy.zip", "--root", tmp_path / "other").stderr.startswith("error: ")


@pytest.mark.parametrize("command", ["pack", "install"])
def test_help_teaches_with_an_example(command: str) -> None:
    assert f"reppose-zoo {command} " in run(command, "--help").stdout.split("Example", 1)[1]
