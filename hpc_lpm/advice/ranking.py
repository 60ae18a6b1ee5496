"""Ask every strategy what it would do with a case, and put the answers in order.

First come those whose time to a target is expected, by that time; then those of whose steps nobody
has measured what they are worth, by throughput; then those that are only known not to be faster.
Of equal ones the strategy that is registered first comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from hpc_lpm.advice.subject import Subject
from hpc_lpm.engine.lone_crossings import lone_crossings_named
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.engine.strategies.registry import STRATEGIES, strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.planning.forecast.case import Case
from hpc_lpm.planning.forecast.forecast import Forecast
from hpc_lpm.user_functions import describe_raised

_NAMED_REASONS = 3
"""How many reasons are told where no strategy can train."""


@dataclass(frozen=True)
class Ranked:
    """A strategy in the best way that it can train a case: the settings and the prediction.

    `ways` are all that it accepts, best first.
    """

    strategy: Strategy
    settings: TrainSettings
    forecast: Forecast
    ways: tuple[Forecast, ...]

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.strategy.name


@dataclass(frozen=True)
class LeftOut:
    """A strategy that cannot train a case or is not predicted, and why, in a phrase."""

    name: str
    reason: str


@dataclass(frozen=True)
class Ranking:
    """The strategies for a case, best first, and those that are left out."""

    case: Case
    ranked: tuple[Ranked, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def best(self) -> Ranked:
        """The first."""
        return self.ranked[0]


def first_on(ranking: Ranking, case: Case) -> Ranked:
    """Return which would be first on other links, each in the best of the ways that it has.

    Cuts stay those of the ranking; of several engines for one way the first stands for all.
    """
    engines: dict[str, Ranked] = {}
    for each in ranking.ranked:
        engines.setdefault(each.forecast.way, each)
    again = [
        replace(each, forecast=min((way.on(case) for way in each.ways), key=_merit))
        for each in engines.values()
    ]
    return min(again, key=lambda each: each.forecast.merit)


def _merit(forecast: Forecast) -> tuple[int, Fraction, int, int]:
    return forecast.merit


def names_with(own: Sequence[str]) -> list[str]:
    """Return the names of all registered strategies, and of those of the user's own."""
    return [*STRATEGIES.names(), *own]


def rank(subject: Subject, case: Case, names: Sequence[str]) -> Ranking:
    """Rank strategies for a case.

    Args:
        subject: the model and the settings that all have in common.
        case: the devices and how training is predicted on them.
        names: the strategies to rank; `module:name` is accepted.

    Raises:
        InputError: if there is no strategy of a name, or none can train the case.
    """
    ranked: list[Ranked] = []
    left_out: list[LeftOut] = []
    for name in dict.fromkeys(names):
        strategy = strategy_named(name)
        try:
            ranked.append(_best_way(strategy, subject, case))
        except InputError as error:
            left_out.append(LeftOut(name, str(error).rstrip(".")))
    if not ranked:
        raise InputError(
            f"no strategy can train {subject.model.name} on {case.devices} devices "
            f"({_grouped(left_out)}): give more memory, another --batch-size or another number of "
            "--devices."
        )
    ranked.sort(key=lambda each: each.forecast.merit)
    return Ranking(case, tuple(ranked), tuple(left_out))


def _grouped(left_out: Sequence[LeftOut]) -> str:
    """Return the commonest reasons, each with the strategies that it holds for."""
    names: dict[str, list[str]] = {}
    for each in left_out:
        names.setdefault(each.reason, []).append(each.name)
    common = sorted(names.items(), key=lambda item: -len(item[1]))[:_NAMED_REASONS]
    told = "; ".join(f"{', '.join(those)}: {reason}" for reason, those in common)
    return f"{told}; and others" if len(names) > len(common) else told


def _best_way(strategy: Strategy, subject: Subject, case: Case) -> Ranked:
    """Return the best way of a strategy that it accepts.

    Raises:
        InputError: saying in a phrase why there is none.
    """
    if not strategy.available():
        raise InputError(f"its package {strategy.package} is not installed")
    accepted: list[tuple[Forecast, TrainSettings]] = []
    refusals: list[tuple[int, InputError]] = []
    for forecast in _forecasts(strategy, subject, case):
        try:
            settings = subject.settings(strategy, forecast)
            _check(strategy, subject, settings, forecast)
        except InputError as error:
            refusals.append((forecast.replicas, error))
            continue
        accepted.append((forecast, settings))
    if accepted:
        best, settings = accepted[0]
        return Ranked(strategy, settings, best, tuple(forecast for forecast, _ in accepted))
    if not refusals:
        raise InputError("it knows no way to train this")
    # That of the fewest replicas says more than that there are replicas.
    raise min(refusals, key=lambda refusal: refusal[0])[1]


def _forecasts(strategy: Strategy, subject: Subject, case: Case) -> Sequence[Forecast]:
    usual = subject.settings(strategy)
    if strategy.lone_crossing:
        case = subject.with_lone_crossings(case)
    try:
        with lone_crossings_named(strategy):
            return strategy.forecasts(usual, case)
    except InputError:
        raise
    except Exception as error:
        # Advice on all others is worth more than none; the tests find what is the toolkit's fault.
        raise InputError(
            f"not predicted: its `forecasts` raises {describe_raised(error)}"
        ) from error


def _check(
    strategy: Strategy, subject: Subject, settings: TrainSettings, forecast: Forecast
) -> None:
    # Imported here, because it imports torch.
    from hpc_lpm.engine.checks import check_run

    usual = strategy.with_clip_scope(settings)
    check_run(
        PlannedRun(
            usual,
            subject.model,
            forecast.devices,
            forecast.stages,
            steps=usual.steps,
        )
    )
