"""What sets can be made, by name."""

from __future__ import annotations

from model_zoo.skeletons import BODY19, HAND21
from trainer.errors import ConfigError
from trainer.synth import hand, scene, single, video
from trainer.synth.write import Kind

KINDS = {
    "body": Kind("body", "person", BODY19.keypoints, BODY19, single.maker),
    "hand": Kind("hand", "hand", HAND21.keypoints, HAND21, hand.maker, size=160),
    "scene": Kind("scene", "person", BODY19.keypoints, BODY19, scene.maker, size=512),
    "video": Kind("video", "person", BODY19.keypoints, BODY19, video.maker, chunk=1, size=320),
}
"""Name to what is made."""


def of(name: str) -> Kind:
    """The kind of this name; ConfigError names the known ones."""
    if name not in KINDS:
        raise ConfigError(f"unknown kind {name!r}; known: {', '.join(KINDS)}")
    return KINDS[name]
