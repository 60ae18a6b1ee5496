"""Where users want cuts to be: their positions and layer names, and patterns of where cuts may be.

Position c cuts in front of layer c, behind c layers. A name cuts behind the layer of that name, or
behind the module of that path where one layer ends it: `encoder.block3` cuts behind the last of the
layers `encoder.block3.conv1`, `encoder.block3.norm1` and so on.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Protocol

from hpc_lpm.errors import InputError, closest

CUTS = "--cuts"
CUT_ONLY_AT = "--cut-only-at"
TYPE_PREFIX = "type:"
_SEVERAL_PARTS = "**"
_MOST_DIGITS = 18


class NamedEnd(Protocol):
    """A module that ends with a layer: its path and the name of its class."""

    @property
    def path(self) -> str:
        """The module's path, such as `transformer.h.3`."""

    @property
    def type(self) -> str:
        """The name of the module's class."""


class NamedLayer(Protocol):
    """A layer of a model or of its profile, as far as cuts are concerned."""

    @property
    def name(self) -> str:
        """The layer's name."""

    @property
    def ends(self) -> Sequence[NamedEnd]:
        """The modules that end with the layer."""

    @property
    def cut_after(self) -> bool:
        """Whether a stage may end with the layer."""


def cut_positions(
    layers: Sequence[NamedLayer], cuts: Sequence[int | str], model: str
) -> tuple[int, ...]:
    """Return the K+1 cut positions of the stages that a user asked for.

    Args:
        layers: those of the model, in order.
        cuts: K-1 positions or names, ascending; a number is always a position.
        model: the model's name, for messages.

    Raises:
        InputError: if a cut is not inside the model, a name is unknown or stands for several
            places, or the cuts do not ascend.
    """
    inner = [_position(layers, cut, model) for cut in cuts]
    if any(start >= stop for start, stop in pairwise(inner)):
        raise InputError(
            f"{CUTS} would cut {model} at {', '.join(map(str, inner))}, accepted are positions "
            "that ascend: put them in order, each once."
        )
    return (0, *inner, len(layers))


def _position(layers: Sequence[NamedLayer], cut: int | str, model: str) -> int:
    last = len(layers)
    if isinstance(cut, int) or cut.isdecimal():
        # What has more digits than any position is out of range without the rest of them, too.
        position = cut if isinstance(cut, int) else int(cut[:_MOST_DIGITS])
        if not 1 <= position < last:
            raise InputError(
                f"{CUTS} has the position {position}, accepted for the {last} layers of {model} "
                f"are 1 to {last - 1}, each the number of layers in front of the cut."
            )
        return position
    behind = _behind(layers, lambda name: name == cut)
    if not behind:
        raise InputError(
            f"{CUTS} names {cut!r}, but no layer of {model} has this name and no module of this "
            f"path ends with one{_closest_name(layers, cut)}: accepted are positions from 1 to "
            f"{last - 1} and names of layers or modules to cut behind, which `hpc-lpm profile` "
            "shows."
        )
    if len(behind) > 1:
        raise InputError(
            f"{CUTS} names {cut!r}, which is the name of {len(behind)} layers of {model}: give "
            f"one of the positions {', '.join(map(str, behind))}."
        )
    if behind[0] == last:
        raise InputError(
            f"{CUTS} would cut behind {cut!r}, with which {model} ends: accepted are cuts that "
            "leave a layer behind them."
        )
    return behind[0]


def positions_matching(layers: Sequence[NamedLayer], pattern: str, model: str) -> list[int]:
    """Return the positions behind the layers that a pattern names, L among them if it does.

    A pattern names the layers and modules whose name or path it matches: `*` stands for any part of
    a name up to a dot, `**` for any number of dotted parts. `type:PATTERN` names modules of a class
    of such a name.

    Raises:
        InputError: if there are none.
    """
    if pattern.startswith(TYPE_PREFIX):
        wanted = _matcher(pattern.removeprefix(TYPE_PREFIX))
        types = [[end.type for end in layer.ends] for layer in layers]
        found = [place for place, ended in enumerate(types, 1) if any(map(wanted, ended))]
        if not found:
            offered = list(dict.fromkeys(name for ended in types for name in ended))
            hint = closest(pattern.removeprefix(TYPE_PREFIX), offered)
            raise InputError(
                f"{CUT_ONLY_AT} has the pattern {pattern!r}, but no module of such a class ends "
                f"with a layer of {model}{hint}: accepted are "
                f"{', '.join(offered) or 'no classes, since its profile names none: make it anew'}."
            )
        return found
    found = _behind(layers, _matcher(pattern))
    if not found:
        raise InputError(
            f"{CUT_ONLY_AT} has the pattern {pattern!r}, which matches no layer of {model} and no "
            f"module that ends with one{_closest_name(layers, pattern)}: accepted are names and "
            "paths, in which * stands for anything up to a dot and ** for any parts, and "
            "type:CLASS."
        )
    return found


def _behind(layers: Sequence[NamedLayer], wanted: Callable[[str], bool]) -> list[int]:
    return [place for place, names in enumerate(_names(layers), 1) if any(map(wanted, names))]


def _closest_name(layers: Sequence[NamedLayer], text: str) -> str:
    return closest(text, [name for ended in _names(layers) for name in ended])


def _names(layers: Sequence[NamedLayer]) -> list[list[str]]:
    """Return for each layer its name, and the paths of the modules that end with it.

    These are its `ends`, and what its name begins with up to a dot where the names of all layers
    from some layer to this one begin so, and no other name does.
    """
    beginnings = [_beginnings(layer.name) for layer in layers]
    stretches: dict[str, list[int]] = {}
    for place, paths in enumerate(beginnings):
        for path in paths:
            stretches.setdefault(path, []).append(place)
    ended: list[list[str]] = [
        [layer.name, *(end.path for end in layer.ends if end.path != layer.name)]
        for layer in layers
    ]
    for path, places in stretches.items():
        first, last = places[0], places[-1]
        if last - first + 1 == len(places) and path not in ended[last]:
            ended[last].append(path)
    return ended


def _beginnings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a dotted name matches, part by part."""
    parts = pattern.split(".")
    # A name may hold what is special in patterns, such as brackets.
    return lambda name: name == pattern or _parts_match(name.split("."), parts)


def _parts_match(name: list[str], pattern: list[str]) -> bool:
    if not name or not pattern:
        return not name and not pattern
    if pattern[0] == _SEVERAL_PARTS:
        return any(_parts_match(name[skipped:], pattern[1:]) for skipped in range(1, len(name) + 1))
    return fnmatchcase(name[0], pattern[0]) and _parts_match(name[1:], pattern[1:])
