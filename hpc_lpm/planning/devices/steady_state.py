"""Seconds of an optimizer step under FBP in steady state, exactly, and what bounds them.

Iteration i of stage k is forward i + d_k and backward i, of which the step's first `replayed` are
replayed, and its first follows an update that waits for the all-reduce of the step before. Each
event (a forward or a backward begins, a message has arrived) waits for what its stage does before
and for a message, so the step takes as long as the slowest cycle of such waits (`cycle_ratio`):

* a stage that always works:        M (f_k + b_k) + replays + what the all-reduce exposes
* a link that always sends:         M X_k, where transfers overlap with compute
* messages there and back between stages j and k, which take part in r (k - j) + 1 micro-batches at
  a time; where all micro-batches take the same this is
  M (T_j + ... + T_k + 2 X_j + ... + 2 X_{k-1}) / (r (k - j) + 1)

With overlap and equal micro-batches a lead of 3 always hides messages: no T or X exceeds the period
P, so T_j + ... + 2 X_{k-1} is at most (3 n - 2) P, shared by 3 (n - 1) + 1 micro-batches, for the
n = k - j + 1 stages. Without overlap a lead of 1 does. Replays and all-reduces may ask for more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from fractions import Fraction
from math import lcm

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.cycle_ratio import Constraint, slowest_cycle
from hpc_lpm.planning.stage_times import StageTimes, stage_times


@dataclass(frozen=True)
class SteadyStep:
    """Seconds of an optimizer step of M micro-batches, and what they are bounded by.

    `bound` says it in a sentence, `short_bound` in a table. `by_messages` tells that stages wait
    for one another, which a larger lead may mend.
    """

    seconds: Fraction
    bound: str
    short_bound: str
    by_messages: bool = False


def steady_step(model: CostModel, cuts: Sequence[int]) -> SteadyStep:
    """Return what a step takes with a plan's cuts and the model's lead, M, weights and replicas."""
    times = stage_times(model, cuts)
    micro_batches = model.options.micro_batches
    bounds = list(_stage_bounds(times, micro_batches, overlap=model.overlap))
    if model.overlap:
        bounds.extend(_link_bounds(times, micro_batches))
    alone = max(bounds, key=lambda bound: bound.seconds)
    # Where all micro-batches are alike the pattern repeats with each of them, not with each step.
    alike = all(
        stage.replayed in {0, micro_batches} and _exposed(stage, overlap=model.overlap) == 0
        for stage in times
    )
    pattern = 1 if alike else micro_batches
    together = _waiting_for_messages(
        times,
        pattern,
        lead=model.options.lead,
        overlap=model.overlap,
        above=alone.seconds * pattern / micro_batches,
    )
    if together is None:
        return alone
    seconds = together.seconds * micro_batches / pattern
    return replace(together, seconds=seconds)


def _stage_bounds(
    times: Sequence[StageTimes], micro_batches: int, *, overlap: bool
) -> Iterator[SteadyStep]:
    for number, stage in enumerate(times):
        exposed = _exposed(stage, overlap=overlap)
        seconds = micro_batches * (stage.forward + stage.backward) + stage.replayed * stage.forward
        what = "the compute"
        if not overlap and len(times) > 1:
            seconds += 2 * micro_batches * (stage.before + stage.after)
            what = "compute and transfers"
        averaged = " and the all-reduce of its gradients" if exposed else ""
        yield SteadyStep(
            seconds + exposed,
            f"{what} of stage {number}{averaged}",
            f"stage {number}{', all-reduce' if exposed else ''}",
        )


def _link_bounds(times: Sequence[StageTimes], micro_batches: int) -> Iterator[SteadyStep]:
    for number, stage in enumerate(times[:-1]):
        where = f"the transfer between stages {number} and {number + 1}"
        yield SteadyStep(micro_batches * stage.after, where, f"link {number}-{number + 1}")


def _exposed(stage: StageTimes, *, overlap: bool) -> Fraction:
    """Return by how much the all-reduce outlasts what the stage does between start and update."""
    hidden = stage.forward if overlap else stage.before + stage.forward + stage.after
    return max(Fraction(0), stage.all_reduce - hidden)


class _Event(IntEnum):
    """What happens once an iteration at a stage; messages are those that it sends.

    Where transfers do not overlap, a pass begins with receiving the message that it needs.
    """

    FORWARD = 0
    ACTIVATION_ARRIVED = 1
    BACKWARD = 2
    GRADIENT_ARRIVED = 3


@dataclass(frozen=True)
class _Ticks:
    """Times of a stage in whole ticks; passes include messages where they do not overlap.

    `to_activation` and `to_gradient` last until a pass begins to send its result.
    """

    forward: int
    to_activation: int
    backward: int
    to_gradient: int
    before: int
    after: int
    replay: int
    replayed: int
    all_reduce: int

    @classmethod
    def of(cls, stage: StageTimes, tick: Fraction, *, overlap: bool) -> "_Ticks":
        forward, backward = int(stage.forward / tick), int(stage.backward / tick)
        before, after = int(stage.before / tick), int(stage.after / tick)
        receive, send = (0, 0) if overlap else (before, after)
        return cls(
            forward=receive + forward + send,
            to_activation=receive + forward,
            backward=send + backward + receive,
            to_gradient=send + backward,
            before=before,
            after=after,
            replay=forward,
            replayed=stage.replayed,
            all_reduce=int(stage.all_reduce / tick),
        )


@dataclass(frozen=True, slots=True)
class _Wait:
    """Event `target` of a stage comes `ticks` or more after `source`, `before` iterations ago."""

    source: tuple[int, _Event]
    target: tuple[int, _Event]
    ticks: int
    before: int = 0


def _waiting_for_messages(
    times: Sequence[StageTimes], pattern: int, *, lead: int, overlap: bool, above: Fraction
) -> SteadyStep | None:
    """Return what `pattern` micro-batches take if it is more than `above` seconds."""
    stages = len(times)
    tick = _tick(times)
    ticks = [_Ticks.of(stage, tick, overlap=overlap) for stage in times]

    def number(iteration: int, event: tuple[int, _Event]) -> int:
        return (iteration % pattern * stages + event[0]) * len(_Event) + event[1]

    constraints = [
        Constraint(
            source=number(iteration - wait.before, wait.source),
            target=number(iteration, wait.target),
            ticks=wait.ticks,
            steps=-((iteration - wait.before) // pattern),
        )
        for iteration in range(pattern)
        for wait in _waits(ticks, iteration, lead=lead, overlap=overlap)
    ]
    cycle = slowest_cycle(constraints, pattern * stages * len(_Event), above / tick)
    if cycle is None:
        return None
    visited = [constraint.target // len(_Event) % stages for constraint in cycle.constraints]
    first, last = min(visited), max(visited)
    return SteadyStep(
        cycle.ratio * tick,
        f"messages there and back between stages {first} and {last}",
        f"messages {first}-{last}",
        by_messages=True,
    )


def _tick(times: Sequence[StageTimes]) -> Fraction:
    """Return the largest unit fraction of a second that divides all times."""
    return Fraction(
        1,
        lcm(
            *(
                seconds.denominator
                for stage in times
                for seconds in (
                    stage.forward,
                    stage.backward,
                    stage.before,
                    stage.after,
                    stage.all_reduce,
                )
            )
        ),
    )


def _waits(
    stages: Sequence[_Ticks], iteration: int, *, lead: int, overlap: bool
) -> Iterator[_Wait]:
    """Yield what the events of an iteration wait for, in the order of time."""
    forward, backward = _Event.FORWARD, _Event.BACKWARD
    activation, gradient = _Event.ACTIVATION_ARRIVED, _Event.GRADIENT_ARRIVED
    last = len(stages) - 1
    for k, stage in enumerate(stages):
        yield _Wait((k, backward), (k, forward), stage.backward, 1)
        if overlap and k > 0:
            yield _Wait((k - 1, activation), (k, forward), 0, lead)
        elif k > 0:
            yield _Wait((k - 1, forward), (k, forward), stages[k - 1].to_activation, lead)
        if overlap and k < last:
            yield _Wait((k, forward), (k, activation), stage.to_activation + stage.after)
            yield _Wait((k, activation), (k, activation), stage.after, 1)
    for k in range(last, -1, -1):
        stage = stages[k]
        replay = stage.replay if iteration < stage.replayed else 0
        yield _Wait((k, forward), (k, backward), stage.forward + replay)
        if iteration == 0:
            averaged = stage.backward + stage.all_reduce
            yield _Wait((k, backward), (k, backward), averaged + replay, 1)
        if overlap and k < last:
            yield _Wait((k + 1, gradient), (k, backward), 0)
        elif k < last:
            yield _Wait((k + 1, backward), (k, backward), stages[k + 1].to_gradient)
        if overlap and k > 0:
            yield _Wait((k, backward), (k, gradient), stage.to_gradient + stage.before)
            yield _Wait((k, gradient), (k, gradient), stage.before, 1)
