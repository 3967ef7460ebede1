"""`python -m tests.service.endurance FOLDER COUNT`: ask the real core many questions, and say how memory went.

A process of its own, so that nothing else moves its memory. The model and the frames are as small as can be: what could
leak is the way of a request, not the size of a picture.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from service.core import Core, build_core
from service.errors import ServiceError
from service.metrics import resident_bytes
from service.settings import BatchSettings, ModelSettings, Settings
from service.types import Frame, Options
from tests import tiny_model

AT_ONCE = 64
BOX = (2.0, 2.0, 12.0, 12.0)


def small_frames() -> list[Frame]:
    """16 x 16 pixels, as JPEG, PNG and BMP."""
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return [Frame(tiny_model.encode(picture, form)) for form in ("JPEG", "PNG", "BMP")]


def kinds() -> list[tuple[Options, bool]]:
    """What is asked in turn, and whether the frame is broken: mostly poses, and now and then everything else."""
    plain = (Options(boxes=(BOX,)), False)
    return [
        *[plain] * 44,
        (Options(), False),
        (Options(boxes=(BOX, BOX)), False),
        (Options(boxes=(BOX,), render=True), False),
        (Options(boxes=(BOX,), compare=True), False),
        (Options(boxes=(BOX,), heatmaps=True), False),
        (Options(boxes=(BOX,)), True),
    ]


async def ask(core: Core, asked: list[int], outcomes: Counter[str], until: int) -> None:
    """One client: asks one thing after the other; every hundredth time it leaves before the answer."""
    frames, wanted = small_frames(), kinds()
    while asked[0] < until:
        asked[0] += 1
        number = asked[0]
        options, broken = wanted[number % len(wanted)]
        frame = frames[number % len(frames)]
        if broken:
            frame = Frame(frame.data[: len(frame.data) // 2])
        answer = asyncio.ensure_future(core.predictor.predict(frame, options))
        if number % 100 == 1:
            await asyncio.sleep(0)
            answer.cancel()
        try:
            await answer
            outcomes["ok"] += 1
        except asyncio.CancelledError:
            outcomes["left"] += 1
        except ServiceError as error:
            outcomes[type(error).__name__] += 1


async def main(root: Path, count: int) -> None:
    """Memory is read after each fifth of all requests."""
    tiny_model.HEIGHT, tiny_model.WIDTH = 16, 16
    tiny_model.write(root)
    models = ModelSettings(roots=(root,), default="tiny")
    settings = Settings(models=models, batch=BatchSettings(pin="off", workers=2))
    core = build_core(settings)
    await core.load(settings)
    asked, outcomes, held = [0], Counter(), []
    for part in range(1, 6):
        await asyncio.gather(*(ask(core, asked, outcomes, count * part // 5) for _ in range(AT_ONCE)))
        held.append(resident_bytes())
    stopped = await core.stop(settings.drain.timeout_s)
    print(json.dumps({"held": held, "outcomes": outcomes, "stopped": stopped}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
