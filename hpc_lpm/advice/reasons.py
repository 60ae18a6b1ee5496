"""Say why the first strategy of a ranking is first, and what would change that."""

from collections.abc import Iterator
from fractions import Fraction

from hpc_lpm.advice.ranking import Ranked, Ranking, first_on, rank
from hpc_lpm.advice.subject import Subject
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.planning.forecast.case import Case
from hpc_lpm.planning.forecast.forecast import Certainty

_DOUBLINGS = 8
"""How often the bandwidth is halved and doubled at most to see if another comes first."""


def why_first(ranking: Ranking) -> str:
    """Return the sentence that says what decides for the first strategy."""
    best, others = ranking.best, _other_ways(ranking)
    sentence = f"{best.name} is first: a step takes {_milliseconds(best)}, {_bounded(best)}"
    worth = best.forecast.expected.worth
    if best.forecast.lag.largest:
        known = "unknown" if worth.value is None else f"{worth.value:.2f} of a synchronous one"
        sentence += f", and is worth {known} ({worth.reason})"
    if best.forecast.certainty is not Certainty.EXPECTED:
        sentence += ", though no time to a target is known"
    if not others:
        return f"{sentence}; no other way can train this."
    return f"{sentence}; {_compared(best, others[0])}."


def what_changes_it(ranking: Ranking, subject: Subject) -> list[str]:
    """Return sentences on what would put another way first: links, a step's worth, memory."""
    return [
        *_of_links(ranking),
        *_of_profiles(ranking),
        *_of_worth(ranking),
        *_of_memory(ranking, subject),
    ]


def _of_links(ranking: Ranking) -> Iterator[str]:
    unchanged = []
    for word, base in (("slower", 0.5), ("faster", 2.0)):
        turn = _turning_point(ranking, base)
        if turn is None:
            unchanged.append(word)
            continue
        factor, other = turn
        times = f"{1 / factor if factor < 1 else factor:g} times"
        link = _slowest_link(ranking.case)
        yield (
            f"{other.name} would be first on links {times} {word}, "
            f"{link * factor / 1e9:.3g} GB/s instead of {link / 1e9:.3g}."
        )
    if len(unchanged) == 2:
        yield (f"No link up to {2**_DOUBLINGS} times slower or faster changes which way is first.")


def _of_profiles(ranking: Ranking) -> Iterator[str]:
    """Yield what could be first, on any links, if there were a profile by which to predict it."""
    case = ranking.case
    sizes = [profile.micro_batch for profile in case.profiles]
    if any(case.batch_size % (size * case.devices) == 0 for size in sizes):
        return
    left_out = [strategy_named(left.name) for left in ranking.left_out]
    names = [each.name for each in left_out if each.data_parallel and each.available()]
    if not names:
        return
    share, left = divmod(case.batch_size, case.devices)
    remedy = f"give a --batch-size that is a multiple of {case.devices}"
    if not left:
        divisor = ", or of a number that divides them" if share > 1 else ""
        remedy = f"profile a micro-batch of {share} sample{'s' * (share > 1)}{divisor}"
    yield (
        f"Data parallelism ({', '.join(names)}) is not among these ways: the {case.batch_size} "
        f"samples of a step are no multiple of a profiled micro-batch "
        f"({', '.join(map(str, sizes))}) x {case.devices} devices; to weigh it too, {remedy}."
    )


def _turning_point(ranking: Ranking, base: float) -> tuple[float, Ranked] | None:
    """Return the factor on bandwidths nearest to 1, a power of `base`, at which another is first.

    It is looked for by bisection, as if a change at one factor held at all that are farther away.
    """
    best = ranking.best

    def first(exponent: int) -> Ranked:
        return first_on(ranking, ranking.case.with_links_times(base**exponent))

    same, other = 0, _DOUBLINGS
    found = first(other)
    if found.forecast.way == best.forecast.way:
        return None
    while other - same > 1:
        middle = (same + other) // 2
        between = first(middle)
        if between.forecast.way == best.forecast.way:
            same = middle
        else:
            other, found = middle, between
    return base**other, found


def _of_worth(ranking: Ranking) -> Iterator[str]:
    best = ranking.best.forecast
    least = best.target_seconds
    if least is None:
        return
    unknown = [
        each
        for each in ranking.ranked
        if each.forecast.certainty is Certainty.WORTH_UNKNOWN and each.forecast.step_seconds < least
    ]
    if unknown:
        other = unknown[0]
        needed = float(other.forecast.step_seconds / least)
        yield (
            f"{other.name} would be first if a step of it were worth more than {needed:.2f} of a "
            f"synchronous one, which is not known: {other.forecast.expected.worth.reason}."
        )
    behind = [each for each in _other_ways(ranking) if each.forecast.target_seconds is not None]
    if best.lag.largest and behind:
        later = behind[0].forecast.target_seconds
        assert later is not None
        if later:  # where no layer takes any time, nothing does
            enough = float(best.step_seconds / later)
            yield (
                f"{behind[0].name} would be first if a step of {ranking.best.name} were worth less "
                f"than {enough:.2f}."
            )


def _of_memory(ranking: Ranking, subject: Subject) -> Iterator[str]:
    case = ranking.case
    if case.memory_limit is None:
        return
    names = [each.name for each in ranking.ranked] + [each.name for each in ranking.left_out]
    free = rank(subject, case.without_memory_limit(), names).best
    if free.forecast.memory_bytes > case.memory_limit:
        yield (
            f"Without the memory limit {free.name} would be first, with "
            f"{free.forecast.memory_bytes:,} bytes on a device instead of {case.memory_limit:,}."
        )


def _other_ways(ranking: Ranking) -> list[Ranked]:
    """Return those that train in another way than the first, on whatever engine."""
    way = ranking.best.forecast.way
    return [each for each in ranking.ranked if each.forecast.way != way]


def _compared(best: Ranked, other: Ranked) -> str:
    first, second = best.forecast, other.forecast
    named = f"the next other way is {other.name}"
    if first.target_seconds is not None and second.target_seconds is not None:
        return f"{named}, {_more(second.target_seconds, first.target_seconds)} {_bounded(other)}"
    if second.certainty is Certainty.WORTH_UNKNOWN:
        return f"{named}, of which it is not known what a step is worth"
    return f"{named}, {_more(second.step_seconds, first.step_seconds)} {_bounded(other)}"


def _more(seconds: Fraction, least: Fraction) -> str:
    if seconds <= least:
        return "as soon there,"
    return f"{float(seconds / least - 1):.1%} later," if least else "later,"


def _bounded(each: Ranked) -> str:
    return f"bounded by {each.forecast.bound}"


def _milliseconds(each: Ranked) -> str:
    return f"{float(each.forecast.step_seconds) * 1e3:.3f} ms"


def _slowest_link(case: Case) -> float:
    links = [case.profiles[0].link, *([case.nodes.link] if case.nodes else [])]
    return min(link.bandwidth_bytes_per_second for link in links)
