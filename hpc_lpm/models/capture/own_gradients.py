"""Functions with a gradient of their own, which torch.export would take apart and so lose.

While a module is recorded, each call of such a function becomes one operation of the graph; the
code of a layer calls the function itself in its place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.fx import Node

from hpc_lpm.activation import Structure, taken_apart
from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.refusal import RefusedError
from hpc_lpm.models.capture.state import state_kept
from hpc_lpm.random_streams import generators_kept

_REENTRANT = "torch.utils.checkpoint"


class OwnFunction:
    """A function with its arguments but for the tensors.

    Calling it with the tensors returns the tensors of the function's result.
    """

    def __init__(self, kind: type[Function], arguments: Structure, number: int) -> None:
        self.kind = kind
        self.arguments = arguments
        self.result: Structure | None = None
        # How torch.fx names it in code; the same for calls that differ in their tensors alone.
        self.__name__ = self.__qualname__ = f"{kind.__name__}_{number}"
        self.__module__ = "own_functions"

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        """Apply the function."""
        given = self.arguments.fill(tensors)
        found, self.result = taken_apart(_original_apply(self.kind, *given))
        return found


_functions: list[OwnFunction] = []


def function_of(node: Node) -> OwnFunction | None:
    """Return the function that an operation of a graph stands for, None for all others."""
    if node.target is not torch.ops.hpc_lpm_capture.apply.default:
        return None
    number = node.args[1]
    return _functions[number] if isinstance(number, int) else None


@contextmanager
def functions_recorded() -> Iterator[None]:
    """Let each call of such a function be one operation of the graph that is being recorded."""

    def apply(kind: Any, *given: Any, **options: Any) -> Any:
        if _is_torchs(kind) or options:
            return _original_apply(kind, *given, **options)
        tensors, arguments = taken_apart(given)
        number = _number_of(kind, arguments)
        found = torch.ops.hpc_lpm_capture.apply(tensors, number)
        result = _functions[number].result
        assert result is not None
        return result.fill(list(found))

    with _applied_by(apply):
        yield


def explained(refusal: RefusedError, module: nn.Module, call: Call) -> RefusedError:
    """Return why a chain differs: checkpoints that cannot be recorded, else the refusal."""
    used: list[bool] = []

    def noted(kind: Any, *given: Any, **options: Any) -> Any:
        used.append(kind.__module__ == _REENTRANT)
        return _original_apply(kind, *given, **options)

    with _applied_by(noted), state_kept(module), generators_kept(), torch.enable_grad():
        module.train()
        call.run(module, call.activation)
    if not any(used):
        return refusal
    return RefusedError(
        "uses torch.utils.checkpoint with use_reentrant=True, which a capture leaves out",
        "set use_reentrant=False",
    )


def _number_of(kind: type[Function], arguments: Structure) -> int:
    for number, known in enumerate(_functions):
        if known.kind is kind and known.arguments == arguments:
            return number
    _functions.append(OwnFunction(kind, arguments, len(_functions)))
    return len(_functions) - 1


def _is_torchs(kind: type) -> bool:
    return kind.__module__.startswith("torch.")


@contextmanager
def _applied_by(apply: Callable[..., Any]) -> Iterator[None]:
    original = Function.__dict__["apply"]
    setattr(Function, "apply", classmethod(apply))  # noqa: B010
    try:
        yield
    finally:
        setattr(Function, "apply", original)  # noqa: B010


def _original_apply(kind: Any, *given: Any, **options: Any) -> Any:
    return _APPLY(kind, *given, **options)


_APPLY: Callable[..., Any] = Function.__dict__["apply"].__func__


def _shapes(tensors: list[Tensor], number: int) -> list[Tensor]:
    # Functions within this one are part of it.
    with _applied_by(_original_apply):
        return _functions[number](tensors)


torch.library.define("hpc_lpm_capture::apply", "(Tensor[] tensors, int number) -> Tensor[]")
torch.library.register_fake("hpc_lpm_capture::apply", _shapes)
