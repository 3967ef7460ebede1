"""Ways to write keypoints as arrays and back: encoders to call by name, and `DECODERS` to choose from at run
time.

A decoder comes from this package or from any installed distribution that lists it under the entry-point group
`reppose.decoders`:

    [project.entry-points."reppose.decoders"]
    mine = "my_package.my_module:decode_with"
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from model_zoo.codecs import argmax_shift, dark, dsnt, udp
from model_zoo.codecs._maps import Floats
from model_zoo.errors import UnknownDecoder
from model_zoo.manifest import Codec

Decoder = Callable[[Floats, Codec], tuple[Floats, Floats]]
"""(B, K, H, W) heatmaps, never written to, and the codec -> (B, K, 2) points in cells, (B, K) scores."""

ENTRY_POINT_GROUP = "reppose.decoders"

DECODERS: Mapping[str, Decoder] = MappingProxyType(
    {
        "argmax_shift": argmax_shift.decode_with,
        "dark": dark.decode_with,
        "dsnt": dsnt.decode_with,
        "udp": udp.decode_with,
    }
)
"""The decoders of this package by name."""

_log = logging.getLogger(__name__)


class InstalledDecoders(Mapping[str, Decoder]):
    """All decoders by name. A plug-in is imported when its name is looked up, so a broken one harms no other.

    Looking up a name that nobody offers is a KeyError; one whose plug-in cannot be used, an UnknownDecoder.
    """

    def __init__(self, plug_ins: Mapping[str, EntryPoint]) -> None:
        self._plug_ins = plug_ins
        self._loaded: dict[str, Decoder] = dict(DECODERS)

    def __getitem__(self, name: str) -> Decoder:
        if name not in self._loaded:
            self._loaded[name] = _load(self._plug_ins[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in DECODERS or name in self._plug_ins

    def __iter__(self) -> Iterator[str]:
        yield from DECODERS
        yield from self._plug_ins

    def __len__(self) -> int:
        return len(DECODERS) + len(self._plug_ins)


@cache
def decoders() -> InstalledDecoders:
    """`DECODERS` and what the installed plug-ins offer; looked for once, see `decoders.cache_clear`.

    A plug-in that takes a name of `DECODERS`, or one that another plug-in took first, is left out and logged.
    """
    plug_ins: dict[str, EntryPoint] = {}
    for offered in entry_points(group=ENTRY_POINT_GROUP):
        if offered.value.startswith(f"{__name__}."):
            continue  # this package's own, listed so that others can see the group in use
        if offered.name in DECODERS or offered.name in plug_ins:
            _log.warning("decoder %r of %s is left out: the name is taken", offered.name, offered.value)
            continue
        plug_ins[offered.name] = offered
    return InstalledDecoders(plug_ins)


def decoder(name: str) -> Decoder:
    """The decoder of this name.

    Raises:
        UnknownDecoder: nobody offers one of this name, with the known names; or its plug-in cannot be used.
    """
    known = decoders()
    if name not in known:
        raise UnknownDecoder(f"unknown decoder {name!r}; known: {', '.join(sorted(known))}")
    return known[name]


def _load(plug_in: EntryPoint) -> Decoder:
    """Import a plug-in; whatever its code raises becomes an UnknownDecoder with that as its cause."""
    try:
        loaded = plug_in.load()
    except Exception as error:
        raise UnknownDecoder(
            f"decoder {plug_in.name!r} cannot be loaded from {plug_in.value}: {error!r}"
        ) from error
    if not callable(loaded):
        raise UnknownDecoder(f"decoder {plug_in.name!r}: {plug_in.value} is not a function")
    return loaded
