"""The module of each command, one line per command."""

from importlib import import_module

COMMANDS = {
    "campaign": "hpc_lpm.cli.campaign",
    "compare": "hpc_lpm.cli.compare",
    "datasets": "hpc_lpm.cli.datasets",
    "doctor": "hpc_lpm.cli.doctor",
    "models": "hpc_lpm.cli.models",
    "plan": "hpc_lpm.cli.plan",
    "planners": "hpc_lpm.cli.planners",
    "profile": "hpc_lpm.cli.profile",
    "report": "hpc_lpm.cli.report",
    "simulate": "hpc_lpm.cli.simulate",
    "strategies": "hpc_lpm.cli.strategies",
    "train": "hpc_lpm.cli.train",
    "validate": "hpc_lpm.cli.validate",
}
"""Importing a module registers its command on the application; one with options that depend on the
arguments has a function `register` for that."""


def register(arguments: list[str]) -> None:
    """Register the command that `arguments` begin with, or all if they do not begin with one.

    Most modules import torch, which takes seconds; those that do not should not wait for it.
    """
    named = COMMANDS.get(arguments[0]) if arguments else None
    for module in [named] if named else COMMANDS.values():
        imported = import_module(module)
        if hasattr(imported, "register"):
            imported.register(arguments)
