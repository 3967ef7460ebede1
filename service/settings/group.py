"""What all groups of settings have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

FILE_SUFFIX = "_file"

Port = Annotated[int, Field(ge=0, le=65535)]


def _not_empty(value: object) -> object:
    if value == "":  # which would be the working directory
        raise ValueError("an empty path; leave the setting out for none")
    return value


NamedPath = Annotated[Path, BeforeValidator(_not_empty)]


class Group(BaseModel):
    """Some settings that belong together: unknown names are refused, and every field has its meaning below it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def secrets(cls) -> list[str]:
        """Names of the settings that may be read from a file: NAME_file is its path."""
        return [name for name, field in cls.model_fields.items() if field.annotation is SecretStr]


def split_commas(value: object) -> object:
    """What stands between the commas of a text, as a tuple; anything else is left alone."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())
