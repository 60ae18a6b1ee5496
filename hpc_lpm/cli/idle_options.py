"""Options of `hpc-lpm train` that change nothing at the values of the others: a mistake if typed.

Settings files may have them: a campaign gives its contestants options that not all of them heed.
"""

from collections.abc import Collection, Iterator

from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.options import flatten_settings

_DECAYING = ("linear", "cosine")


def refuse_idle_options(settings: TrainSettings, typed: Collection[str]) -> None:
    """Refuse the first option that was typed and changes nothing.

    Args:
        settings: of the run.
        typed: the dotted names of the settings that were given as options.

    Raises:
        InputError: naming the option, what it needs to mean something, and what to do.
    """
    values = flatten_settings(settings.model_dump(mode="json"))
    for name, option, why, remedy in _idle(settings):
        if name in typed and values[name] != 0:
            raise InputError(f"{option} {values[name]} {why}: {remedy}, or leave it out.")


def _idle(settings: TrainSettings) -> Iterator[tuple[str, str, str, str]]:
    """Yield the name of a setting, its option, why that changes nothing, and a remedy."""
    strategy, rates = strategy_named(settings.strategy), settings.learning_rate
    yield from _idle_for(strategy)
    if settings.non_finite != "rewind":
        why = f"was given with --non-finite {settings.non_finite}, under which no run rewinds"
        yield "rewinds", "--rewinds", why, "add --non-finite rewind"
    if settings.clip_norm is None:
        why = "clips nothing without --clip-norm"
        yield "clip_scope", "--clip-scope", why, "give the norm"
    if settings.optimizer.name.lower() != "momentum":
        why = f"was given with --optimizer {settings.optimizer.name}, which does not take it"
        remedy = "use --optimizer momentum, or --optimizer-option if its class has one"
        yield "optimizer.momentum", "--momentum", why, remedy
    if rates.schedule not in _DECAYING:
        why = f"was given with --lr-schedule {rates.schedule}, which has no end to decay to"
        remedy = f"use --lr-schedule {' or '.join(_DECAYING)}"
        yield "learning_rate.final_factor", "--lr-final-factor", why, remedy
    if rates.schedule != "step":
        why = f"was given with --lr-schedule {rates.schedule}, which has no steps"
        remedy = "use --lr-schedule step with --lr-milestones"
        yield "learning_rate.factor", "--lr-factor", why, remedy


def _idle_for(strategy: Strategy) -> Iterator[tuple[str, str, str, str]]:
    if not strategy.needs_plan:
        why = f"was given with --strategy {strategy.name}, which does not cut the model into stages"
        yield "plan", "--plan", why, "use a strategy of stages (`hpc-lpm strategies`)"
    if strategy.independent:
        why = f"was given with --strategy {strategy.name}, which saves no checkpoints"
        for name in ("checkpoint_epochs", "keep_checkpoints"):
            yield name, f"--{name.replace('_', '-')}", why, "use another strategy"
