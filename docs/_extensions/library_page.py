"""The public interface, from the docstrings of what `hpc_lpm.__all__` names."""

import inspect

from pydantic import BaseModel

import hpc_lpm


def library_page() -> str:
    """Return a directive of Sphinx's autodoc for every public name."""
    offered = {name: getattr(hpc_lpm, name) for name in hpc_lpm.__all__}
    ordered = sorted(offered, key=lambda name: (_group(offered[name]), name.lower()))
    directives = "\n".join(_directive(name, offered[name]) for name in ordered)
    return f"```{{eval-rst}}\n{directives}```\n"


def _group(found: object) -> int:
    """Return where something stands on the page: functions, classes, errors, all else."""
    if inspect.isclass(found):
        return 2 if issubclass(found, Exception) else 1
    return 0 if callable(found) else 3


def _directive(name: str, found: object) -> str:
    if not inspect.isclass(found):
        kind = "function" if callable(found) else "data"
        return f".. auto{kind}:: hpc_lpm.{name}\n"
    if issubclass(found, Exception):
        return f".. autoexception:: hpc_lpm.{name}\n   :no-members:\n"
    if issubclass(found, BaseModel):
        # Made by functions and read from files, so that the arguments of the class are nobody's.
        known = [each for each, value in vars(found).items() if isinstance(value, property)]
        members = ", ".join([*known, "read", "write"])
        return f".. autoclass:: hpc_lpm.{name}()\n   :members: {members}\n"
    return f".. autoclass:: hpc_lpm.{name}()\n   :members:\n   :member-order: bysource\n"
