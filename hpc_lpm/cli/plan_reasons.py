"""Say in sentences why `hpc-lpm plan --devices` chose what it chose."""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from hpc_lpm.cli.plan_table import worth_text
from hpc_lpm.planning.devices.candidates import Candidate, DeviceSearch
from hpc_lpm.schedules.base import LEAD, WEIGHTS


def why(found: DeviceSearch) -> str:
    """Return the sentences: the winner, who comes next, and what is left out."""
    sentences = list(_of_target(found) if found.for_target else _of_throughput(found))
    reasons = Counter(item.reason for item in found.left_out)
    if reasons:
        counted = ", ".join(f"{count} ({reason.value})" for reason, count in reasons.items())
        sentences.append(f"Combinations left out: {counted}.")
    return " ".join(sentences)


def _of_throughput(found: DeviceSearch) -> Iterator[str]:
    winner = found.best
    yield (
        f"{_named(winner)} trains fastest: a step takes {_milliseconds(winner.step.seconds)}, "
        f"bounded by {winner.step.bound}."
    )
    others = found.best_of_each()[1:]
    if others:
        slower = _more(others[0].step.seconds, winner.step.seconds, "fast", "slower")
        yield f"Next best is {_named(others[0])}, {slower}, bounded by {others[0].step.bound}."
    alike = [
        candidate
        for candidate in found.candidates
        if (candidate.stages, candidate.micro_batch) == (winner.stages, winner.micro_batch)
    ]
    for candidate in sorted(alike, key=lambda candidate: candidate.lead):
        if candidate.lead == winner.lead - 1 or (
            winner.step.by_messages and candidate.lead == winner.lead + 1
        ):
            slower = _more(candidate.step.seconds, winner.step.seconds, "fast", "slower")
            yield f"Lead {candidate.lead} instead of {winner.lead} would be {slower}."


def _of_target(found: DeviceSearch) -> Iterator[str]:
    winner = found.best
    least = winner.target_seconds or Fraction(0)
    flushes = winner.model.schedule.flushes
    deep = any(not one.model.schedule.flushes for one in found.candidates)
    yield (
        f"{'Prefer a flush: ' if flushes and deep else ''}{_trained(winner)} is expected to reach "
        f"a target first: a step takes {_milliseconds(winner.step.seconds)} and is worth "
        f"{worth_text(winner.expected.worth)} of a synchronous one "
        f"({winner.expected.worth.reason})."
    )
    known = [one for one in found.best_of_each()[1:] if one.target_seconds is not None]
    if known and known[0].target_seconds is not None:
        longer = _more(known[0].target_seconds, least, "soon", "later")
        yield f"Next best is {_trained(known[0])}, {longer}."
    unknown = [one for one in found.candidates if one.target_seconds is None]
    if unknown:
        yield (
            f"{len(unknown)} of {len(found.candidates)} candidates are not chosen among, the "
            f"fastest of them {_trained(unknown[0])}: {unknown[0].expected.worth.reason}."
        )
    if len({one.micro_batch for one in found.candidates}) == 1:
        yield "Profiles of smaller micro-batches would let more of them make a step, and lag less."


def _named(candidate: Candidate) -> str:
    stages = "1 stage" if candidate.stages == 1 else f"{candidate.stages} stages"
    replicas = "1 replica" if candidate.replicas == 1 else f"{candidate.replicas} replicas"
    return f"{stages} x {replicas} with micro-batches of {candidate.micro_batch}"


def _trained(candidate: Candidate) -> str:
    """Return the candidate with how it trains."""
    options, own = candidate.model.options, candidate.model.schedule.own_options
    weights = f", weights {options.weights}" if WEIGHTS in own else ""
    lead = f", lead {options.lead}" if LEAD in own else ""
    return f"{_named(candidate)} ({options.schedule}{lead}{weights})"


def _milliseconds(seconds: Fraction) -> str:
    return f"{float(seconds) * 1e3:.3f} ms"


def _more(seconds: Fraction, least: Fraction, alike: str, more: str) -> str:
    """Return by which share `seconds` are more than the least, such as `3.0% slower`."""
    if seconds == least:
        return f"as {alike}"
    return f"{float(seconds / least - 1):.1%} {more}" if least else more
