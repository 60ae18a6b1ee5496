"""The errors of a search over devices: requests it refuses, and searches that find nothing."""

from collections.abc import Sequence

from hpc_lpm.errors import InputError
from hpc_lpm.options import DOUBLE_BUFFER
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.candidates import Candidate, LeftOut, Reason
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.search.alternatives import least_memory_limit
from hpc_lpm.profile_file import Profile
from hpc_lpm.schedules.registry import SCHEDULES, schedule_named


def check_request(
    profiles: Sequence[Profile], devices: int, global_batch: int, options: PlanOptions
) -> None:
    """Check the request for a search among schedules and weight policies.

    Raises:
        InputError: as `check_case`; if weights are double-buffered.
    """
    if options.weights == DOUBLE_BUFFER:
        raise InputError(
            "--weights is double-buffer, which is what strategy pipedream-2bw does and no schedule "
            "that --devices compares takes: leave it out, ask for --stages, or weigh that strategy "
            "with `hpc-lpm advise`."
        )
    check_case(profiles, devices, global_batch, options)


def check_case(
    profiles: Sequence[Profile], devices: int, global_batch: int, options: PlanOptions
) -> None:
    """Check what is to be trained on which devices.

    Raises:
        InputError: if a number is below 1, an option has one entry for each stage, or the profiles
            are not those of one model with different micro-batches.
    """
    for name, number in (("--devices", devices), ("--global-batch", global_batch)):
        if number < 1:
            raise InputError(
                f"{name} is {number}, accepted are whole numbers above 0: give one of these."
            )
    listed = {
        "--speeds": options.speeds is not None,
        "--memory-limit": isinstance(options.memory_limit, tuple),
    }
    for name, given in listed.items():
        if given:
            raise InputError(
                f"{name} has one entry per stage, but --devices searches the number of stages: "
                "leave the list out, or ask for --stages."
            )
    _check_profiles(profiles)


def check_alternates(options: PlanOptions) -> None:
    """Refuse a schedule whose steps are not known in closed form.

    Raises:
        InputError: if it is one.
    """
    if not schedule_named(options.schedule).alternates:
        known = [name for name, schedule in SCHEDULES.items() if schedule.alternates]
        raise InputError(
            f"--schedule is {options.schedule}, but --devices compares the times of steps, which "
            f"are known in closed form for {', '.join(known)} alone: use that schedule, or plan "
            "with --stages and compare with `hpc-lpm simulate`."
        )


def check_steps_are_known(options: PlanOptions) -> None:
    """Refuse a schedule whose steps are neither known in closed form nor found by playing one.

    Raises:
        InputError: if it is one.
    """
    schedule = schedule_named(options.schedule)
    if not (schedule.alternates or schedule.flushes):
        raise InputError(
            f"--schedule is {options.schedule}, which neither alternates nor flushes, so that "
            "--devices cannot tell what a step takes: use another schedule, or plan with --stages "
            "and compare with `hpc-lpm simulate`."
        )


def _check_profiles(profiles: Sequence[Profile]) -> None:
    first = profiles[0]
    sizes: set[int] = set()
    for profile in profiles:
        if (profile.model, len(profile.layers)) != (first.model, len(first.layers)):
            raise InputError(
                f"one profile is of {first.model} with {len(first.layers)} layers, another of "
                f"{profile.model} with {len(profile.layers)}: give profiles of one model that "
                "differ in their micro-batch."
            )
        if profile.micro_batch in sizes:
            raise InputError(
                f"two profiles have a micro-batch of {profile.micro_batch} samples: give one "
                "for each size."
            )
        sizes.add(profile.micro_batch)


def no_candidate(
    profiles: Sequence[Profile],
    devices: int,
    global_batch: int,
    options: PlanOptions,
    left_out: Sequence[LeftOut],
) -> InputError:
    """Return the error for a search that has left out every combination.

    It names the combination that needs the least memory, or the next global batch that would do.
    """
    if all(item.reason is Reason.LAYERS for item in left_out):
        return _too_few_layers(profiles[0], options)
    beyond = [item.model for item in left_out if item.model is not None]
    others = [item for item in left_out if item.reason is Reason.MICRO_BATCHES]
    if not beyond and others:
        possible = sorted({global_batch // (one.micro_batch * one.replicas) for one in others})
        return InputError(
            "--micro-batches is another number than follows from --global-batch, the micro-batch "
            f"of a profile and the replicas: accepted are {', '.join(map(str, possible))}, or "
            "leave it out to have all of them tried."
        )
    if not beyond:
        return _not_divisible(profiles, devices, global_batch, left_out)
    least = min(beyond, key=least_bytes)
    return InputError(
        f"no combination of stages and replicas on {devices} devices is within the memory limit "
        f"of {options.memory_limit:,} bytes: what needs least is {least.stages} stages x "
        f"{least.options.replicas} replicas with lead {least.options.lead} and micro-batches of "
        f"{least.profile.micro_batch} samples, {least_bytes(least):,} bytes per device; raise the "
        "limit, or give more devices or a profile of a smaller micro-batch."
    )


def nothing_known(candidates: Sequence[Candidate], devices: int) -> InputError:
    """Return the error for candidates of which none has a step of known worth."""
    return InputError(
        f"--objective is time-to-target, but what a step is worth is unknown for all "
        f"{len(candidates)} ways to use {devices} devices ({candidates[0].expected.worth.reason}): "
        "give measurements of your own with --efficiency, leave --schedule out so that a flush may "
        "be chosen, or leave --objective out."
    )


def _too_few_layers(profile: Profile, options: PlanOptions) -> InputError:
    """Return the error for a schedule that places more stages on one device than there are."""
    schedule, layers = options.scheduled, len(profile.layers)
    fewer = "ask for fewer --chunks, or " if schedule.takes_chunks else ""
    return InputError(
        f"--schedule is {options.schedule}, which places {schedule.chunks} stages on each device, "
        f"but {profile.model} has {layers} layer{'s' * (layers > 1)} that may be cut apart: "
        f"{fewer}use another schedule."
    )


def _not_divisible(
    profiles: Sequence[Profile],
    devices: int,
    global_batch: int,
    left_out: Sequence[LeftOut],
) -> InputError:
    steps = sorted(
        {item.micro_batch * item.replicas for item in left_out if item.reason is Reason.BATCH}
    )
    enough = min(-(-global_batch // step) * step for step in steps)
    return InputError(
        f"--global-batch is {global_batch}, but micro-batch x replicas is "
        f"{', '.join(map(str, steps))} for the ways to use {devices} devices for "
        f"{len(profiles[0].layers)} layers, and accepted is a multiple of one of these: "
        f"{enough} would do."
    )


def least_bytes(model: CostModel) -> int:
    """Return the least memory limit at which there is a plan."""
    options = model.options.model_copy(update={"memory_limit": None})
    return least_memory_limit(CostModel(model.profile, model.stages, options))
