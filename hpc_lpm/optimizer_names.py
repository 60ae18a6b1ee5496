"""The names by which users choose an optimizer: short ones, classes of torch, and their own.

Capitals count for nothing, but in the name of a user's own, `module:name`.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpc_lpm.errors import InputError, closest

if TYPE_CHECKING:
    from torch.optim import Optimizer

SHORT_NAMES = ("sgd", "momentum", "adam", "adamw", "muon")
"""Optimizers that the toolkit has a name of its own for."""

_IMPOSSIBLE = {
    "lbfgs": "it runs forward and backward again within an update, which a pipeline cannot do",
    "sparseadam": "it only takes sparse gradients, and the layers here have dense ones",
}
"""The optimizers of torch that cannot train here, in lower case, with the reason."""


def is_own(name: str) -> bool:
    """Tell if an optimizer is one of the user's own."""
    return ":" in name


def check_optimizer_name(name: str, besides: Sequence[str] = ()) -> None:
    """Check that there is an optimizer of a name, which may be one of the user's own.

    What the user's own name refers to is not looked at.

    Args:
        name: as it was typed.
        besides: further names that are accepted where this is asked.

    Raises:
        InputError: if there is none, or it cannot train here.
    """
    known = (*SHORT_NAMES, *besides)
    if is_own(name) or name.lower() in known:
        return
    if reason := _IMPOSSIBLE.get(name.lower()):
        raise InputError(f"optimizer {name!r} cannot be used: {reason}: choose another one.")
    names = [*known, *classes_of_torch()]
    if name.lower() not in map(str.lower, names):
        raise InputError(
            f"optimizer {name!r} is unknown{closest(name, names)}: accepted are "
            f"{', '.join(names)}, and module:name for one of your own."
        )


def classes_of_torch() -> "dict[str, type[Optimizer]]":
    """Return the optimizers of torch that can train here and have no short name, by name."""
    # Importing torch takes seconds, which most names need not.
    import torch

    return {
        name: value
        for name, value in sorted(vars(torch.optim).items())
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
        and name.lower() not in _IMPOSSIBLE
        and name.lower() not in SHORT_NAMES
    }
