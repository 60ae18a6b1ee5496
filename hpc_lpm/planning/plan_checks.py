"""Whether a plan is one of a profile's model, and whether its prices follow from the profile."""

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from math import isclose
from pathlib import Path

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profile_file import Profile
from hpc_lpm.schedules.base import CHUNKS
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, SCHEDULES

_NEARLY = 1e-9
"""By which share a price may differ: files of earlier releases may have been rounded elsewhere."""

_OF_A_STEP = (
    *("schedule", "micro_batches", "lead", "weights"),
    *("optimizer", "recipe", "prediction_rule"),
)
"""The options that say what devices do and hold in a step."""


def _planning(profile: str, plan: Path, *options: str) -> str:
    return shlex.join(["hpc-lpm", "plan", profile, *options, "--out", str(plan)])


def check_plan_of(profile: Profile, plan: Plan) -> None:
    """Check that a plan is one of a profile's model.

    Raises:
        InputError: if model, number of layers or a layer are not the same.
    """
    difference = _difference(profile, plan)
    if difference is not None:
        raise InputError(
            f"the plan is one of another model than the profile: {difference}: make the plan from "
            f"this profile, `hpc-lpm plan PROFILE --stages {plan.devices}`."
        )


def _difference(profile: Profile, plan: Plan) -> str | None:
    names = [layer.name for layer in profile.layers]
    if plan.model != profile.model or plan.cuts[-1] != len(names):
        return (
            f"it is one of {plan.model} with {plan.cuts[-1]} layers, the profile one of "
            f"{profile.model} with {len(names)}"
        )
    difference = first_other_name([layer.name for layer in plan.layers], names)
    if difference is not None:
        return difference
    for index, (planned, layer) in enumerate(zip(plan.layers, profile.layers, strict=False)):
        known = planned.fingerprint is not None and layer.fingerprint is not None
        if known and planned.fingerprint != layer.fingerprint:
            return other_contents(index, layer.name)
    return None


def first_other_name(planned: Sequence[str], names: Sequence[str]) -> str | None:
    """Return in words where the names differ; None if they do not, or the plan has none."""
    for index, (theirs, ours) in enumerate(zip(planned, names, strict=False)):
        if theirs != ours:
            return f"its layer {index} is {theirs} where the model has {ours}"
    return None


def other_contents(index: int, name: str) -> str:
    """Return in words that a layer of the plan is another than that of its name."""
    return f"its layer {index} ({name}) has other parameters or buffers than the model's"


def schedule_name(plan: Plan) -> str:
    """Return the name of the schedule that a plan was made for."""
    return str(plan.options.get("schedule", DEFAULT_SCHEDULE))


def only_the_plan_names(schedule: str) -> bool:
    """Tell if a plan's schedule is code of a module that nobody else has named."""
    return ":" in schedule and not SCHEDULES.is_known(schedule)


def check_schedule_is_known(plan: Plan, where: Path | str, asked: object = None) -> None:
    """Check that using a plan runs no code that the plan alone names.

    Args:
        plan: the plan.
        where: its file, for messages.
        asked: the schedule that the user has named, if any, which is used instead of the plan's.

    Raises:
        InputError: if its schedule is `module:name` and nobody else has named that.
    """
    named = schedule_name(plan)
    if named != asked and only_the_plan_names(named):
        raise InputError(
            f"plan {where} is for the schedule {named!r}, and what a file names is not run: look "
            f"at that module, and name it yourself with --strategy {shlex.quote(named)} (in a "
            "script, strategy=)."
        )


def check_prices(plan: Plan, where: Path, profile: Profile, profile_path: Path) -> None:
    """Check that a plan's prices follow from its profile; with another profile, check nothing.

    Args:
        plan: the plan.
        where: its file, for messages.
        profile: the profile as it is in its file.
        profile_path: its file.

    Raises:
        InputError: naming the first price that does not follow.
    """
    digest = hashlib.sha256(profile_path.read_bytes()).hexdigest()
    if digest != plan.profile_sha256:
        return
    options = PlanOptions.checked(**plan.options)
    if plan.link is not None:
        profile = profile.model_copy(update={"link": plan.link})
    model = CostModel(profile, len(plan.stages), options)
    again = price_plan(model, plan.cuts, plan.planner, digest)
    for what, found, follows in _prices(plan, again):
        if found is not None and not isclose(found, follows or 0, rel_tol=_NEARLY):
            cuts = ",".join(map(str, plan.cuts[1:-1]))
            split = ("--cuts", cuts) if cuts else ("--stages", "1")
            remake = _planning(str(profile_path), where, *split, *_typed(options))
            raise InputError(
                f"plan {where} has {what} of {found:g} where {follows:g} follows from its profile "
                f"{profile_path}: it was changed after it had been made, so make it anew with "
                f"`{remake}`, or have its cuts searched."
            )


def _typed(options: PlanOptions) -> Iterator[str]:
    """Yield what to type for passes and state like these, where it differs from the usual."""
    usual, chunks = PlanOptions(), (CHUNKS,) if options.scheduled.takes_chunks else ()
    for name in (*_OF_A_STEP, *chunks):
        value = getattr(options, name)
        if value != getattr(usual, name):
            yield from (f"--{name.replace('_', '-')}", str(value))


def _prices(plan: Plan, again: Plan) -> Iterator[tuple[str, float | None, float | None]]:
    """Yield what the two plans say of each price, and what it is in words."""
    for number, (one, other) in enumerate(zip(plan.stages, again.stages, strict=True)):
        for name in (
            "compute_seconds",
            "send_bytes",
            "memory_bytes",
            "parameter_bytes",
            "activation_bytes",
        ):
            yield f"{name} in stage {number}", getattr(one, name), getattr(other, name)
    yield "boundary_bytes", plan.boundary_bytes, again.boundary_bytes
    if plan.link is not None:
        yield "period_seconds", plan.period_seconds, again.period_seconds
