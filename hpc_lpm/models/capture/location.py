"""Which part of a module torch.export refuses."""

import inspect
from typing import Any

import torch
from torch import nn

from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.export import record
from hpc_lpm.models.capture.refusal import RefusedError
from hpc_lpm.models.capture.state import state_kept
from hpc_lpm.random_streams import generators_kept


def innermost_refused(module: nn.Module, call: Call) -> tuple[str, nn.Module]:
    """Return path and module of the innermost part that is refused, the module itself if none is.

    Parts that take keyword arguments are not looked at.
    """
    path: list[str] = []
    while (found := _refused_child(module, call)) is not None:
        name, module, call = found
        path.append(name)
    return ".".join(path), module


def forward_place(module: nn.Module) -> str:
    """Return file and line at which a module's forward begins."""
    code = inspect.unwrap(type(module).forward).__code__
    return f"{code.co_filename}, line {code.co_firstlineno}"


def _refused_child(module: nn.Module, call: Call) -> tuple[str, nn.Module, Call] | None:
    calls: dict[str, tuple[Any, ...]] = {}
    hooks = []
    for name, child in module.named_modules():
        if name:

            def note(_child: nn.Module, given: Any, keywords: Any, name: str = name) -> None:
                if given and not keywords:
                    calls.setdefault(name, given)

            hooks.append(child.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with state_kept(module), generators_kept(), torch.no_grad():
            call.run(module, call.activation)
    finally:
        for hook in hooks:
            hook.remove()
    for name, given in calls.items():
        # Those within another one that is called are looked at when that is refused.
        if any(name.startswith(f"{other}.") for other in calls):
            continue
        child, inner = module.get_submodule(name), Call(given, alone=False)
        try:
            record(child, inner, training=True)
        except RefusedError:
            return name, child, inner
    return None
