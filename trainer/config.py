"""One YAML file = one run. Unknown keys are errors that name the nearest known key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from model_zoo import codecs, skeletons
from model_zoo.manifest import Codec, Name, Normalisation
from trainer.data.augment import Augmentation
from trainer.errors import ConfigError
from trainer.nets.pose import INPUT_MULTIPLE, NetConfig

CONFIGS = Path(__file__).parent / "configs"
"""Configurations that come with the package."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Source(_Section):
    """One annotated set."""

    annotations: Path
    """COCO-keypoints JSON; relative paths start at the data root (`--data`)."""
    images: Path | None = None
    """Folder of the pictures, or their indexed tar; default: the tar beside the JSON, else the JSON's folder."""
    teacher: Path | None = None
    """Second opinions on the labels, see `trainer.data.teacher`."""
    repeat: PositiveInt = 1
    """How often each person comes up in an epoch."""
    keypoints_at_least: PositiveInt = 5
    """People with fewer labelled keypoints are left out."""
    licence: str = "not stated"
    """Terms of the set, for the model card."""


class Data(_Section):
    """What is learnt from and what progress is measured on."""

    train: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Training sets, merged by keypoint names."""
    validate_on: tuple[Source, ...] = ()
    """Sets that progress is measured on during the run; their labels are used as they are."""


class Phase(_Section):
    """A part of the run at one resolution."""

    epochs: PositiveInt
    """Passes over the training sets."""
    height: PositiveInt
    """Crop height in pixels."""
    width: PositiveInt
    """Crop width in pixels."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @model_validator(mode="after")
    def _fits_the_net(self) -> Self:
        if self.height % INPUT_MULTIPLE or self.width % INPUT_MULTIPLE:
            raise ValueError(f"height and width must be multiples of {INPUT_MULTIPLE}")
        return self


class Optimisation(_Section):
    """How the weights move."""

    batch: PositiveInt = 64
    """People per step, over all processes together."""
    learning_rate: PositiveFloat = 3e-3
    """Highest rate, reached after the warm-up."""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Last rate as a share of the highest."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Epochs of linear rise from 0; a cosine follows until the end of the last phase."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """AdamW's decay; not applied to biases and norms."""
    clip: PositiveFloat = 5.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9995
    """Decay of the averaged weights, which are the ones that are measured and exported."""


class RunConfig(_Section):
    """Everything that makes a run what it is."""

    name: Name
    """Name of the model and of the default run folder."""
    description: str
    """One line for people."""
    licence: str = "not stated"
    """Terms under which the weights may be used."""
    skeleton: str = "body19"
    """Keypoints to learn."""
    padding: PositiveFloat = 1.25
    """Context around a person's box."""
    normalisation: Normalisation = Normalisation()
    """Pixels to numbers; one mean and scale for all channels, so that the exported graph can do it exactly."""
    codec: Codec
    """Keypoints as heatmaps and back."""
    net: NetConfig = NetConfig()
    """Shape of the net."""
    data: Data
    """Training and validation sets."""
    augmentation: Augmentation = Augmentation()
    """How pictures are varied."""
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    """Resolutions over time; the last one is the one that is served."""
    optimisation: Optimisation = Optimisation()
    """How the weights move."""
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    """Arithmetic of the forward and backward pass; Lightning's names."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Order of people, augmentation, and initial weights."""
    validate_every: PositiveInt = 5
    """Epochs between two measurements."""

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        if self.skeleton not in skeletons.SKELETONS:
            raise ValueError(f"unknown skeleton {self.skeleton!r}; known: {', '.join(skeletons.SKELETONS)}")
        decoders = codecs.decoders()
        if self.codec.decoder not in decoders:
            raise ValueError(f"unknown decoder {self.codec.decoder!r}; known: {', '.join(sorted(decoders))}")
        return self

    @property
    def epochs(self) -> int:
        """Of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def phase_of(self, epoch: int) -> Phase:
        """The phase that an epoch, counted from 0, belongs to."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        return self.phases[-1]


def load(source: str, overrides: list[str] | None = None) -> RunConfig:
    """Read a configuration.

    Args:
        source: path of a YAML file, or the name of one that comes with the package.
        overrides: `a.b=value` texts; values are YAML. List items are named by their position: `phases.0.epochs=2`.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest known one is named) or a value out of bounds.
    """
    path = Path(source) if source.endswith((".yaml", ".yml")) else CONFIGS / f"{source}.yaml"
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        known = ", ".join(shipped())
        raise ConfigError(
            f"cannot read configuration {source!r} ({error.strerror}); shipped ones: {known}"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no mapping")
    for override in overrides or []:
        _override(document, override)
    return parse(document)


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def parse(document: dict[str, Any]) -> RunConfig:
    """Validate a document; ConfigError lists every problem, one a line."""
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(_problem(each) for each in error.errors())) from error


def dump(config: RunConfig) -> str:
    """The resolved configuration as YAML; `load` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _override(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"an override reads key=value, got {override!r}")
    *parents, last = key.split(".")
    try:
        value = yaml.safe_load(text)
        node: Any = document
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"override {override!r} does not fit the configuration: {error}") from error


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "configuration"
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}"
    near = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(error["loc"][:-1]), n=1)
    return f"{where}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Field names of the section at a location."""
    section: Any = RunConfig
    for part in location:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        models = [annotation, *getattr(annotation, "__args__", ())]
        section = next(each for each in models if isinstance(each, type) and issubclass(each, BaseModel))
    return list(section.model_fields)
