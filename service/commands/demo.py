"""`reppose-serve demo`."""

from __future__ import annotations

import importlib.resources
import json
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Annotated

import typer

from service.commands.common import fail

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def demo(
    photo: Annotated[
        Path | None,
        typer.Argument(help="A photograph of a person; without it, one that comes with scikit-image."),
    ] = None,
    url: Annotated[str, typer.Option(help="Where the service listens.")] = "http://127.0.0.1:8000",
    out: Annotated[Path, typer.Option(help="Where to write the picture.")] = Path("demo.png"),
    wait: Annotated[float, typer.Option(help="Seconds to wait for the service to be ready.")] = 60.0,
    key_file: Annotated[
        Path | None, typer.Option(help="File that holds an API key or a token, if the service asks for one.")
    ] = None,
) -> None:
    """Send a photograph to the running service and write it with the skeleton drawn.

    Examples:

        reppose-serve demo
        reppose-serve demo photo.jpg --out pose.png --url http://127.0.0.1:9000
    """
    try:
        data = (photo or _bundled_photo()).read_bytes()
        key = None if key_file is None else key_file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read the photograph or the key: {error}")
    _wait_until_ready(url, wait)
    answer = json.loads(_call(f"{url}/v1/pose", data, key=key))
    picture = _call(f"{url}/v1/pose?render=true", data, key=key)
    try:
        out.write_bytes(picture)
    except OSError as error:
        fail(f"cannot write the picture: {error}")
    for pose in answer["poses"]:
        sure = [point for point in pose["keypoints"] if point["score"] >= 0.3]
        typer.echo(
            f"{answer['model']}@{answer['version']} ({answer['decoder']}): score {pose['score']:.2f}, "
            f"{len(sure)} of {len(pose['keypoints'])} keypoints at 0.3 or more, box {pose['box_source']}"
        )
    typer.echo(f"wrote {out}")


def _bundled_photo() -> Path:
    try:
        return Path(str(importlib.resources.files("skimage") / "data" / "astronaut.png"))
    except ModuleNotFoundError:
        fail("name a photograph, or install scikit-image, whose own would be used")


def _call(url: str, body: bytes | None = None, timeout_s: float = 60.0, key: str | None = None) -> bytes:
    """The body of a successful answer; ends the program with the service's words otherwise."""
    headers = {"Content-Type": "application/octet-stream"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    request = urllib.request.Request(url, body, headers)
    try:
        with _DIRECT.open(request, timeout=timeout_s) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        fail(f"{url} answered {error.code}: {error.read().decode(errors='replace')}")
    except (OSError, HTTPException) as error:
        fail(f"{url} does not answer: {error}")


def _wait_until_ready(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with _DIRECT.open(f"{url}/healthz/ready", timeout=5):
                return
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() >= deadline:
                fail(f"no service is ready at {url} ({error}); start one with `reppose-serve`")
        time.sleep(0.2)
