"""What a plan's cuts cost where they are used otherwise than the plan was made for."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path

from hpc_lpm.errors import InputError
from hpc_lpm.planning.memory import MemoryFactors, further_state_bytes, matrix_bytes
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.plan_checks import only_the_plan_names, schedule_name
from hpc_lpm.profile_file import Profile
from hpc_lpm.schedules.base import LEAD, WEIGHTS
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, schedule_named


@dataclass(frozen=True)
class PlanUse:
    """A plan's cuts as they are about to be used.

    Attributes:
        options: those of the plan, with what is asked for instead.
        memory_bytes: Q of every stage in that use; None where the plan does not record enough.
        notice: one sentence for the user, None where the plan was made for just this use.
    """

    options: PlanOptions
    memory_bytes: tuple[int, ...] | None
    notice: str | None


def plan_for(
    plan: Plan,
    where: Path,
    *,
    profile: Profile | None = None,
    micro_batch: int | None = None,
    **asked: object,
) -> PlanUse:
    """Price the memory of a plan's cuts for another use; the plan stays as it is.

    Args:
        plan: whose cuts are to be used.
        where: its file, for messages.
        profile: the one that the plan was made from; without it the numbers that the plan itself
            records are used.
        micro_batch: the samples of a micro-batch, None for as many as were profiled. Activations
            are taken to grow with them.
        asked: options of `PlanOptions` that may differ from the plan's, such as `schedule`, `lead`,
            `micro_batches`, `weights`, `optimizer` and `replicas`; None leaves what the plan says.

    Raises:
        InputError: if an option is not accepted, or the plan was made with a memory limit that a
            device exceeds in the other use. A plan that was made for this use is not checked.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    own, used = schedule_name(plan), given.get("schedule")
    # A schedule that the plan alone names is not run: another one stands in for it.
    unknown = used != own and only_the_plan_names(own)
    stands_in = {"schedule": used or DEFAULT_SCHEDULE} if unknown else {}
    planned = PlanOptions.checked(**{**plan.options, **stands_in})
    options = PlanOptions.checked(**{**plan.options, **stands_in, **given})
    _check_chunks(plan, where, options)
    profiled = plan.micro_batch if profile is None else profile.micro_batch
    samples = micro_batch or profiled
    predicts = planned.prediction_rule != options.prediction_rule
    made_for = _described(planned, profiled or samples, predicts=predicts)
    if unknown and used is not None:
        made_for["schedule"] = f"schedule {own}"
    used_for = {
        name: words
        for name, words in _described(options, samples, predicts=predicts).items()
        if made_for.get(name) != words
    }
    if not used_for:
        return PlanUse(options, tuple(stage.memory_bytes for stage in plan.stages), None)
    made = _joined([words for name, words in made_for.items() if name in used_for])
    used_now = _joined(list(used_for.values()))
    made_otherwise = f"plan {where} was made for {made}, and is used for {used_now}"
    stage_bytes = _stage_bytes(plan, profile)
    if stage_bytes is None:
        limit = "" if options.memory_limit is None else " and its memory limit is not checked"
        return PlanUse(
            options,
            None,
            f"{made_otherwise}: it records too little to be priced anew{limit}, so make it again "
            "with this release.",
        )
    scale = (samples or 1, profiled or samples or 1)
    memory = _memory_bytes(options, stage_bytes, scale)
    _check_limits(options, memory, where, used_now)
    fullest = max(range(len(memory)), key=lambda stage: memory[stage])
    return PlanUse(
        options,
        memory,
        f"{made_otherwise}: priced anew, its fullest stage, {fullest}, holds "
        f"{memory[fullest]:,} bytes.",
    )


def _check_chunks(plan: Plan, where: Path, options: PlanOptions) -> None:
    """Refuse a schedule that places more or fewer stages on a device than the plan."""
    schedule = schedule_named(options.schedule)
    chunks = options.chunks if schedule.takes_chunks and options.chunks else schedule.chunks
    if chunks != plan.chunks:
        raise InputError(
            f"plan {where} has {plan.chunks} {'stages' if plan.chunks > 1 else 'stage'} for each "
            f"device, schedule {schedule.name} places {chunks} there: make a plan with --schedule "
            f"{schedule.name}, or use it with the one that it was made for."
        )


def _described(options: PlanOptions, micro_batch: int | None, *, predicts: bool) -> dict[str, str]:
    """Return the options that decide on a stage's memory, each in words.

    `predicts` says that how weights are predicted is among them.
    """
    schedule = options.scheduled
    own = schedule.own_options
    words = {
        "schedule": f"schedule {options.schedule}",
        "chunks": f"{schedule.chunks} chunks on each device",
        "micro_batches": f"{options.micro_batches} micro-batches per step",
        "optimizer": f"optimizer {options.optimizer}",
        "replicas": f"{options.replicas} replicas of every stage",
    }
    if LEAD in own:
        words["lead"] = f"lead {options.lead}"
    if WEIGHTS in own:
        words["weights"] = f"weights {options.weights}"
    if predicts:
        rule = options.prediction_rule
        words["prediction_rule"] = f"prediction by {rule}" if rule else "no prediction"
    if micro_batch is not None:
        words["micro_batch"] = f"micro-batches of {micro_batch} samples"
    return words


def _joined(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]


@dataclass(frozen=True)
class _StageBytes:
    """What the layers of a stage hold: parameters, those of them that are matrices, activations."""

    parameters: int
    matrices: int | None
    activations: int


def _stage_bytes(plan: Plan, profile: Profile | None) -> list[_StageBytes] | None:
    """Return what every stage holds, None if the plan does not record it."""
    if profile is not None:
        held = [profile.layers[start:stop] for start, stop in pairwise(plan.cuts)]
        return [
            _StageBytes(
                sum(layer.parameter_bytes for layer in layers),
                matrix_bytes(layers),
                sum(layer.activation_bytes for layer in layers),
            )
            for layers in held
        ]
    recorded = [
        _StageBytes(stage.parameter_bytes, stage.matrix_parameter_bytes, stage.activation_bytes)
        for stage in plan.stages
        if stage.parameter_bytes is not None and stage.activation_bytes is not None
    ]
    return recorded if len(recorded) == len(plan.stages) else None


def _memory_bytes(
    options: PlanOptions, stage_bytes: Sequence[_StageBytes], scale: tuple[int, int]
) -> tuple[int, ...]:
    schedule, stages = options.scheduled, len(stage_bytes)
    samples, profiled = scale
    return tuple(
        MemoryFactors.of_stage(schedule, stage, stages, options).bytes_of(
            held.parameters,
            ceil(held.activations * samples / profiled),
            further_state_bytes(held.parameters, held.matrices, options.optimizer),
        )
        for stage, held in enumerate(stage_bytes)
    )


def _check_limits(options: PlanOptions, memory: Sequence[int], where: Path, used: str) -> None:
    """Refuse a use in which a device, with all stages that it holds, exceeds its memory limit."""
    limits = options.memory_limit
    if limits is None:
        return
    placement = options.scheduled.placement(len(memory))
    allowed = limits if isinstance(limits, tuple) else (limits,) * placement.devices
    place = "in stage" if placement.chunks == 1 else "on device"
    for device, (stages, limit) in enumerate(zip(placement.held, allowed, strict=True)):
        needed = sum(memory[stage] for stage in stages)
        if needed > limit:
            raise InputError(
                f"plan {where} needs {needed:,} bytes {place} {device} for {used}, above the "
                f"memory limit of {limit:,} bytes that it was made with: make a plan with "
                f"`hpc-lpm plan --schedule {options.schedule}` and this limit, or raise the limit."
            )
