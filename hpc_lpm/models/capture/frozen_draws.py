"""What a module draws or counts in Python during its forward, which a capture would freeze."""

import inspect
import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.refusal import RefusedError
from hpc_lpm.models.capture.state import state_kept
from hpc_lpm.random_streams import generators_kept


def check_draws(module: nn.Module, call: Call) -> None:
    """Run the module once in each mode and see whether it draws from those generators.

    Raises:
        RefusedError: if it does, naming the module and the line.
    """
    for training in (True, False):
        with state_kept(module), generators_kept(), torch.no_grad():
            module.train(training)
            before = _states()
            call.run(module, call.activation)
            drawn = _difference(before, _states())
            if drawn:
                where, place = _innermost(module, call)
                raise RefusedError(
                    f"draws from {drawn}'s random numbers{where}, which a capture would freeze",
                    "draw from torch's, as in torch.rand(())",
                    place,
                )
            _check_attributes(module, call)


def _check_attributes(module: nn.Module, call: Call) -> None:
    """Run the module once more, and see whether it counts in attributes that are no tensors.

    Raises:
        RefusedError: if it does.
    """
    before = _attributes(module)
    call.run(module, call.activation)
    for (path, name), value in _attributes(module).items():
        if before.get((path, name), value) != value:
            part = module.get_submodule(path)
            code = type(part).forward.__code__
            raise RefusedError(
                f"changes the attribute {name} of {path or 'itself'} ({type(part).__name__}) each "
                "time, which a capture would freeze",
                "keep it in a registered buffer",
                f"{code.co_filename}, line {code.co_firstlineno}",
            )


def _attributes(module: nn.Module) -> dict[tuple[str, str], Any]:
    return {
        (path, name): value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, int | float | str)
    }


def _states() -> tuple[Any, Any]:
    numpy: Any = np.random.get_state()
    return random.getstate(), (numpy[1].tobytes(), numpy[2:])


def _difference(before: tuple[Any, Any], after: tuple[Any, Any]) -> str:
    if before[0] != after[0]:
        return "Python"
    return "NumPy" if before[1] != after[1] else ""


def _innermost(module: nn.Module, call: Call) -> tuple[str, str]:
    """Run the module again, and return the innermost module that draws, and the line of it."""
    changed: list[tuple[str, nn.Module]] = []
    started: list[tuple[str, Any]] = []
    hooks = []
    for name, part in module.named_modules():
        hooks.append(
            part.register_forward_pre_hook(
                lambda _part, _given, name=name: started.append((name, _states()))
            )
        )

        def after(part: nn.Module, _given: Any, _output: Any) -> None:
            name, before = started.pop()
            if not changed and _difference(before, _states()):
                changed.append((name, part))

        hooks.append(part.register_forward_hook(after))
    try:
        call.run(module, call.activation)
    finally:
        for hook in hooks:
            hook.remove()
    if not changed:
        return "", ""
    name, part = changed[0]
    where = f" in {name} ({type(part).__name__})" if name else ""
    return where, _line(part.forward, lambda: call.run(module, call.activation))


def _line(forward: Callable[..., Any], run: Callable[[], Any]) -> str:
    """Return the file and the line of a function during which a generator's state changes."""
    code = inspect.unwrap(getattr(forward, "__func__", forward)).__code__
    last: list[Any] = [0, _states()]
    found: list[int] = []

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code is not code:
            return None
        if event == "call":
            last[:] = [frame.f_lineno, _states()]
        elif not found and _difference(last[1], now := _states()):
            found.append(last[0])
            last[1] = now
        last[0] = frame.f_lineno
        return watch

    tracing = sys.gettrace()
    sys.settrace(watch)
    try:
        run()
    finally:
        sys.settrace(tracing)
    line = found[0] if found else code.co_firstlineno
    return f"{code.co_filename}, line {line}"
