"""What a captured model returns of the output of the user's module."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from hpc_lpm.models.capture.refusal import RefusedError


def plain_selection(select: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Return a function that picks `logits` by default, and returns built-in containers.

    Dataclasses and mappings become dictionaries, named tuples tuples, without entries of None.
    """

    def selected(output: Any) -> Any:
        try:
            picked = select(output) if select is not None else _logits(output)
        except Exception as error:
            raise RefusedError(
                f"returns {type(output).__name__}, from which `select` cannot pick "
                f"({type(error).__name__}: {error})",
                "pick what the loss takes from the module's output",
            ) from error
        return _plain(picked)

    return selected


def _logits(output: Any) -> Any:
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def _plain(output: Any) -> Any:
    if dataclasses.is_dataclass(output) and not isinstance(output, type | Mapping):
        output = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    if isinstance(output, Mapping):
        return {name: _plain(value) for name, value in output.items() if value is not None}
    if isinstance(output, tuple):
        return tuple(_plain(value) for value in output)
    if isinstance(output, list):
        return [_plain(value) for value in output]
    return output
