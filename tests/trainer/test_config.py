"""Configurations: nearest keys, bounds, overrides, and that nothing is lost on the way to a run folder."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.trainer import people_made
from trainer import config as configuration
from trainer.config import RunConfig
from trainer.errors import ConfigError


def written(folder: Path, document: Any) -> str:
    """Path of a YAML file."""
    path = folder / "run.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), "utf-8")
    return str(path)


def changed(where: str, value: Any) -> dict[str, Any]:
    """The document for tests with one value changed; `data.train.0.repeat` names list items by position."""
    document = people_made.run_document()
    *parents, last = (int(part) if part.isdigit() else part for part in where.split("."))
    node: Any = document
    for part in parents:
        node = node[part] if isinstance(node, list) else node.setdefault(part, {})
    node[last] = value
    return document


def sections(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """A section and all sections inside it."""
    if model in seen:
        return
    seen.add(model)
    yield model
    for field in model.model_fields.values():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from sections(part, seen)


ALL_SECTIONS = list(sections(RunConfig, set()))


def test_the_walk_finds_the_sections() -> None:
    names = {section.__name__ for section in ALL_SECTIONS}
    assert {"RunConfig", "Data", "Source", "Phase", "Optimisation", "Augmentation", "NetConfig"} <= names
    assert {"Codec", "Normalisation"} <= names


@pytest.mark.parametrize("section", ALL_SECTIONS, ids=lambda each: each.__name__)
def test_every_field_says_what_it_means(section: type[BaseModel]) -> None:
    silent = [name for name, field in section.model_fields.items() if not (field.description or "").strip()]
    assert silent == []
    assert (section.__doc__ or "").strip()


@pytest.mark.parametrize("section", ALL_SECTIONS, ids=lambda each: each.__name__)
def test_every_section_refuses_unknown_keys_and_is_frozen(section: type[BaseModel]) -> None:
    assert section.model_config.get("extra") == "forbid"
    assert section.model_config.get("frozen")


@pytest.mark.parametrize("name", configuration.shipped())
def test_every_shipped_configuration_loads_and_is_named_after_its_file(name: str) -> None:
    assert configuration.load(name).name == name


def test_there_are_shipped_configurations() -> None:
    assert "body19-small" in configuration.shipped()


@pytest.mark.parametrize("name", configuration.shipped())
def test_a_dumped_configuration_loads_to_an_equal_one(name: str, tmp_path: Path) -> None:
    config = configuration.load(name)
    assert configuration.load(written(tmp_path, configuration.dump(config))) == config


@given(
    learning_rate=st.floats(1e-9, 1, allow_subnormal=False),
    shift=st.floats(0, 0.5),
    description=st.text(max_size=30),
    annotations=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_the_values_dump_and_load_are_inverse(
    tmp_path_factory: Any, learning_rate: float, shift: float, description: str, annotations: str, seed: int
) -> None:
    document = people_made.run_document(
        description=description, seed=seed, data={"train": [{"annotations": annotations}]}
    )
    document["optimisation"]["learning_rate"] = learning_rate
    document["augmentation"]["shift"] = shift
    config = configuration.parse(document)
    path = written(tmp_path_factory.getbasetemp(), configuration.dump(config))
    assert configuration.load(path) == config


@pytest.mark.parametrize(
    ("where", "nearest"),
    [
        ("nmae", "name"),
        ("optimisation.learning_rte", "learning_rate"),
        ("data.trian", "train"),
        ("data.train.0.teachr", "teacher"),
        ("data.validate_on.0.anotations", "annotations"),
        ("phases.0.hight", "height"),
        ("net.width", "widths"),
        ("codec.sigma_cell", "sigma_cells"),
        ("augmentation.turn_degrees", "turn_deg"),
        ("normalisation.skale", "scale"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_known_one(where: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configuration.parse(changed(where, 1))
    assert f"{where}: unknown key; did you mean {nearest!r}?" in str(caught.value).splitlines()


def test_a_key_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"zzzzqqq: unknown key$"):
        configuration.parse(changed("zzzzqqq", 1))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("name", "Not a name"),
        ("skeleton", "body20"),
        ("codec.decoder", "darkk"),
        ("codec.sigma_cells", 0),
        ("codec.dark_blur_kernel", 4),
        ("padding", 0),
        ("padding", float("inf")),
        ("seed", -1),
        ("seed", 2**32),
        ("phases", []),
        ("phases.0.epochs", 0),
        ("phases.0.height", 100),
        ("phases.0.width", 0),
        ("data.train", []),
        ("data.train.0.repeat", 0),
        ("data.train.0.keypoints_at_least", 0),
        ("optimisation.batch", 0),
        ("optimisation.learning_rate", 0),
        ("optimisation.learning_rate", float("inf")),
        ("optimisation.learning_rate", float("nan")),
        ("optimisation.final_rate", 1.5),
        ("optimisation.warmup_epochs", -1),
        ("optimisation.weight_decay", float("inf")),
        ("optimisation.ema", 1),
        ("optimisation.clip", 0),
        ("augmentation.flip", 1.1),
        ("augmentation.turn_deg", 181),
        ("augmentation.scale", 1),
        ("augmentation.shift", 0.6),
        ("net.widths", [16, 16, 16]),
        ("net.blocks", [1, 1, 0, 1]),
        ("net.form", "none"),
        ("net.head", "none"),
        ("normalisation.scale", 0),
        ("precision", "16"),
        ("validate_every", 0),
    ],
)
def test_a_value_out_of_bounds_names_its_field(where: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        configuration.parse(changed(where, value))
    field = where.rpartition(".")[2]
    assert field in str(caught.value)


def test_every_problem_gets_a_line() -> None:
    document = changed("sed", 1) | {"padding": -1, "precision": "8"}
    with pytest.raises(ConfigError) as caught:
        configuration.parse(document)
    assert sorted(line.partition(":")[0] for line in str(caught.value).splitlines()) == [
        "padding",
        "precision",
        "sed",
    ]


def test_overrides_change_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, people_made.run_document())
    overrides = [
        "seed=7",
        "phases.0.epochs=9",
        "data.train.0.repeat=3",
        "data.validate_on=[]",
        "net.widths.2=32",
        "normalisation.mean=100",
        "codec={sigma_cells: 2}",
        "description=a=b",
    ]
    config = configuration.load(path, overrides)
    assert config.seed == 7
    assert config.phases[0].epochs == 9
    assert config.data.train[0].repeat == 3
    assert config.data.validate_on == ()
    assert config.net.widths == (16, 16, 32, 16)
    assert config.normalisation.mean == 100
    assert config.codec.sigma_cells == 2
    assert config.description == "a=b"
    untouched = {"name", "skeleton", "optimisation", "augmentation", "precision", "padding"}
    plain = configuration.load(path)
    assert config.model_dump(include=untouched) == plain.model_dump(include=untouched)


@pytest.mark.parametrize(
    "override",
    [
        "seed",
        "phases.9.epochs=1",
        "phases.first.epochs=1",
        "seed.part=1",
        "name.a.b=1",
        "net.widths.9=1",
        "seed=[",
        "sed=2",
        "=3",
    ],
)
def test_an_override_that_does_not_fit_is_named(tmp_path: Path, override: str) -> None:
    path = written(tmp_path, people_made.run_document())
    with pytest.raises(ConfigError) as caught:
        configuration.load(path, [override])
    key = override.partition("=")[0]
    assert key.partition(".")[0] in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "just text", "a: [", "seed: 2020-99-99", "\x00"])
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        configuration.load(written(tmp_path, text))


def test_a_file_of_other_bytes_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        configuration.load(str(path))


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"'body20-small'.*body19-small"):
        configuration.load("body20-small")


def test_phases_follow_each_other() -> None:
    phases = [{"epochs": 2, "height": 64, "width": 32}, {"epochs": 1, "height": 96, "width": 64}]
    config = configuration.parse(people_made.run_document(phases=phases))
    assert config.epochs == 3
    assert [config.phase_of(number).size for number in range(4)] == [(64, 32), (64, 32), (96, 64), (96, 64)]
