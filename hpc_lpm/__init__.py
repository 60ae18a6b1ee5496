"""Layer-wise partitioning and merging for efficient and scalable deep learning.

What `__all__` names is public: in one's own script `profile` measures a module, `plan` cuts it into
stages, and `initialize` returns an `Engine` that trains them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from hpc_lpm.errors import InputError, TrainingError

if TYPE_CHECKING:
    from hpc_lpm.engine.engine import Engine
    from hpc_lpm.engine.initialize import initialize
    from hpc_lpm.planning.api import plan
    from hpc_lpm.planning.plan import Plan
    from hpc_lpm.profile_file import Profile
    from hpc_lpm.profiling.api import profile

__version__ = "0.1.0"
"""The version of the package, by the rules of semantic versioning."""

__all__ = [
    "Engine",
    "InputError",
    "Plan",
    "Profile",
    "TrainingError",
    "__version__",
    "initialize",
    "plan",
    "profile",
]

_HOMES = {
    "Engine": "hpc_lpm.engine.engine",
    "Plan": "hpc_lpm.planning.plan",
    "Profile": "hpc_lpm.profile_file",
    "initialize": "hpc_lpm.engine.initialize",
    "plan": "hpc_lpm.planning.api",
    "profile": "hpc_lpm.profiling.api",
}
"""Where the names are that are imported when they are first used, since each command imports this
package, and torch takes a while."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
