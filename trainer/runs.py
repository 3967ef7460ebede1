"""What `train` and `compare` of the command line do, as functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_zoo import bundle, codecs, geometry, skeletons
from trainer import loop, plots
from trainer.checkpoint import RunFolder
from trainer.config import RunConfig
from trainer.distill.teacher import Teacher, joints_by_name
from trainer.errors import ConfigError
from trainer.evaluate import Points
from trainer.export import OnnxNet
from trainer.nets.pose import MAP_HEADS


def train(
    config: RunConfig,
    root: Path,
    out: Path,
    *,
    roots: list[Path],
    accelerator: str = "auto",
    processes: int = 0,
) -> None:
    """Run a configuration, or go on with it.

    Args:
        config: the run.
        root: data root.
        out: run folder; the decoded crops lie beside it.
        roots: folders of bundles, searched for a teacher before the built-in ones.
        accelerator: `cpu`, `cuda` or `auto`.
        processes: that share each batch; 0 for one per core or GPU.
    """
    loop.train(
        config,
        root,
        RunFolder(out),
        cache=out.parent / "cache",
        accelerator=accelerator,
        processes=processes or loop.default_processes(accelerator, config.optimisation.batch),
        teacher=teacher(config, roots),
    )


def teacher(config: RunConfig, roots: list[Path]) -> Teacher | None:
    """The bundle that a configuration wants to learn from; None where it names none.

    A pupil with heatmaps learns the teacher's maps, any other its keypoints, read by the teacher's own decoder.

    Args:
        config: the run.
        roots: folders of bundles, searched before the built-in ones.

    Raises:
        ConfigError: the bundle's crops have another shape than the run's, or it knows none of the run's keypoints.
    """
    how = config.distillation.teacher
    if how is None:
        return None
    name, _, version = how.bundle.partition("@")
    folder = Path(how.bundle)
    found = (
        bundle.read(folder)
        if folder.is_dir()
        else bundle.find(name, version or None, (*roots, bundle.BUILTIN))
    )
    manifest, net = found.manifest, OnnxNet(found.model_path)
    size = manifest.input.size
    if any(size[0] * phase.width != size[1] * phase.height for phase in config.phases):
        raise ConfigError(
            f"distillation.teacher.bundle: its crops are {size[0]} x {size[1]}, of another shape than a phase"
        )
    joints = joints_by_name(skeletons.skeleton(config.skeleton).keypoints, manifest.keypoints)
    if not any(index is not None for index in joints):
        raise ConfigError("distillation.teacher.bundle: it knows none of the run's keypoints")
    maps = manifest.heatmaps
    if maps is not None and config.net.head in MAP_HEADS:
        return Teacher(net, "heatmaps", size, joints, sure=how.sure)

    def points(images: NDArray[np.uint8]) -> tuple[Points, Points]:
        if maps is None:
            answer = net.keypoints(images)
            return answer[..., :2], answer[..., 2]
        cells, scores = codecs.decoder(manifest.codec.decoder)(net(images), manifest.codec)
        return geometry.cells_to_pixels(cells, maps.stride), scores

    return Teacher(points, "points", size, joints, sure=how.sure)


def compare(runs: list[Path], out: Path) -> tuple[list[str], list[list[str]]]:
    """Set runs side by side, and draw their curves over each other.

    Args:
        runs: run folders, each with at least one finished epoch.
        out: PNG that is written.

    Returns:
        The names of the runs, and rows of texts: what is compared, then its value of each run.
    """
    folders = [RunFolder(run) for run in runs]
    configs = [folder.config() for folder in folders]
    tables = [folder.metrics() for folder in folders]
    names = [str(run) for run in runs]
    plots.curves(dict(zip(names, tables, strict=True)), out)
    rows = [
        ["configuration", *(config.name for config in configs)],
        ["head", *(config.net.head for config in configs)],
        ["losses", *(" + ".join(config.losses.terms()) for config in configs)],
        ["epochs", *(f"{len(t)} of {config.epochs}" for t, config in zip(tables, configs, strict=True))],
        ["hours", *(f"{sum(row['seconds'] for row in table) / 3600:.2f}" for table in tables)],
    ]
    for column in dict.fromkeys(name for table in tables for row in table for name in row):
        if column not in plots.NOT_CURVES:
            last = [[row[column] for row in table if column in row][-1:] for table in tables]
            rows.append([column, *(f"{value[0]:.4g}" if value else "" for value in last)])
    return names, rows
