"""Reads YAML and JSON in which every value means what was typed.

YAML is read by the core schema of its version 1.2, in which `1:30:00`, `2024-01-15`, `1_000` and
`yes` are texts, `010` is ten and `1e-3` is a number. A key that is given twice is an error, and so
are JSON's NaN and Infinity, which no standard knows.
"""

import json
import re
from collections.abc import Mapping, ValuesView
from typing import Any

import yaml

_DEEPEST, _MOST_VALUES = 100, 100_000
"""Levels of lists and sections, and values in all: more than any file of settings has."""


class DocumentError(ValueError):
    """A text is no document of its format; the message is part of a sentence."""


def parse_yaml(text: str) -> object:
    """Parse one YAML document by the core schema.

    Raises:
        DocumentError: if the text is not YAML, gives a key twice, or nests without end.
    """
    try:
        document = yaml.load(text, _CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentError(f"{where}{error.problem}") from None
    except yaml.YAMLError as error:
        raise DocumentError(" ".join(str(error).split())) from None
    except RecursionError:
        raise DocumentError("it nests too deeply") from None
    _check_size(document)
    return document


def parse_json(text: str) -> object:
    """Parse one JSON document.

    Raises:
        DocumentError: if the text is not JSON, gives a key twice, or has NaN or Infinity.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise DocumentError("it nests too deeply") from None
    except json.JSONDecodeError as error:
        raise DocumentError(f"line {error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise DocumentError(str(error)) from None


def parse_scalar(text: str) -> object:
    """Return what a word stands for by YAML's core schema, such as 1 for `1`; else the word."""
    loader = _CoreLoader("")
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except yaml.YAMLError:
        return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise DocumentError(f"key {key!r} is given twice")
        document[key] = value
    return document


def _refuse_constant(name: str) -> float:
    raise DocumentError(f"{name} is no number of JSON")


def _check_size(document: object) -> None:
    """Refuse a document that holds itself, or so much by aliases that reading it never ends."""
    values, level = 0, [document]
    for _ in range(_DEEPEST):
        values += len(level)
        if values > _MOST_VALUES:
            break
        held = [each.values() if isinstance(each, Mapping) else each for each in level]
        level = [part for each in held if isinstance(each, list | ValuesView) for part in each]
        if not level:
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
                    raise _error(key, f"key {key.value!r} is given twice")
                seen.add((key.tag, key.value))
        return node


def _error(node: yaml.Node, message: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def _integer(loader: _CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    try:
        return int(text[2:] if base != 10 else text, base)
    except ValueError:
        raise _error(node, f"{text[:40]!r} is no whole number") from None


def _float(loader: _CoreLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node))
    try:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _error(node, f"{text[:40]!r} is no number") from None


def _boolean(loader: _CoreLoader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node))
    if text.lower() not in {"true", "false"}:
        raise _error(node, f"{text[:40]!r} is neither true nor false")
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
