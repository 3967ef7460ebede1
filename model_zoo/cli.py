"""`reppose-zoo`: look at bundles, check them, and bring them from one place to another.

More commands come from any installed distribution that lists a function with Typer's annotations under the entry-point
group `reppose.zoo_commands`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated

import typer

from model_zoo import archive, bundle
from model_zoo.bundle import Bundle
from model_zoo.errors import BundleNotFound, ModelZooError
from model_zoo.manifest import Accuracy, BundleManifest

COMMANDS_GROUP = "reppose.zoo_commands"

app = typer.Typer(
    name="reppose-zoo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Look at pose models, check them, and bring them from one place to another.

    A model lives in a bundle: a folder <root>/<name>/<version>/ with manifest.json, the ONNX graph and its
    model card. Without --root the models that come with RepPose are meant.

    Start with: reppose-zoo list
    """,
)

Root = Annotated[
    Path,
    typer.Option("--root", help="Folder of bundles, laid out as <root>/<name>/<version>/.", metavar="FOLDER"),
]


@contextmanager
def _one_line_for_expected_errors() -> Iterator[None]:
    """Turn what users cause into one line on stderr and exit code 1; a defect keeps its traceback."""
    try:
        yield
    except (ModelZooError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@app.command("list")
@_one_line_for_expected_errors()
def list_bundles(root: Root = bundle.BUILTIN) -> None:
    """List all bundles, one a line, the newest version of a name last.

    Example: reppose-zoo list --root runs/export
    """
    published = _published(root)
    if not published:
        typer.echo(f"no bundles under {root}")
    for read in published:
        try:
            manifest = read().manifest
        except ModelZooError as error:
            typer.echo(f"UNUSABLE  {error}")
        else:
            typer.echo(f"{manifest.name}@{manifest.version}  {manifest.skeleton}  {manifest.description}")


@app.command()
@_one_line_for_expected_errors()
def show(
    model: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Without a version: the newest.")],
    root: Root = bundle.BUILTIN,
    json: Annotated[bool, typer.Option("--json", help="Print the whole manifest as JSON.")] = False,
) -> None:
    """Show what a model takes, gives, was trained on and reaches.

    \b
    Examples:
      reppose-zoo show body19-small
      reppose-zoo show body19-small@1 --json
    """
    found = _find(model, root)
    typer.echo(found.manifest.model_dump_json(indent=2) if json else _summary(found))


@app.command()
@_one_line_for_expected_errors()
def verify(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[FOLDER|NAME[@VERSION]]", help="Left out: all bundles under --root."),
    ] = None,
    root: Root = bundle.BUILTIN,
) -> None:
    """Check manifests, and size and sha256 of every file. Exit code 1 where anything is wrong.

    \b
    Examples:
      reppose-zoo verify
      reppose-zoo verify body19-small@1
      reppose-zoo verify runs/export/body19-small/1
    """
    checks = _checks(target, root)
    if not checks:
        raise BundleNotFound(f"no bundles under {root}")
    broken = 0
    for check in checks:
        try:
            checked = check()
        except ModelZooError as error:
            broken += 1
            typer.echo(f"BROKEN  {error}", err=True)
        else:
            typer.echo(f"ok  {checked.name}@{checked.version}  {checked.folder}")
    if broken:
        raise typer.Exit(1)


@app.command()
@_one_line_for_expected_errors()
def pack(
    model: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Without a version: the newest.")],
    root: Root = bundle.BUILTIN,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A name that ends in .zip makes a zip. Left out: NAME-VERSION.tar.gz here."
        ),
    ] = None,
) -> None:
    """Put a bundle into one file, for `reppose-zoo install` somewhere else.

    Example: reppose-zoo pack my-pose --root my-bundles
    """
    found = _find(model, root)
    typer.echo(archive.pack(found, out or Path(f"{found.name}-{found.version}.tar.gz")))


@app.command()
@_one_line_for_expected_errors()
def install(
    source: Annotated[
        Path, typer.Argument(help="A bundle's folder, or a .tar.gz or .zip file that holds one.")
    ],
    root: Root = bundle.BUILTIN,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another bundle of this name and version.")
    ] = False,
) -> None:
    """Put a bundle under --root, once size and sha256 of all its files were found right.

    \b
    Examples:
      reppose-zoo install my-pose-1.tar.gz --root models
      reppose-zoo install runs/export/my-pose/1 --root models
    """
    installed, fresh = archive.install(source, root, force=force)
    state = "installed" if fresh else "was there already:"
    typer.echo(f"{state}  {installed.name}@{installed.version}  {installed.folder}")
    if fresh:
        typer.echo(
            f"A service whose REPPOSE_MODELS__ROOTS names {root} takes it over on SIGHUP, "
            "or on POST /v1/admin/reload where REPPOSE_ADMIN__ENABLED allows that."
        )


def add_commands(offered: Iterable[EntryPoint]) -> None:
    """Take other distributions' commands in. One that cannot be loaded says so when it is called."""
    own = {command.name or command.callback.__name__ for command in app.registered_commands}
    for command in offered:
        if command.name not in own:
            app.command(command.name)(_loaded(command))


def main() -> None:
    """Entry point of the command `reppose-zoo`."""
    add_commands(entry_points(group=COMMANDS_GROUP))
    app()


def _loaded(command: EntryPoint) -> Callable[..., None]:
    try:
        return command.load()
    except Exception as error:
        reason = f"error: {command.name} cannot be loaded from {command.value}: {error!r}"

    def unusable() -> None:
        typer.echo(reason, err=True)
        raise typer.Exit(1)

    unusable.__doc__ = "Cannot be used; call it to see why."
    return unusable


def _find(model: str, root: Path) -> Bundle:
    name, _, version = model.partition("@")
    return bundle.find(name, version or None, roots=(root,))


def _published(root: Path) -> list[Callable[[], Bundle]]:
    """One call for each bundle under a root, which reads it as a request for it would."""
    return [partial(bundle.find, each.parent.name, each.name, (root,)) for each in bundle.discover(root)]


def _checks(target: str | None, root: Path) -> list[Callable[[], Bundle]]:
    """What `verify` is to read: all bundles, the one at a path, or the one of a name."""
    if target is None:
        return _published(root)
    if "/" in target or Path(target, bundle.MANIFEST_FILE).is_file():
        return [partial(bundle.read, Path(target))]
    return [partial(_find, target, root)]


def _summary(found: Bundle) -> str:
    manifest = found.manifest
    crop = manifest.input
    facts = {
        "model": f"{found.name}@{found.version}",
        "about": manifest.description,
        "licence": manifest.licence,
        "folder": str(found.folder),
        "skeleton": f"{manifest.skeleton}, {len(manifest.keypoints)} keypoints",
        "input": f"{crop.height} x {crop.width} (h x w) {crop.channels} {crop.dtype} {crop.layout}",
        **_outputs(manifest),
        "size": f"{manifest.macs / 1e6:.1f} MMACs, {manifest.parameters / 1e6:.2f} M parameters, "
        f"{_megabytes(manifest)}",
        "training": f"{', '.join(each.name for each in manifest.training.data)}; "
        f"{manifest.training.epochs:g} epochs, {manifest.training.hours:g} h on {manifest.training.hardware}",
        "made by": manifest.training.command,
    }
    lines = [f"{label + ':':<10} {value}" for label, value in facts.items()]
    lines += [
        f"accuracy:  {a.metric} {a.value:.1f} on {a.data} ({a.people} people){_in_8_bits(a)}"
        for a in manifest.accuracy
    ]
    lines += [
        f"latency:   {each.precision} {each.ms:.2f} ms on {each.hardware}, {each.ratio:.2f}x {each.reference}"
        for each in manifest.latency
    ]
    return "\n".join(lines)


def _outputs(manifest: BundleManifest) -> dict[str, str]:
    facts = {}
    if (heatmaps := manifest.heatmaps) is not None:
        facts["heatmaps"] = f"{heatmaps.height} x {heatmaps.width}, stride {heatmaps.stride:g}"
    if (points := manifest.keypoints_output) is not None:
        facts["keypoints"] = f"by {points.decoder}, in the graph" if points.decoder else "by the net itself"
    if (presence := manifest.presence) is not None:
        facts["presence"] = f"of a {presence.of}"
    for classes in manifest.classes:
        facts[classes.of] = ", ".join(classes.labels)
    if (depth := manifest.depth) is not None:
        facts["depth"] = f"z relative to {depth.root}"
    for each in manifest.calibration:
        facts[f"{each.of} calibrated"] = f"error {each.error_before:.3f} to {each.error:.3f} on {each.data}"
    if (codec := manifest.codec) is not None:
        blur = f", blur {codec.dark_blur_kernel}" if codec.dark_blur_kernel else ""
        facts["codec"] = f"{codec.kind}, sigma {codec.sigma_cells:g} cells; decoder {codec.decoder}{blur}"
    return facts


def _megabytes(manifest: BundleManifest) -> str:
    graphs = {"": manifest.model_file, "int8 ": manifest.int8_file}
    return ", ".join(
        f"{what}{manifest.files[name].bytes / 1e6:.2f} MB" for what, name in graphs.items() if name
    )


def _in_8_bits(measured: Accuracy) -> str:
    return ", int8" if measured.precision == "int8" else ""
