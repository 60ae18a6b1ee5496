"""The module that holds each command."""

from importlib import import_module

COMMANDS = {
    "advise": "hpc_lpm.cli.advise",
    "campaign": "hpc_lpm.cli.campaign",
    "compare": "hpc_lpm.cli.compare",
    "datasets": "hpc_lpm.cli.datasets",
    "doctor": "hpc_lpm.cli.doctor",
    "evaluate": "hpc_lpm.cli.evaluate",
    "export": "hpc_lpm.cli.export",
    "init": "hpc_lpm.cli.init",
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
"""Importing a module registers its command on the application; a module whose options depend on the
arguments has a function `register` that does so."""


def register(arguments: list[str]) -> None:
    """Register the command that `arguments` begin with, or all commands if they name none.

    Most modules import torch, which takes seconds; the other commands should not wait for that.
    """
    named = COMMANDS.get(arguments[0]) if arguments else None
    for module in [named] if named else COMMANDS.values():
        imported = import_module(module)
        if hasattr(imported, "register"):
            imported.register(arguments)
