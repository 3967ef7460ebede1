"""The families of what is left to chance in a picture, by the names under which `synth --without` leaves them out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from trainer.errors import ConfigError

SENSOR: dict[str, frozenset[str]] = {
    "lens": frozenset({"blur_px", "aberration_px", "vignette", "sharpened"}),
    "motion-blur": frozenset({"motion_px"}),
    "exposure": frozenset({"exposure", "balance", "gamma", "contrast"}),
    "noise": frozenset({"shot", "read"}),
    "resolution": frozenset({"scale"}),
    "grey": frozenset({"grey"}),
    "jpeg": frozenset({"jpeg_quality"}),
}
"""Families of a camera's faults, and the fields of `sensor.Sensor` that then keep their defaults."""

_ALIKE = {
    "shapes": "everybody has the mean grown-up body",
    "framing": "everybody is whole, in the middle, and of one size",
    "skin": "one tone of skin",
    "patterns": "nothing has stripes, checks, prints or mottles",
    "colours": "clothes and things are grey",
    "things": "nothing is held, and nothing stands before anybody",
    "light": "one lamp from the upper right, one sky",
    "shadows": "nothing casts any",
    "backgrounds": "one grey wall",
    "lens": "no blur, no sharpening, no colour fringes, no dark corners",
    "motion-blur": "the camera stands still",
    "exposure": "one exposure, one white, one curve",
    "noise": "none",
    "resolution": "no coarse pixels",
    "grey": "all pictures have colour",
    "jpeg": "all have quality 95",
}
FAMILIES: dict[str, dict[str, str]] = {
    "body": _ALIKE
    | {
        "poses": "everybody stands, arms hanging",
        "views": "cameras look from one height through one lens, and are held level",
        "tilts": "nobody leans, lies or is upside down",
        "hair": "no hair, beards or hats",
        "garments": "everybody wears a T-shirt, trousers and shoes of one cut",
        "others": "nobody stands beside",
    },
    "hand": _ALIKE
    | {
        "poses": "wrists and elbows are straight, and fingers too where no digit is shown",
        "views": "palms face the camera, fingers up",
        "garments": "no sleeves, bands, gloves or painted nails",
        "others": "no other hand, nobody behind",
    },
}
"""Kind to name to what a picture is like without that family; other kinds have none."""


def check(names: Sequence[str], kind: str) -> tuple[str, ...]:
    """Names of families of a kind, sorted, each once; ConfigError names the nearest that there is."""
    known = FAMILIES.get(kind, {})
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(f"kind {kind} has no family {name!r} to leave out; {hint}")
    return tuple(sorted(set(names)))


def described() -> str:
    """All names with what they leave, for the help of a command."""
    lines = []
    for name in sorted({name for known in FAMILIES.values() for name in known}):
        texts = {known[name]: kind for kind, known in FAMILIES.items() if name in known}
        only = len(texts) == 1 and sum(name in known for known in FAMILIES.values()) == 1
        whose = {text: f" ({kind})" if only or len(texts) > 1 else "" for text, kind in texts.items()}
        lines.append(f"{name}: " + "; ".join(text + whose[text] for text in texts))
    return ". ".join(lines)
