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
        # JSON has no keys but texts.
        if key not in {"serialization", "metadata", "default", "keys_schema"}:
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
    same, others = _first_field(error)
    accepted = list(dict.fromkeys(filter(None, map(_accepted, same))))
    first = same[0]["msg"]
    own = first.removeprefix("Value error, ")  # what a check of ours has said
    said = own if own != first else first[:1].lower() + first[1:]
    if accepted:
        said = f"accepted is {', '.join(accepted[:-1])}{' or ' * (len(accepted) > 1)}{accepted[-1]}"
    more = f" (and {others} more)" if others else ""
    return f"{_field(same[0]) or 'the whole file'}: {said}{more}"


def refusal(error: ValidationError, otherwise: str) -> str:
    """Say what is wrong with the first value that is refused, and what to write instead.

    Args:
        error: what pydantic found.
        otherwise: what to do where no spelling can be suggested.
    """
    (first, *_), _ = _first_field(error)
    sentence = describe_validation_error(error)
    if first["type"] == QUANTITY:  # says both by itself
        return sentence
    found = "" if first["type"] == "missing" else f", found {_shown(first['input'])}"
    return f"{sentence}{found}: {_spelling(error) or otherwise}"


def _spelling(error: ValidationError) -> str | None:
    """Return what to write in place of the first value that is refused, None if that is unknown."""
    same, _ = _first_field(error)
    found = same[0]["input"]
    wanted = {each["type"].partition("_")[0] for each in same}
    if wanted == {"string"} and isinstance(found, bool | int | float):
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
    if wanted & {"int", "float"} and re.fullmatch(r"[-+]?[0-9]{1,18}", digits):
        return f"write {int(digits)}, without quotes"
    if "float" in wanted and re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", text):
        return f"write {text}, without quotes"
    return None


def _first_field(error: ValidationError) -> tuple[list[ErrorDetails], int]:
    """Return all complaints about the first field that is wrong, and how many fields are besides.

    There are several where a field takes several types; a number that is not finite is then the
    complaint that matters.
    """
    complaints = error.errors()
    infinite = [each for each in complaints if each["type"] == "finite_number"]
    if infinite:
        return infinite[:1], 0
    field = _field(complaints[0])
    return (
        [each for each in complaints if _field(each) == field],
        len({_field(each) for each in complaints}) - 1,
    )


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
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number from {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number up to {le}",
}


def _accepted(complaint: ErrorDetails) -> str | None:
    words = _ACCEPTED.get(complaint["type"])
    context = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in complaint.get("ctx", {}).items()
    }
    return words.format(**context) if words else None
