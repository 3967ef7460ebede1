"""Bundles on disk -> served models by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from model_zoo import bundle, skeletons
from model_zoo.bundle import Bundle
from model_zoo.errors import ModelZooError
from model_zoo.manifest import BundleManifest, Precision
from model_zoo.skeletons import Skeleton
from service.errors import NotReady, StartupError, UnknownModel
from service.starting import Attempts

if TYPE_CHECKING:
    from service.batcher import Batcher
    from service.pipeline import Device

MAX_REFERENCE = 160
"""Longest `name@version` that is looked at."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of one model, ready to answer."""

    bundle: Bundle
    batcher: Batcher
    """Takes `looks.Job`, gives `types.Prediction`."""
    precision: Precision = "fp32"
    """What it computes in."""
    provider: str = "cpu"
    """What it runs on, see `runner.PROVIDERS`."""
    load_s: float = 0.0
    """From opening its graph to the end of its warm-up."""
    memory_bytes: int = 0
    """How much the process grew meanwhile, in resident memory."""
    device: Device | None = None
    """What makes the calls of its net for the batcher's workers, where they do not do it themselves."""

    async def stop(self, timeout_s: float) -> bool:
        """Finish what waits and end the threads; whether all of it was finished in time."""
        try:
            return await self.batcher.stop(timeout_s)
        finally:
            self.close()

    def close(self) -> None:
        """End the thread that makes the calls of its net, if it has one."""
        if self.device is not None:
            self.device.close()

    @property
    def manifest(self) -> BundleManifest:
        """The facts about the model."""
        return self.bundle.manifest

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton that the model finds."""
        return skeletons.skeleton(self.manifest.skeleton)

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.bundle.name}@{self.bundle.version}"


def read_bundles(roots: Sequence[Path]) -> list[Bundle]:
    """Read and verify every bundle under the roots, by name, then by version: 2 before 10; the first root wins.

    Raises:
        StartupError: roots that are no folders, bundles that are broken, all of them; or there is no bundle at all.
    """
    attempts = Attempts()
    attempts.problems += [
        f"{root} is no folder of bundles; REPPOSE_MODELS__ROOTS names it"
        for root in roots
        if not root.is_dir()
    ]
    attempts.check()
    folders = [folder for root in roots for folder in bundle.discover(root)]
    wanted = {(folder.parent.name, folder.name) for folder in folders}
    if not wanted:
        raise StartupError(f"there is no bundle in {', '.join(map(str, roots)) or 'no folder at all'}")
    ordered = sorted(wanted, key=lambda each: (each[0], bundle.natural(each[1]), each[1]))
    found = [attempts.of(partial(bundle.find, name, version, roots)) for name, version in ordered]
    attempts.check()
    return [each for each in found if each is not None]


@dataclass(frozen=True, eq=False)
class Lineup:
    """Models that may be served together."""

    models: dict[str, ServedModel]
    """By `name@version`."""
    newest: dict[str, str]
    """Version by name."""
    default_reference: str
    """`name` or `name@version`."""

    @property
    def default(self) -> ServedModel:
        """The model of a request that names none. Raises UnknownModel."""
        return self.find(self.default_reference)

    def find(self, reference: str) -> ServedModel:
        """The model of this `name` (its newest version) or `name@version`. Raises UnknownModel."""
        reference = reference[:MAX_REFERENCE]
        try:
            return self.models[reference if "@" in reference else f"{reference}@{self.newest[reference]}"]
        except KeyError:
            known = ", ".join(sorted(self.models))
            raise UnknownModel(f"no model {reference!r} is served; known: {known}") from None


class Registry:
    """The served models. Empty until `load` was called, or `swap` with what `prepare` gave."""

    def __init__(self) -> None:
        self._lineup: Lineup | None = None

    def load(self, roots: Sequence[Path], default: str, open_model: Callable[[Bundle], ServedModel]) -> None:
        """Serve every bundle under the roots; arguments and errors are those of `prepare`."""
        self.swap(self.prepare(roots, default, open_model))

    def prepare(
        self, roots: Sequence[Path], default: str, open_model: Callable[[Bundle], ServedModel]
    ) -> Lineup:
        """Open every bundle under the roots; one that is served already, with the same files, stays as it is.

        Args:
            roots: folders of bundles.
            default: the model of a request that names none, as `name` or `name@version`.
            open_model: makes a served model of a bundle; blocks while it loads.

        Raises:
            StartupError: a bundle is missing, broken, or cannot be loaded.
        """
        served = {each.reference: each for each in self}
        fresh: list[ServedModel] = []

        def opened(found: Bundle) -> ServedModel:
            old = served.get(f"{found.name}@{found.version}")
            if old is not None and old.bundle == found:
                return old
            fresh.append(open_model(found))
            return fresh[-1]

        try:
            found = read_bundles(roots)
            models = {each.reference: each for each in map(opened, found)}
            newest = {each.name: each.version for each in found}  # the last of a name
            lineup = Lineup(models, newest, default)
            lineup.find(default)
        except BaseException as error:
            for model in fresh:  # nobody will ask them
                model.close()
            if isinstance(error, UnknownModel):
                raise StartupError(f"the default model is missing: {error}") from error
            if isinstance(error, ModelZooError):
                raise StartupError(str(error)) from error
            raise
        return lineup

    def swap(self, lineup: Lineup) -> list[ServedModel]:
        """Serve these models from now on; gives those that are served no more."""
        stay = set(lineup.models.values())
        leave = [model for model in self if model not in stay]
        self._lineup = lineup
        return leave

    def get(self, reference: str | None) -> ServedModel:
        """The model of this `name` (its newest version) or `name@version`; the default one for None.

        Raises:
            NotReady: nothing is loaded yet.
            UnknownModel: no such model or version.
        """
        lineup = self._loaded()
        return lineup.default if reference is None else lineup.find(reference)

    @property
    def default(self) -> ServedModel:
        """The model of a request that names none. Raises NotReady before `load` is through."""
        return self._loaded().default

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(() if self._lineup is None else self._lineup.models.values())

    def _loaded(self) -> Lineup:
        if self._lineup is None:
            raise NotReady("the models are being loaded")
        return self._lineup
