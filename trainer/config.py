"""One YAML file = one run. Unknown keys are errors that name the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
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
from trainer.distill.sections import Distillation
from trainer.errors import ConfigError
from trainer.losses.sections import KEYPOINT_TERMS, OWN_TERM, TERMS_OF_HEAD, Losses
from trainer.nets.pose import INPUT_MULTIPLE, MAP_HEADS, NetConfig

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
    plain: bool = False
    """Whether people stand before plain walls, which `augmentation.backdrops` may exchange."""
    licence: str = "not stated"
    """Terms of the set, for the model card."""

    @property
    def name(self) -> str:
        """As in tables and curves: the path of the annotations without its suffix."""
        return self.annotations.with_suffix("").as_posix()


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
    """Epochs of linear rise from 0; the schedule follows until the end of the last phase."""
    schedule: Literal["cosine", "flat_cosine"] = "cosine"
    """`flat_cosine` keeps the highest rate for the first half of the run."""
    kind: Literal["adamw", "sgd"] = "adamw"
    """`sgd` is with Nesterov's momentum; it wants another learning rate and weight decay."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Not applied to biases, norms and what losses learn."""
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
    root: str | None = None
    """Keypoint that depth is relative to; the first one where it is not given."""
    padding: PositiveFloat = 1.25
    """Context around a person's box."""
    normalisation: Normalisation = Normalisation()
    """Pixels to numbers; one mean and scale for all channels, so that the exported graph can do it exactly."""
    codec: Codec = Codec(sigma_cells=1.0)
    """Keypoints as heatmaps and back; of heads that answer keypoints only the sigma counts."""
    net: NetConfig = NetConfig()
    """Shape of the net."""
    data: Data
    """Training and validation sets."""
    augmentation: Augmentation = Augmentation()
    """How pictures are varied."""
    losses: Losses = Losses()
    """What the net learns by. The head's own term is there with weight 1 unless another term on keypoints is named."""
    weighting: Literal["fixed", "automatic"] = "fixed"
    """`automatic`: the balance of the terms is learnt, on top of their weights."""
    ohkm: PositiveInt | None = None
    """Only this many keypoints of each crop, those with the largest losses, are learnt from; all where not given."""
    distillation: Distillation = Distillation()
    """Learning from another net, or from a larger form of this one."""
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    """Resolutions over time; the last one is the one that is served."""
    optimisation: Optimisation = Optimisation()
    """How the weights move."""
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    """Arithmetic of the forward and backward pass; Lightning's names."""
    initial: Path | None = None
    """Folder of a run, from where the command is given, whose averaged weights this one begins with; what does not fit
    of heads begins anew, and a net that is wider grows from them."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Order of people, augmentation, and initial weights."""
    validate_every: PositiveInt = 5
    """Epochs between two measurements."""

    @model_validator(mode="before")
    @classmethod
    def _with_own_terms(cls, document: Any) -> Any:
        """Add the terms that follow from the heads, so that a short file is enough and a run folder says it all."""
        net = document.get("net", {}) if isinstance(document, dict) else None
        losses = document.get("losses", {}) if isinstance(document, dict) else None
        if not (isinstance(net, dict) and isinstance(losses, dict)):
            return document
        named = {name for name, term in losses.items() if term is not None}
        own = set() if named & KEYPOINT_TERMS else {_own_term(net)}
        own |= {name for name, head in _FURTHER.items() if net.get(head)}
        return document | {"losses": losses | {name: {} for name in sorted(own - named)}}

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        if self.skeleton not in skeletons.SKELETONS:
            raise ValueError(f"unknown skeleton {self.skeleton!r}; known: {', '.join(skeletons.SKELETONS)}")
        decoders = codecs.decoders()
        if self.codec.decoder not in decoders:
            raise ValueError(f"unknown decoder {self.codec.decoder!r}; known: {', '.join(sorted(decoders))}")
        if self.root is not None and self.root not in skeletons.skeleton(self.skeleton).keypoints:
            raise ValueError(f"root: {self.skeleton} has no keypoint {self.root!r}")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self

    @property
    def root_index(self) -> int:
        """Index of the keypoint that depth is relative to."""
        return 0 if self.root is None else skeletons.skeleton(self.skeleton).index(self.root)

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


_FURTHER = {"presence": "presence", "handedness": "handedness", "class": "classes", "depth": "depth"}
"""Terms of the further heads, and what of the net's section asks for each head."""


def _own_term(net: dict[str, Any]) -> str:
    """The term of a net's keypoint head; whatever is wrong with the section is said when it is validated."""
    own = OWN_TERM.get(str(net.get("head", "softmax")), "heatmap")
    return "integral" if own == "dsnt" and net.get("debiased") else own


_COLUMNS = frozenset({"epoch", "height", "loss", "learning_rate", "seconds", "images_per_second"})
"""Columns of metrics.csv that no validation set may be named like."""


def _contradictions(config: RunConfig) -> Iterator[str]:
    """Parts of a run that cannot go together, a line each."""
    net, losses, how = config.net, config.losses, config.distillation
    if config.normalisation.mean not in range(256):
        yield "normalisation.mean: choose a whole number from 0 to 255, which the graph can subtract exactly"
    if not config.normalisation.inside_graph:
        yield "normalisation.inside_graph: the graphs that are exported always normalise by themselves"
    names = [source.name for source in config.data.validate_on]
    for name in {each for each in names if names.count(each) > 1 or each in _COLUMNS}:
        yield f"data.validate_on: {name} would stand twice in metrics.csv; give its file another name"
    allowed = TERMS_OF_HEAD[net.head] | _FURTHER.keys()
    for name in losses.terms():
        if name not in allowed:
            yield f"losses.{name}: not for net.head {net.head}; it has {', '.join(sorted(allowed))}"
    if net.head == "linear" and losses.bone is not None and losses.bone.between == "coordinates":
        yield "losses.bone.between: a linear head has no coordinates; choose heatmaps"
    if net.head not in MAP_HEADS and losses.bone is not None and losses.bone.between == "heatmaps":
        yield f"losses.bone.between: net.head {net.head} has no heatmaps; choose coordinates"
    if net.dimensions == 3 and losses.integral is not None:
        yield "losses.integral: only in 2 dimensions"
    learnt = losses.coordinates
    if learnt is not None and learnt.kind in ("laplace", "gaussian") and net.head != "regression":
        yield f"losses.coordinates.kind: only net.head regression learns the scale that {learnt.kind} needs"
    if learnt is not None and learnt.kind in ("laplace", "gaussian") and net.dimensions == 3:
        yield f"losses.coordinates.kind: {learnt.kind} only in 2 dimensions"
    for term, head in _FURTHER.items():
        if term in losses.terms() and not getattr(net, head):
            yield f"losses.{term}: net.{head} asks for no such head"
    if not any(losses.terms().values()):
        yield "losses: every weight is 0"
    if net.head == "simcc" and len({phase.size for phase in config.phases}) > 1:
        yield "phases: a simcc head is bound to one size"
    if how.okdhp is not None and (
        net.head not in MAP_HEADS or any(getattr(net, each) for each in _FURTHER.values())
    ):
        yield "distillation.okdhp: only for a softmax or linear head without further heads"
    if how.okdhp is not None and (set(losses.terms()) != {"heatmap"} or config.ohkm is not None):
        yield "distillation.okdhp: only with losses.heatmap alone"
    if how.netaug is not None and net.head == "simcc":
        yield "distillation.netaug: not for net.head simcc, whose inner width is none of the net's"


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
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)


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
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    near = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(error["loc"][:-1]), n=1)
    return f"{where}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Field names of the section at a location."""
    section: Any = RunConfig
    for part in location:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        annotation = fields[part].annotation
        models = [annotation, *getattr(annotation, "__args__", ())]
        section = next(each for each in models if isinstance(each, type) and issubclass(each, BaseModel))
    return [field.alias or name for name, field in section.model_fields.items()]
