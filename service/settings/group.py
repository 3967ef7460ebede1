"""What all groups of settings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

FILE_SUFFIX = "_file"

Port = Annotated[int, Field(ge=0, le=65535)]


class Group(BaseModel):
    """Some settings that belong together: unknown names are refused, and every field has its meaning below it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def secrets(cls) -> list[str]:
        """Names of the settings that may be read from a file: NAME_file is its path."""
        return [name for name, field in cls.model_fields.items() if field.annotation is SecretStr]

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, given: object) -> object:
        """Put what the files hold in the place of their paths; a newline at the end is no part of a secret."""
        if not isinstance(given, Mapping):
            return given
        values = dict(given)
        for name in cls.secrets():
            path = values.pop(name + FILE_SUFFIX, None)
            if not path:
                continue
            if name in values:
                raise ValueError(f"{name} and {name}{FILE_SUFFIX} exclude each other")
            try:
                values[name] = Path(path).read_text("utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{name}{FILE_SUFFIX}: cannot read {path}: {error}") from None
        return values


def split_commas(value: object) -> object:
    """What stands between the commas of a text, as a tuple; anything else is left alone."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())
