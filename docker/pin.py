"""Print docker/requirements.txt: what the serving image installs, everything below it included, each version exact.

Names come from pyproject.toml (the default install and the extras of EXTRAS) and from what the installed distributions
say they need; versions from constraints.txt. `make requirements` runs it.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("redis", "tracing", "auth")
"""What the image has beside the default install: replicas share sessions, are watched together, and believe tokens."""
PYTHON = "3.11.0"
"""The oldest release of the image's Python; the newest needs nothing more."""
LEAVES = {"async-timeout"}
"""Needed by Pythons older than 3.11.3 only, so it may not be installed here; it stands on nothing itself."""
HEAD = """\
# What the serving image installs, all of it. Made by `make requirements` from pyproject.toml and constraints.txt.
"""


def wanted() -> list[str]:
    """The project's own requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project["dependencies"] + [
        each for extra in EXTRAS for each in project["optional-dependencies"][extra]
    ]


def pinned() -> dict[str, str]:
    """Lines of constraints.txt by canonical name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {
        canonicalize_name(line.partition("==")[0]): line for line in lines if line and line[0] not in "#-"
    }


def closure(requirements: list[str]) -> set[str]:
    """Canonical names of everything that these requirements pull in, here."""
    waiting = [(Requirement(each), "") for each in requirements]
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        environment = {"extra": extra, "python_full_version": PYTHON}
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        names.add(name)
        if name in LEAVES:
            continue
        for asked in ("", *requirement.extras):
            if (name, asked) not in seen:
                seen.add((name, asked))
                waiting += [(Requirement(each), asked) for each in distribution(name).requires or ()]
    return names


def text() -> str:
    """The whole file. Raises KeyError for a distribution that constraints.txt does not pin."""
    pins = pinned()
    return HEAD + "".join(f"{pins[name]}\n" for name in sorted(closure(wanted())))


if __name__ == "__main__":
    print(text(), end="")
