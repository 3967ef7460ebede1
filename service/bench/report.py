"""Rows to a table for people, CSV and JSON for programs, and a plot (SVG, drawn here: the service has no plotter)."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path

from service.bench.rows import CPU_TARGETS, Row, Target

_HEAD = (
    f"{'precision':9} {'picture':14} {'route':9} {'c':>4} {'images/s':>8} {'p50':>7} {'p95':>7} {'p99':>7} "
    f"{'CPU ms':>7} {'loop ms':>7} {'ratio':>6} {'batch':>5} {'client':>6} {'others':>6}"
)
_BAR, _LINE, _LEFT, _WIDE = 12, 18, 300, 420


def table(rows: Sequence[Row]) -> str:
    """Everything in lines of text. Latencies in ms; CPU ms are the server's for one image, loop ms the bare loop's."""
    lines = [_HEAD]
    for row in rows:
        name = row.precision if row.server == "reppose" else row.server
        how = f"{row.concurrency:4}" if row.concurrency else "open"
        lines.append(
            f"{name:9} {row.picture:14} {row.route:9} {how} {row.images_per_s:8.0f} {row.p50_ms:7.2f} "
            f"{row.p95_ms:7.2f} {row.p99_ms:7.2f} {row.cpu_ms:7.3f} {row.loop_cpu_ms:7.3f} {row.ratio:6.2f} "
            f"{row.batch:5.1f} {row.client_cores:6.2f} {row.other_cores:6.2f}"
            + (f"  {row.failed} failed" if row.failed else "")
        )
    return "\n".join(lines)


def verdicts(targets: Sequence[Target]) -> str:
    """Each target with what was measured."""
    lines = []
    for target in targets:
        sign = ">=" if target.at_least else "<="
        verdict = {True: "reached", False: "NOT reached", None: "not judged: others used the processors"}[
            target.reached
        ]
        lines.append(f"{target.what:62} {target.measured:6.2f} {sign} {target.limit:4.2f}  {verdict}")
    return "\n".join(lines)


def write(folder: Path, rows: Sequence[Row], targets: Sequence[Target]) -> list[Path]:
    """`bench.csv`, `bench.json` and `bench.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"bench.{end}" for end in ("csv", "json", "svg")]
    with paths[0].open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    judged = [asdict(target) | {"reached": target.reached} for target in targets]
    content = {"rows": list(map(asdict, rows)), "targets": judged}
    paths[1].write_text(json.dumps(content, indent=1) + "\n")
    paths[2].write_text(plot(rows))
    return paths


def plot(rows: Sequence[Row]) -> str:
    """An SVG: for each row a bar of the server's processor time over the bare loop's, with its target as a line."""
    limits = {(route, picture): limit for route, picture, limit in CPU_TARGETS}
    scale = _WIDE / max([2.0, *(row.ratio for row in rows)])
    height = _LINE * (len(rows) + 2)
    shapes = []
    for number, row in enumerate(rows):
        top = _LINE * (number + 1)
        name = f"{row.server} {row.precision} {row.picture} {row.route} c={row.concurrency or 'open'}"
        colour = "#3b6ea5" if row.server == "reppose" else "#999999"
        shapes.append(f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{escape(name)}</text>')
        shapes.append(
            f'<rect x="{_LEFT}" y="{top}" width="{row.ratio * scale:.1f}" height="{_BAR}" fill="{colour}"/>'
        )
        shapes.append(f'<text x="{_LEFT + row.ratio * scale + 4:.1f}" y="{top + 10}">{row.ratio:.2f}</text>')
        if (
            row.server == "reppose"
            and row.concurrency > 1
            and (limit := limits.get((row.route, row.picture)))
        ):
            at = _LEFT + limit * scale
            shapes.append(f'<path d="M{at:.1f} {top - 2}v{_BAR + 4}" stroke="#c0392b" stroke-width="2"/>')
    one = _LEFT + scale
    shapes.append(
        f'<path d="M{one:.1f} {_LINE - 4}V{height - _LINE}" stroke="#000000" stroke-dasharray="3 3"/>'
    )
    shapes.append(
        f'<text x="{_LEFT}" y="{height - 5}">processor time per image over the bare loop (red: target)</text>'
    )
    size = f'width="{_LEFT + _WIDE + 60}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *shapes, "</svg>", ""])
