"""What a schedule on merged stages is predicted to do, at its best stages, replicas and lead."""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial

from hpc_lpm.errors import InputError
from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.candidates import Candidate, LeftOut, Reason
from hpc_lpm.planning.devices.refusals import least_bytes
from hpc_lpm.planning.devices.search import LEADS, every_way, step_of
from hpc_lpm.planning.forecast.case import Case
from hpc_lpm.planning.forecast.forecast import Forecast
from hpc_lpm.planning.options import TRIED_CHUNKS, PlanOptions
from hpc_lpm.recipes import NO_RECIPE
from hpc_lpm.schedules.base import CHUNKS, LEAD
from hpc_lpm.schedules.registry import schedule_named

RECIPE = "recipe"

FEWEST_STAGES = 2
"""A model in one stage is data parallelism alone, which other strategies are for."""


def forecast_pipeline(
    case: Case, asked: Mapping[str, object], taken: frozenset[str]
) -> list[Forecast]:
    """Return all ways to train by a schedule on a case's devices, best first.

    Every number of stages that divides the devices is tried with as many replicas, at every
    profiled micro-batch, and at the leads or the chunks that the schedule takes; where weights lag,
    with the case's recipe and without.

    Args:
        case: what is trained, on what.
        asked: options of the plans by name; `schedule` is among them.
        taken: the names of the options that the strategy takes: what is fixed by the strategy, such
            as a `lead` or that there is no `recipe`, is not searched.

    Raises:
        InputError: if there is no way; the sentence says why.
    """
    fixed = {name: value for name, value in asked.items() if name != LEAD}
    lead = asked.get(LEAD, 1)
    leads = LEADS if LEAD in taken or not isinstance(lead, int) else (lead,)
    options = PlanOptions.checked(**{**case.options.model_dump(), **fixed})
    schedule = schedule_named(options.schedule)
    ways = [options.model_copy(update={"recipe": NO_RECIPE})]
    if not schedule.flushes and options.recipe != NO_RECIPE and RECIPE in taken:
        ways.insert(0, options)
    if schedule.takes_chunks and CHUNKS in taken:
        ways = [way.model_copy(update={CHUNKS: each}) for way in ways for each in TRIED_CHUNKS]
    blocks = {profile.micro_batch: Blocks.of(profile) for profile in case.profiles}
    candidates, left_out = every_way(
        [each.merged for each in blocks.values()],
        case.devices,
        case.batch_size,
        ways,
        leads,
        measured=case.measured,
        wiring=case.wired,
        fewest_stages=FEWEST_STAGES,
    )
    if not candidates:
        raise InputError(_why_none(case, left_out))
    found = [_forecast(case, each, blocks[each.micro_batch], taken) for each in candidates]
    return sorted(found, key=lambda forecast: forecast.merit)


def _step_on(candidate: Candidate, case: Case) -> Fraction:
    """Return what a step of a candidate takes with its cuts on the links of another case."""
    model = candidate.model
    wired, links = case.wired(case.profile_at(candidate.micro_batch), candidate.stages)
    profile = model.profile.model_copy(update={"link": wired.link})
    options = model.options.model_copy(update={"links": links})
    return step_of(CostModel(profile, model.stages, options), candidate.cuts).seconds


def _forecast(case: Case, candidate: Candidate, blocks: Blocks, taken: frozenset[str]) -> Forecast:
    model, options = candidate.model, candidate.model.options
    messages = options.micro_batches * options.replicas
    averaged = 2 * (options.replicas - 1) * model.parameter_sums[-1]
    own = {name: getattr(options, name) for name in model.schedule.own_options}
    if not model.schedule.flushes:
        own[RECIPE] = options.recipe
    if model.schedule.takes_chunks:
        own[CHUNKS] = model.schedule.chunks
    return Forecast(
        way=options.schedule,
        stages=candidate.stages,
        replicas=candidate.replicas,
        micro_batches=options.micro_batches,
        micro_batch=candidate.micro_batch,
        step_seconds=candidate.step.seconds,
        bound=candidate.step.bound,
        memory_bytes=candidate.memory_bytes,
        sent_bytes=2 * messages * model.bytes_between_devices(candidate.cuts) + averaged,
        samples=case.batch_size,
        lag=candidate.lag,
        expected=candidate.expected,
        options={name: value for name, value in own.items() if name in taken},
        cuts=blocks.in_layers(candidate.cuts),
        step_on=partial(_step_on, candidate),
    )


def _why_none(case: Case, left_out: Sequence[LeftOut]) -> str:
    """Say why there is no way, in words for one strategy."""
    beyond = [item.model for item in left_out if item.model is not None]
    if beyond:
        least = min(beyond, key=least_bytes)
        return (
            f"it needs {least_bytes(least):,} bytes on a device at {least.stages} stages x "
            f"{least.options.replicas} replicas, above the limit of {case.memory_limit:,}"
        )
    if not left_out:
        return f"{case.devices} devices are no multiple of a number of stages from 2"
    reasons = Counter(item.reason for item in left_out)
    if set(reasons) == {Reason.LAYERS}:
        layers = max(len(Blocks.of(profile).merged.layers) for profile in case.profiles)
        return (
            f"the {layers} layers between which it may be cut are fewer than the stages that "
            f"{case.devices} devices can have"
        )
    return ", ".join(f"{reason.value} ({count} ways)" for reason, count in reasons.items())
