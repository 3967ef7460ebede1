"""What a made set is made from: everything that its bytes follow from, kept beside it as `synth.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer import files
from trainer.errors import DataError
from trainer.synth import families

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Endings of what counts as a background in a folder."""


@dataclass(frozen=True)
class Recipe:
    """A set to be made; the same recipe makes the same bytes, whatever the number of processes."""

    kind: str
    """`body`, `hand`, `scene` or `video`."""
    n: int
    """Pictures, or clips of `video`."""
    seed: int = 1
    size: int = 256
    """Longer side of a picture in pixels."""
    poses: Path | None = None
    """Fitted poses to draw from, as `reppose-train synth-fit` writes them."""
    backgrounds: Path | None = None
    """Folder of pictures without people."""
    without: tuple[str, ...] = ()
    """Families that are left out, see `families.FAMILIES`; in any order."""

    def __post_init__(self) -> None:
        """ConfigError: the kind has no family of such a name."""
        object.__setattr__(self, "without", families.check(self.without, self.kind))

    @cached_property
    def left_out(self) -> frozenset[str]:
        """The families that are left out."""
        return frozenset(self.without)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """JSON-able: the recipe with hashes in place of paths, and one of the code that follows it.

        Raises:
            DataError: the poses or the backgrounds cannot be read.
        """
        document: dict[str, Any] = asdict(self)
        document["poses"] = _hash_of_files([self.poses]) if self.poses else None
        document["backgrounds"] = _listing(self.backgrounds) if self.backgrounds else None
        document["without"] = list(self.without)
        document["code"] = _hash_of_files(sorted(Path(__file__).parent.glob("*.py")))
        return document

    def save(self, path: Path) -> None:
        """Write the facts; DataError where `path` holds those of another set."""
        if path.exists():
            try:
                known = json.loads(path.read_text("utf-8"))
                changed = [key for key, value in self.facts.items() if known.get(key) != value]
            except (OSError, ValueError, AttributeError) as error:
                raise DataError(f"cannot read {path}: {error}") from error
            if changed:
                raise DataError(
                    f"{path.parent} holds a set that was made with another {' and '.join(changed)}; "
                    "choose another folder, or delete this one"
                )
            return
        files.write_text(path, json.dumps(self.facts, indent=1) + "\n")


def pictures_of(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted; DataError where there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise DataError(f"{folder} holds no pictures ({', '.join(PICTURES)})")
    return found


def _hash_of_files(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error}") from error
    return digest.hexdigest()[:16]


def _listing(folder: Path) -> str:
    facts = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in pictures_of(folder)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
