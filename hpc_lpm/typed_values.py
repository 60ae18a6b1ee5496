"""Settings whose values mean what was typed, and the words about those that are not accepted."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails

_SCALARS = {"int", "float", "bool", "str"}
_LONGEST_FOUND = 120

QUANTITY = "quantity"
"""The type of complaint about a duration or size, whose message says how to write it."""


def _make_scalars_strict(schema: object) -> None:
    if isinstance(schema, list | tuple):
        for part in schema:
            _make_scalars_strict(part)
    if not isinstance(schema, dict):
        return
    if schema.get("type") in _SCALARS:
        schema.setdefault("strict", True)
        return
    for key, part in schema.items():
        if key not in {"serialization", "metadata", "default"}:
            _make_scalars_strict(part)


class TypedModel(BaseModel):
    """Base class of settings: a value of another type is refused, never converted.

    `true` is no number, `"3"` and `2.0` are no whole numbers, and a number is no text. Where a
    number is accepted so is a whole number, but neither NaN nor infinity. Lists become tuples, and
    texts paths.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema with all scalars strict; pydantic's own option refuses lists too."""
        schema = handler(source)
        _make_scalars_strict(schema)
        return schema


def describe_validation_error(error: ValidationError) -> str:
    """Return pydantic's first complaint as `field: what is accepted (and N more)`."""
    complaints = error.errors()
    field = _field(complaints[0])
    same = [each for each in complaints if _field(each) == field]
    more = len({_field(each) for each in complaints}) - 1
    nearest = [each for each in same if each["type"] == "finite_number"] or same
    accepted = list(dict.fromkeys(filter(None, map(_accepted, nearest))))
    first = complaints[0]["msg"]
    said = f"accepted is {' or '.join(accepted)}" if accepted else first[:1].lower() + first[1:]
    return f"{field or 'the whole file'}: {said}{f' (and {more} more)' if more else ''}"


def refusal(error: ValidationError, otherwise: str) -> str:
    """Say what is wrong with the first value that is refused, and what to write instead.

    Args:
        error: what pydantic found.
        otherwise: what to do where no spelling can be suggested.
    """
    first = error.errors()[0]
    sentence = describe_validation_error(error)
    if first["type"] == QUANTITY:  # says both by itself
        return sentence
    found = "" if first["type"] == "missing" else f", found {_shown(first['input'])}"
    return f"{sentence}{found}: {_spelling(error) or otherwise}"


def _spelling(error: ValidationError) -> str | None:
    """Return what to write in place of the first value that is refused, None if that is unknown."""
    complaints = error.errors()
    found = complaints[0]["input"]
    same = [each for each in complaints if _field(each) == _field(complaints[0])]
    wanted = {each["type"].partition("_")[0] for each in same}
    if "string" in wanted and isinstance(found, bool | int | float):
        return 'put it in quotes to make it text, as in "007"'
    if isinstance(found, str):
        return _number_or_truth(found.strip(), wanted)
    if wanted == {"int"} and isinstance(found, float) and found.is_integer():
        return f"write {found:.0f}"
    return None


def _shown(value: object) -> str:
    """Return a value as a file of settings spells it, shortened if it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _LONGEST_FOUND else f"{text[:_LONGEST_FOUND]}..."


def _number_or_truth(text: str, wanted: set[str]) -> str | None:
    if "bool" in wanted and text.lower() in {"yes", "on", "y", "true"}:
        return "write true, without quotes"
    if "bool" in wanted and text.lower() in {"no", "off", "n", "false"}:
        return "write false, without quotes"
    digits = re.sub(r"(?<=\d)[_,' ](?=\d{3})", "", text)
    if wanted & {"int", "float"} and re.fullmatch(r"[-+]?\d+", digits):
        return f"write {int(digits)}, without quotes"
    if "float" in wanted and re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", text):
        return f"write {text}, without quotes"
    return None


def _field(complaint: ErrorDetails) -> str:
    """Return the dotted name of a field, without the members of a union that were tried."""
    parts: Sequence[int | str] = complaint["loc"]
    kept = [
        str(part)
        for part in parts
        if isinstance(part, int) or not (part in _SCALARS or re.search(r"[\[\]]", part))
    ]
    return ".".join(kept)


_ACCEPTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section of keys and values",
    "model_type": "a section of keys and values",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number from {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number up to {le}",
}


def _accepted(complaint: ErrorDetails) -> str | None:
    words = _ACCEPTED.get(complaint["type"])
    return words.format(**complaint.get("ctx", {})) if words else None
