"""The keys of a campaign that are given by Snakemake's `--config`, as their fields take them.

Snakemake turns the text behind `KEY=` into a number or a truth where Python can, and else reads it
as YAML that leaves every word a text: `name=true` is a text like `name=quick`, and so is the 2 in
`seeds=[1,2]`. What such a word stands for depends on the field that it is for.
"""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from hpc_lpm.campaign.config import fields_of
from hpc_lpm.documents import parse_scalar
from hpc_lpm.errors import InputError


def typed_values(given: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `--config` in the types that a campaign file would give them.

    Args:
        given: what Snakemake made of the texts.
        document: the campaign that these values change.

    Raises:
        InputError: if Snakemake took a name for a number, and so lost how it was typed: quotes do
            not help, since it removes them first.
    """
    fields = fields_of({**document, **given})
    values: dict[str, Any] = {}
    for key, value in given.items():
        annotation = fields[key].annotation if key in fields else Any
        accepted = _members(annotation)
        if isinstance(value, bool | int | float) and accepted <= {str, NoneType}:
            raise InputError(
                f"--config {key}=... is read by Snakemake as {value!r}, and handed on to jobs like "
                f"that, but {key} is text: begin it with a letter, or set it in the campaign file "
                f'in quotes, as in {key}: "007".'
            )
        values[key] = _typed(value, annotation)
    return values


def _typed(value: object, annotation: object) -> object:
    members = _members(annotation)
    if isinstance(value, str):
        return _word(value, members)
    for member in members:
        if isinstance(value, list) and get_origin(member) in (list, tuple):
            return [_typed(part, get_args(member)[0]) for part in value]
        if isinstance(value, dict) and isinstance(member, type) and issubclass(member, BaseModel):
            inner = {name: field.annotation for name, field in member.model_fields.items()}
            return {name: _typed(part, inner.get(name, Any)) for name, part in value.items()}
    if isinstance(value, list):
        return [_typed(part, Any) for part in value]
    if isinstance(value, dict):
        return {name: _typed(part, Any) for name, part in value.items()}
    return value


def _word(text: str, members: set[object]) -> object:
    """Return what a word stands for, or the word itself where its field takes no such value."""
    scalar = parse_scalar(text)
    is_text = str in members or any(get_origin(member) is Literal for member in members)
    if is_text and type(scalar) not in members:
        return text
    return scalar


def _members(annotation: object) -> set[object]:
    """Return the types that a field accepts, one by one."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return {member for each in get_args(annotation) for member in _members(each)}
    return {annotation}
