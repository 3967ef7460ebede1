"""What a check found, and a list of that as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["ok", "note", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line: `failed` keeps the service from starting or from doing what the settings ask for, `warning` makes it
    worse than it could be, a `note` tells of something that is not there and need not be."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def failed(findings: Sequence[Finding]) -> bool:
    """Whether any of them did."""
    return any(each.verdict == "failed" for each in findings)


def table(findings: Sequence[Finding]) -> str:
    """For people: a line for each, and below it what to do."""
    wide = max((len(each.check) for each in findings), default=0)
    lines = []
    for each in findings:
        lines.append(f"{each.verdict:8} {each.check:{wide}}  {each.found}")
        if each.advice:
            lines.append(f"{'':8} {'':{wide}}  -> {each.advice}")
    counts = [
        f"{sum(each.verdict == verdict for each in findings)} {name}"
        for verdict, name in (("failed", "failed"), ("warning", "warnings"))
    ]
    return "\n".join([*lines, "", ", ".join(counts)])


def as_json(findings: Sequence[Finding]) -> str:
    """For programs: `ok`, and `findings` as they are."""
    return json.dumps({"ok": not failed(findings), "findings": [asdict(each) for each in findings]}, indent=2)
