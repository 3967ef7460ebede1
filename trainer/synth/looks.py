"""What people look like: skin, hair, hats, and clothes from underwear up; nobody is without.

Every number is drawn from the generator that is handed in. Colours are drawn as people see them (sRGB) and handed on as
light. Heights are those of the template: soles -0.82, knees -0.40, hips 0, shoulders 0.48, crown 0.85 metres.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np

from trainer.synth.garments import HAIR_LENGTHS_M, SKIRT_LENGTHS_M
from trainer.synth.render import Layer, Lights, Material
from trainer.synth.shaders import COVERS, KINDS, PATTERNS

Rng = np.random.Generator
Colour = tuple[float, float, float]

_SKIN = (
    (250, 224, 204),
    (235, 190, 160),
    (210, 155, 120),
    (175, 115, 80),
    (130, 80, 52),
    (85, 52, 36),
    (55, 34, 26),
)
"""sRGB from light to dark."""
_HAIR = (
    (20, 16, 14), (35, 24, 18), (60, 40, 26), (95, 62, 36), (140, 100, 55), (195, 160, 100), (150, 70, 35),
    (150, 148, 145), (220, 218, 214),
)  # fmt: skip


def light_of(srgb: Any) -> Colour:
    """Linear light of a colour of 0 to 255."""
    red, green, blue = ((np.asarray(srgb, np.float64) / 255).clip(0, 1) ** 2).tolist()
    return red, green, blue


def any_colour(rng: Rng) -> Colour:
    """What clothes are dyed in: black, white, grey and blue more often than the rest."""
    how = rng.random()
    if how < 0.16:
        level = rng.uniform(12, 45)
        return light_of((level, level, level * rng.uniform(0.9, 1.2)))
    if how < 0.32:
        level = rng.uniform(200, 250)
        return light_of((level, level, level * rng.uniform(0.9, 1.0)))
    if how < 0.42:
        return light_of([rng.uniform(60, 190)] * 3)
    if how < 0.54:
        return light_of(
            np.array(
                colorsys.hsv_to_rgb(rng.uniform(0.56, 0.68), rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.8))
            )
            * 255
        )
    return light_of(
        np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.15, 1), rng.uniform(0.2, 1))) * 255
    )


def _tone(rng: Rng, table: tuple[tuple[int, int, int], ...]) -> Colour:
    at = rng.uniform(0, len(table) - 1)
    low = int(at)
    both = np.array(table[low : low + 2], np.float64)
    mixed = both[0] + (both[-1] - both[0]) * (at - low)
    return light_of(mixed * rng.normal(1, 0.05, 3))


def _seed(rng: Rng) -> Colour:
    return tuple(rng.random(3).tolist())


def _cloth(rng: Rng, cover: str, colour: Colour, **values: Any) -> Material:
    """A garment; `values` are of `shaders.FIELDS`."""
    pattern = "plain"
    if rng.random() < 0.4:
        pattern = str(rng.choice([name for name in PATTERNS if name != "plain"]))
    fields = {
        "kind": KINDS["cloth"],
        "cover": COVERS[cover],
        "colour": colour,
        "colour2": any_colour(rng),
        "colour3": any_colour(rng),
        "pattern": PATTERNS[pattern],
        "scale": float(np.exp(rng.uniform(np.log(0.015), np.log(0.18)))),
        "turn": float(rng.choice([0.0, 0.7, 1.5, rng.uniform(0, 3)])),
        "wrinkle": float(0.05 + 0.8 * rng.beta(1, 1.8)),
        "mottle": float(rng.uniform(0.0, 0.35)),
        "gloss": float(rng.uniform(2, 24)),
        "shine": float(rng.beta(1, 8) * 0.4),
        "seed": _seed(rng),
    }
    return Material(fields | values)


def wardrobe(rng: Rng, *, female: float) -> list[Layer]:
    """All layers of one person, from the skin outwards.

    Args:
        rng: of this person.
        female: 0 male, 1 female; of `body.Shape`.
    """
    hair_colour = _tone(rng, _HAIR)
    layers = [Layer("all", _skin(rng, hair_colour, female), closed=True)]
    sporty = rng.random() < 0.5
    layers += _bottom(rng, sporty)
    layers += _tops(rng, sporty)
    if rng.random() < 0.85:
        layers += _feet(rng)
    if rng.random() < 0.08:
        layers.append(
            Layer(
                "hand",
                _cloth(rng, "hand", any_colour(rng), low=float(rng.uniform(1.75, 1.98)), thickness=0.006),
            )
        )
    return layers + _head(rng, hair_colour, female)


def hanging(rng: Rng, layers: list[Layer], *, female: float) -> list[tuple[str, float, Material]]:
    """What hangs about somebody: (`skirt` or `long_hair`, template height where it ends, material) of each.

    Args:
        rng: of this person.
        layers: what it wears, of `wardrobe`; long hair has the colour of the short.
        female: see `wardrobe`.
    """
    found = []
    if rng.random() < 0.03 + 0.3 * female:
        cloth = _cloth(rng, "all", any_colour(rng))
        found.append(("skirt", float(rng.choice(SKIRT_LENGTHS_M, p=(0.3, 0.35, 0.25, 0.1))), cloth))
    hair = next((each for each in layers if each.material.values["cover"] == COVERS["scalp"]), None)
    if hair and hair.material.values["kind"] == KINDS["hair"] and rng.random() < 0.04 + 0.45 * female:
        strands = {name: hair.material.values[name] for name in ("kind", "colour", "seed", "shine", "gloss")}
        found.append(("long_hair", float(rng.choice(HAIR_LENGTHS_M)), Material(strands)))
    return found


def _skin(rng: Rng, hair: Colour, female: float) -> Material:
    under = any_colour(rng)
    return Material(
        {
            "kind": KINDS["skin"],
            "cover": COVERS["all"],
            "colour": _tone(rng, _SKIN),
            "under_top": under,
            "under_low": float(rng.uniform(-0.02, 0.08)),
            "under_bottom": any_colour(rng) if rng.random() < 0.5 else under,
            "under_leg": float(rng.uniform(-0.2, -0.1)),
            "shade": float(rng.uniform(-0.1, 0.25)),
            "lips": light_of((170 + rng.normal(0, 20), 80 + rng.normal(0, 20), 80 + rng.normal(0, 20))),
            "brow": float(rng.uniform(0.4, 1)),
            "iris": _tone(rng, ((40, 25, 15), (90, 60, 30), (70, 110, 90), (80, 120, 170))),
            "hair": hair,
            "stubble": float(rng.uniform(0, 0.5)) if female < 0.5 and rng.random() < 0.4 else 0.0,
            "shine": float(rng.uniform(0.04, 0.25)),
            "gloss": float(rng.uniform(10, 40)),
            "seed": _seed(rng),
        }
    )


def _bottom(rng: Rng, sporty: bool) -> list[Layer]:
    kinds = {
        "shorts": {"low": rng.uniform(-0.36, -0.1), "loose": rng.uniform(0.0, 0.05), "thickness": 0.006},
        "trousers": {"low": rng.uniform(-0.8, -0.68), "loose": rng.uniform(0.0, 0.035), "thickness": 0.007},
        "leggings": {"low": rng.uniform(-0.76, -0.4), "loose": 0.0, "thickness": 0.003},
        "cropped": {"low": rng.uniform(-0.6, -0.4), "loose": rng.uniform(0.0, 0.04), "thickness": 0.006},
    }
    share = (0.5, 0.22, 0.2, 0.08) if sporty else (0.2, 0.55, 0.13, 0.12)
    values = kinds[str(rng.choice(list(kinds), p=share))]
    high = float(rng.uniform(0.06, 0.16))
    return [Layer("bottom", _cloth(rng, "bottom", any_colour(rng), high=high, **values), shadow=False)]


def _tops(rng: Rng, sporty: bool) -> list[Layer]:
    sleeves = {
        "none": -0.2,
        "short": rng.uniform(0.25, 0.85),
        "half": rng.uniform(0.85, 1.4),
        "long": rng.uniform(1.75, 2.0),
    }
    share = (0.25, 0.45, 0.08, 0.22) if sporty else (0.1, 0.35, 0.12, 0.43)
    sleeve = sleeves[str(rng.choice(list(sleeves), p=share))]
    low = rng.uniform(-0.12, 0.1)
    if rng.random() < 0.08:  # a dress or a long shirt
        low = rng.uniform(-0.34, -0.15)
    values: dict[str, Any] = {
        "low": float(low), "high": float(rng.uniform(0.5, 0.62)), "sleeve": float(sleeve),
        "neck": float(rng.uniform(0.05, 0.13)), "thickness": float(rng.uniform(0.004, 0.009)),
        "loose": float(rng.uniform(0.0, 0.05)),
    }  # fmt: skip
    layers = [Layer("top", _cloth(rng, "top", any_colour(rng), **values), shadow=False)]
    if rng.random() < (0.12 if sporty else 0.3):  # a jacket, open or closed
        over = values | {
            "sleeve": float(rng.choice([-0.2, 1.9], p=[0.2, 0.8])), "thickness": 0.016,
            "loose": float(rng.uniform(0.01, 0.06)), "open": float(rng.choice([0.0, rng.uniform(0.02, 0.09)])),
            "neck": float(rng.uniform(0.05, 0.09)), "low": float(rng.uniform(-0.2, 0.05)),
        }  # fmt: skip
        layers.append(Layer("top", _cloth(rng, "top", any_colour(rng), **over), shadow=False))
    return layers


def _feet(rng: Rng) -> list[Layer]:
    layers = []
    if rng.random() < 0.6:
        sock = _cloth(rng, "foot", any_colour(rng), high=float(rng.uniform(-0.72, -0.42)), thickness=0.004)
        layers.append(Layer("foot", sock, shadow=False))
    shoe = _cloth(
        rng, "foot", any_colour(rng), high=float(rng.uniform(-0.755, -0.68)),
        thickness=float(rng.uniform(0.008, 0.016)), wrinkle=0.15, gloss=float(rng.uniform(8, 50)),
        shine=float(rng.uniform(0, 0.25)),
    )  # fmt: skip
    return [*layers, Layer("foot", shoe, shadow=False)]


def _head(rng: Rng, colour: Colour, female: float) -> list[Layer]:
    layers = []
    if rng.random() > 0.08 * (1 - female):
        long = rng.random() < 0.25 + 0.5 * female
        hair = {
            "kind": KINDS["hair"], "cover": COVERS["scalp"], "colour": colour, "seed": _seed(rng),
            "thickness": float(rng.uniform(0.004, 0.014)), "loose": float(rng.uniform(0.0, 0.045)),
            "high": float(rng.uniform(0.03, 0.075)),
            "low": float(rng.uniform(0.16, 0.26) if long else rng.uniform(0.07, 0.15)),
            "shine": float(rng.uniform(0.05, 0.35)), "gloss": float(rng.uniform(10, 50)),
        }  # fmt: skip
        layers.append(Layer("head", Material(hair)))
    if female < 0.5 and rng.random() < 0.18:
        beard = {
            "kind": KINDS["hair"], "cover": COVERS["beard"], "colour": colour, "seed": _seed(rng),
            "thickness": 0.006, "loose": float(rng.uniform(0, 0.02)), "shine": 0.1, "gloss": 20.0,
        }  # fmt: skip
        layers.append(Layer("head", Material(beard), shadow=False))
    if rng.random() < 0.22:  # a cap, a woollen hat or a helmet
        hard = rng.random() < 0.35
        hat = _cloth(
            rng, "scalp", any_colour(rng), high=float(rng.uniform(0.035, 0.07)), low=float(rng.uniform(0.04, 0.12)),
            thickness=float(rng.uniform(0.025, 0.045) if hard else rng.uniform(0.014, 0.025)), loose=0.0,
            wrinkle=0.05 if hard else 0.5, shine=0.4 if hard else 0.03, gloss=60.0 if hard else 5.0,
        )  # fmt: skip
        layers.append(Layer("head", hat))
    return layers


def lights(rng: Rng) -> Lights:
    """Sun, clouds, rooms, lamps and evenings."""

    def direction(lowest: float) -> tuple[float, float, float]:
        turn, up = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(lowest, 85))
        return float(np.cos(turn) * np.cos(up)), float(np.sin(turn) * np.cos(up)), float(np.sin(up))

    def tinted(level: float, spread: float) -> Colour:
        warm = rng.normal(0, spread)
        return level * float(np.exp(warm)), level, level * float(np.exp(-warm))

    hard = rng.random()
    return Lights(
        key_from=direction(8),
        key=tinted(float(0.2 + 2.2 * hard), 0.12),
        fill_from=direction(0),
        fill=tinted(float(rng.uniform(0, 0.7)), 0.15),
        sky=tinted(float(rng.uniform(0.25, 0.9) * (1.2 - 0.6 * hard)), 0.12),
        ground=tinted(float(rng.uniform(0.1, 0.6)), 0.15),
        exposure=float(np.exp(rng.normal(0, 0.25))),
        shadows=bool(rng.random() < 0.75),
    )
