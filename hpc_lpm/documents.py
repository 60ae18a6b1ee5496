"""Reads YAML and JSON in which every value means what was typed.

YAML is read by the core schema of its version 1.2, in which `1:30:00`, `2024-01-15`, `1_000` and
`yes` are texts, `010` is ten and `1e-3` is a number. A key that is given twice is an error, and so
are JSON's NaN and Infinity, which no standard knows, numbers that overflow, and halves of
characters, which cannot be written or shown.
"""

import json
import math
import re
from collections.abc import Mapping, ValuesView
from typing import Any

import yaml

_DEEPEST, _MOST_VALUES = 100, 100_000
"""Levels of lists and sections, and values in all: more than any file of settings has."""

MOST_YAML_CHARACTERS = 2**18
"""Longer than any file that people write, and read within seconds."""

_LARGEST_INTEGER = 2**63
"""Whole numbers are below it: what counts bytes or steps is, and calculates without overflow."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


_LONGEST_SHOWN = 40
_TOO_DEEP = "it nests too deeply"


class DocumentError(ValueError):
    """A text is no document of its format; the message is part of a sentence."""


def parse_yaml(text: str) -> object:
    """Parse one YAML document by the core schema.

    Raises:
        DocumentError: if the text is not YAML, is too long, gives a key twice, nests without end,
            or has a number or text that means nothing.
    """
    if len(text) > MOST_YAML_CHARACTERS:
        raise DocumentError(
            f"it has {len(text):,} characters, accepted are up to {MOST_YAML_CHARACTERS:,}"
        )
    try:
        document = yaml.load(text, _CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentError(f"{where}{error.problem}") from None
    except yaml.YAMLError as error:
        raise DocumentError(" ".join(str(error).split())) from None
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except ValueError as error:  # such as a tag of an unknown kind of value
        raise DocumentError(" ".join(str(error).split())) from None
    _check_size(document)
    _check_texts(text, document)
    return document


def parse_json(text: str) -> object:
    """Parse one JSON document.

    Raises:
        DocumentError: if the text is not JSON, gives a key twice, nests too deeply, or has NaN,
            Infinity, or a number or text that means nothing.
    """
    try:
        document = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_whole_number,
            parse_float=_finite_number,
        )
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise DocumentError(f"line {error.lineno}: {error.msg}") from None
    _check_depth(document)
    _check_texts(text, document)
    return document


def parse_scalar(text: str) -> object:
    """Return what a word stands for by YAML's core schema, such as 1 for `1`; else the word."""
    loader = _CoreLoader("")
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except yaml.YAMLError:
        return text


def plain_number(text: str) -> float:
    """Return the number that a text stands for, without the underscores that Python reads over.

    Raises:
        ValueError: if it is no number.
    """
    if "_" in text:
        raise ValueError(f"{shortened(text)} is no number")
    return float(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DocumentError(f"key {shortened(twice)} is given twice")
    return document


def _whole_number(text: str) -> int:
    """Return the number that a text stands for, which has at most as many digits as accepted."""
    if len(text) <= 20 and abs(number := int(text)) < _LARGEST_INTEGER:
        return number
    raise DocumentError(f"the number {shortened(text)} is too large, accepted is below 2^63")


def _finite_number(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise DocumentError(f"the number {shortened(text)} is too large to calculate with")


def shortened(value: object) -> str:
    """Return a value as Python spells it, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _parts_of(level: list[object]) -> list[object]:
    """Return all values that lie in these lists and sections."""
    held = [each.values() if isinstance(each, Mapping) else each for each in level]
    return [part for each in held if isinstance(each, list | ValuesView) for part in each]


def _check_depth(document: object) -> None:
    level = [document]
    for _ in range(_DEEPEST):
        if not (level := _parts_of(level)):
            return
    raise DocumentError(_TOO_DEEP)


def _check_texts(text: str, document: object) -> None:
    """Refuse a document with half of a character, which its text can have as an escape alone."""
    if "\\u" not in text.lower():
        return
    try:
        spelled = json.dumps(document, ensure_ascii=False, default=str)
    except (TypeError, ValueError):  # keys that are no texts are refused elsewhere
        return
    if found := _HALF_CHARACTER.search(spelled):
        raise DocumentError(f"{found[0]!a} is half of a character")


def _refuse_constant(name: str) -> float:
    raise DocumentError(f"{name} is no number of JSON")


def _check_size(document: object) -> None:
    """Refuse a document that holds itself, or so much by aliases that reading it never ends."""
    values, level = 0, [document]
    for _ in range(_DEEPEST):
        values += len(level)
        if values > _MOST_VALUES:
            break
        if not (level := _parts_of(level)):
            return
    raise DocumentError("it nests too deeply, holds itself or repeats aliases without end")


_TAG = "tag:yaml.org,2002:"


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's loader with the core schema of YAML 1.2 in place of the types of version 1.1.

    The merge key `<<` of version 1.1 is kept, as most readers of version 1.2 keep it.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (*(f"{_TAG}{name}" for name in ("null", "str", "seq", "map")), None)
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a section, and raise an error if a key is given twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise _error(key, f"key {shortened(key.value)} is given twice")
                seen.add((key.tag, key.value))
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put the keys of merged sections into a section, and raise an error if there is no end."""
        super().flatten_mapping(node)
        if len(node.value) > _MOST_VALUES:
            raise _error(node, "it repeats aliases without end")


def _error(node: yaml.Node, message: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def _integer(loader: _CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    try:
        number = int(text[2:] if base != 10 else text, base)
    except ValueError:
        raise _error(node, f"{shortened(text)} is no whole number") from None
    if abs(number) >= _LARGEST_INTEGER:
        raise _error(node, f"{shortened(text)} is too large, accepted is below 2^63")
    return number


def _float(loader: _CoreLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node))
    typed = text.lower()
    try:
        number = float(typed.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _error(node, f"{shortened(text)} is no number") from None
    if math.isinf(number) and "inf" not in typed:
        raise _error(node, f"{shortened(text)} is too large to calculate with")
    return number


def _boolean(loader: _CoreLoader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node))
    if text.lower() not in {"true", "false"}:
        raise _error(node, f"{shortened(text)} is neither true nor false")
    return text.lower() == "true"


_CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)
for _name, _pattern, _first in _CORE:
    _CoreLoader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"(?:{_pattern})$"), _first)
_CoreLoader.add_constructor(f"{_TAG}int", _integer)
_CoreLoader.add_constructor(f"{_TAG}float", _float)
_CoreLoader.add_constructor(f"{_TAG}bool", _boolean)
