"""The children of a module that cannot be captured, if it calls one after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hpc_lpm.models.capture.call import Call
from hpc_lpm.models.capture.state import state_kept
from hpc_lpm.random_streams import seeded_generators


@dataclass(frozen=True)
class ChildCall:
    """A child's name, the child, and the one argument that it was given."""

    name: str
    child: nn.Module
    argument: Any


@dataclass
class _Seen:
    name: str
    child: nn.Module
    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    output: Any = None


def chained_children(
    module: nn.Module, call: Call, select: Callable[[Any], Any]
) -> list[ChildCall] | None:
    """Return the children in the order of their calls, if they are all that the module does.

    That is so if each child that is called, in training and in evaluation mode, is called once, the
    first on the module's input, every other on what the one before returned, and if the module
    returns what the last one returned. None otherwise.
    """
    found: list[list[ChildCall] | None] = []
    for training in (True, False):
        with state_kept(module):
            module.train(training)
            found.append(_chain(module, call, select))
    first, second = found
    if first is None or second is None:
        return None
    same = [one.name for one in first] == [other.name for other in second]
    return first if same else None


def _chain(module: nn.Module, call: Call, select: Callable[[Any], Any]) -> list[ChildCall] | None:
    seen: list[_Seen] = []
    hooks = []
    for name, child in module.named_children():

        def before(child: nn.Module, positional: Any, keywords: Any, name: str = name) -> None:
            seen.append(_Seen(name, child, positional, keywords))

        def after(child: nn.Module, positional: Any, output: Any, name: str = name) -> None:
            next(one for one in reversed(seen) if one.name == name).output = output

        hooks.append(child.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(child.register_forward_hook(after))
    try:
        with seeded_generators(0), torch.no_grad():
            returned = select(call.run(module, call.activation))
    finally:
        for hook in hooks:
            hook.remove()
    given = call.activation if call.alone else None
    if not call.alone and isinstance(call.activation, tuple) and len(call.activation) == 1:
        given = call.activation[0]
    chain = []
    for one in seen:
        if one.keywords or len(one.positional) != 1 or one.positional[0] is not given:
            return None
        chain.append(ChildCall(one.name, one.child, given))
        given = one.output
    names = [one.name for one in seen]
    if not chain or len(set(names)) < len(names) or returned is not given:
        return None
    return chain
