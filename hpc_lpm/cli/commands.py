"""Imports every command so that it registers itself; one line a command."""

from hpc_lpm.cli import (  # noqa: F401
    campaign,
    compare,
    datasets,
    models,
    plan,
    planners,
    profile,
    report,
    simulate,
    strategies,
    train,
    validate,
)
