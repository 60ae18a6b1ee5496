"""Explain a plan: its bottleneck, its speedup over one device, and how far it could go."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.round_trips import round_trip_period, sufficient_lead
from hpc_lpm.planning.search.alternatives import fewest_stages
from hpc_lpm.schedules.base import LEAD

_NEARLY = Fraction(1, 20)
_HARDLY = Fraction(1, 100)


@dataclass(frozen=True)
class ExplainedStage:
    """One stage of a plan in words and shares.

    `transfer_seconds` is the time of one message to the next stage, 0 for the last stage and where
    the same device holds the next one. `load` is the share of the period in which the stage is
    busy: computing, and also sending and receiving where transfers do not overlap.
    """

    first_layer: str
    last_layer: str
    transfer_seconds: float
    memory_limit_bytes: int | None
    load: float


@dataclass(frozen=True)
class Explanation:
    """Why a plan is as fast as it is.

    `speedup` compares with the fastest device alone, without a pipeline, and counts all replicas.
    No plan with as many stages exceeds `speedup_bound`, which follows from the sum of the devices'
    speeds or from the coarsest layer; `coarsest_layer_bounds` says that it is the layer.

    `dominant_layer` names a layer that alone takes as long as the period (up to the plan's
    tolerance, at most a twentieth), where finer layers could be balanced better. Where there is
    one, or where a link sets the period, `enough_stages` is the least number of stages below the
    plan's that would reach the same period. `stretch` is the share by which messages under way
    lengthen the period with the plan's lead; None where the cost model does not cover that for the
    plan's schedule. `sufficient_lead` is the least lead that hides the messages; None where the
    plan's own lead does, up to its tolerance or a hundredth, where the schedule takes no lead, and
    where the weight policy keeps too few versions of the weights for one that does.
    `hints` say what a user can do about all this, and `not_covered` which effects of the schedule
    the cost model leaves out.
    """

    bottleneck: str
    speedup: float
    speedup_bound: float
    coarsest_layer: str
    coarsest_layer_bounds: bool
    stages: tuple[ExplainedStage, ...]
    dominant_layer: str | None
    enough_stages: int | None
    stretch: float | None
    sufficient_lead: int | None
    hints: tuple[str, ...]
    not_covered: tuple[str, ...]


@dataclass(frozen=True)
class _Bottleneck:
    """The stage that sets the period; `by_link` says that transfers take more of it than passes."""

    stage: int
    by_link: bool
    description: str


@dataclass(frozen=True)
class _Dominant:
    """A layer, its stage, and the share of the period that its passes take there."""

    stage: int
    layer: int
    share: float


def explain(model: CostModel, cuts: Sequence[int]) -> Explanation:
    """Explain the plan with these K+1 cut positions."""
    layers = model.profile.layers
    speeds = [Fraction(each) for each in model.options.speeds or (1.0,) * model.placement.devices]
    seconds = [
        Fraction(layer.forward_seconds) + Fraction(layer.backward_seconds) for layer in layers
    ]
    coarsest = max(range(len(layers)), key=lambda index: seconds[index])
    alone = sum(seconds, Fraction(0)) / max(speeds)
    by_devices = sum(seconds, Fraction(0)) / sum(speeds)
    by_layer = seconds[coarsest] / max(speeds)
    replicas = model.options.replicas
    period = model.device_period(cuts)
    bottleneck = _bottleneck(model, cuts, period)
    improvable = period > by_devices
    by_link = improvable and bottleneck.by_link
    # Where a device holds several stages, another one may make up for a coarse layer.
    alone_on_device = model.placement.chunks == 1
    searchable = improvable and not by_link and alone_on_device
    dominant = _dominant(model, cuts, period) if searchable else None
    bounded = (by_link and alone_on_device) or dominant is not None
    enough_stages = fewest_stages(model, period) if bounded else None
    stretch = _stretch(model, cuts, period) if model.schedule.alternates else None
    lead = None
    hints = [_bound_hint(model, cuts, dominant, enough_stages)] if bounded else []
    if (
        stretch is not None
        and stretch > max(Fraction(model.options.tolerance), _HARDLY)
        and LEAD in model.schedule.own_options
    ):
        lead = sufficient_lead(model, cuts)
        hints.append(_lead_hint(model, stretch, lead))
    return Explanation(
        bottleneck=bottleneck.description,
        speedup=replicas * _ratio(alone, period),
        speedup_bound=replicas * _ratio(alone, max(by_devices, by_layer)),
        coarsest_layer=layers[coarsest].name,
        coarsest_layer_bounds=by_layer > by_devices,
        stages=tuple(
            _explained(model, stage, start, stop, period)
            for stage, (start, stop) in enumerate(pairwise(cuts))
        ),
        dominant_layer=None if dominant is None else layers[dominant.layer].name,
        enough_stages=enough_stages,
        stretch=None if stretch is None else float(stretch),
        sufficient_lead=lead,
        hints=tuple(hints),
        not_covered=not_covered(model),
    )


def explain_in_layers(model: CostModel, cuts: Sequence[int], blocks: Blocks) -> Explanation:
    """Explain a plan whose cuts were restricted: no other allowed cuts go further than it says.

    `model` and `cuts` are of the layers; those that may not be cut apart count as one layer, except
    in the names of the stages' first and last layers.
    """
    merged = CostModel(blocks.merged, model.stages, model.options)
    explanation = explain(merged, blocks.in_blocks(cuts))
    layers = model.profile.layers
    stages = tuple(
        replace(stage, first_layer=layers[start].name, last_layer=layers[stop - 1].name)
        for stage, (start, stop) in zip(explanation.stages, pairwise(cuts), strict=True)
    )
    return replace(explanation, stages=stages)


def not_covered(model: CostModel) -> tuple[str, ...]:
    """Return what of the model's schedule the period leaves out, each in a sentence."""
    return (*_waits_left_out(model), *_halves_left_out(model))


def _waits_left_out(model: CostModel) -> tuple[str, ...]:
    name = model.schedule.name
    if model.schedule.flushes:
        return (
            f"schedule {name} empties the pipeline before every update: what its stages wait for "
            "then is not in the period, `hpc-lpm simulate` counts it.",
        )
    if not model.schedule.alternates:
        return (
            f"schedule {name} has an order of its own: what its stages wait for messages is not in "
            "the period, `hpc-lpm simulate` counts it.",
        )
    return ()


def _halves_left_out(model: CostModel) -> tuple[str, ...]:
    parted = any(
        layer.split_backward_seconds is not None
        and layer.split_backward_seconds > layer.backward_seconds
        for layer in model.profile.layers
    )
    if not (model.schedule.splits_backward and parted):
        return ()
    return (
        f"schedule {model.schedule.name} runs the halves of backwards apart: what they take longer "
        "than a backward in one is not in the period, `hpc-lpm simulate` counts it.",
    )


def _explained(
    model: CostModel, stage: int, start: int, stop: int, period: Fraction
) -> ExplainedStage:
    layers = model.profile.layers
    before, after = model.link_seconds(stage - 1, start), model.link_seconds(stage, stop)
    busy = model.compute_seconds(stage, start, stop)
    if not model.overlap:
        busy += 2 * before + 2 * after
    return ExplainedStage(
        first_layer=layers[start].name,
        last_layer=layers[stop - 1].name,
        transfer_seconds=float(after),
        memory_limit_bytes=model.factors[stage].memory_limit_bytes,
        load=float(busy / period) if period else 0.0,
    )


def _bottleneck(model: CostModel, cuts: Sequence[int], period: Fraction) -> _Bottleneck:
    if model.placement.chunks > 1:
        return _fullest_device(model, cuts, period)
    for stage, (start, stop) in enumerate(pairwise(cuts)):
        compute = model.compute_seconds(stage, start, stop)
        if compute == period:
            return _Bottleneck(stage, False, f"the compute of stage {stage}")
        if model.overlap and model.transfer_seconds(stage, stop) == period:
            between = f"the transfer between stages {stage} and {stage + 1}"
            return _Bottleneck(stage, True, between)
        if not model.overlap and model.stage_period(stage, start, stop) == period:
            both = f"compute and transfers of stage {stage}"
            return _Bottleneck(stage, period > 2 * compute, both)
    raise ValueError("no stage of these cuts takes as long as the period")


def _fullest_device(model: CostModel, cuts: Sequence[int], period: Fraction) -> _Bottleneck:
    """Return the device that takes as long as the period with all its chunks, or the links."""
    for device, (seconds, stages) in enumerate(
        zip(model.device_seconds(cuts), model.placement.held, strict=True)
    ):
        if seconds == period:
            chunks = " and ".join(map(str, stages))
            return _Bottleneck(stages[0], False, f"the compute of device {device}, stages {chunks}")
    return _Bottleneck(0, True, "the transfers between devices")


def _dominant(model: CostModel, cuts: Sequence[int], period: Fraction) -> _Dominant | None:
    """Return the slowest layer, or None where the period exceeds its time by more than tolerated.

    Within the tolerance, other cuts would gain no more than the planner was free to give up; a
    large tolerance says little, so a twentieth is the most that counts. A layer that has a stage to
    itself takes as long as the stage, including transfers that do not overlap.
    """

    def seconds_of(stage: int, layer: int) -> Fraction:
        if not model.overlap and cuts[stage + 1] == cuts[stage] + 1:
            return model.stage_period(stage, layer, layer + 1)
        return model.compute_seconds(stage, layer, layer + 1)

    seconds, stage, layer = max(
        (seconds_of(stage, layer), -stage, -layer)
        for stage, (start, stop) in enumerate(pairwise(cuts))
        for layer in range(start, stop)
    )
    if (1 + min(Fraction(model.options.tolerance), _NEARLY)) * seconds < period:
        return None
    return _Dominant(-stage, -layer, _ratio(seconds, period))


def _stretch(model: CostModel, cuts: Sequence[int], period: Fraction) -> Fraction:
    """Return by which share of the period round trips take longer than the period."""
    if not model.overlap or not period:
        return Fraction(0)
    return max(round_trip_period(model, cuts) / period - 1, Fraction(0))


def _bound_hint(
    model: CostModel, cuts: Sequence[int], dominant: _Dominant | None, enough_stages: int | None
) -> str:
    if dominant is None:
        advice = (
            "the link is the bottleneck: a faster one would shorten the period, as would layers "
            "with smaller outputs to cut behind"
        )
    else:
        stage, name = dominant.stage, model.profile.layers[dominant.layer].name
        if cuts[stage + 1] == cuts[stage] + 1:
            advice = f"stage {stage} holds {name} alone"
        else:
            advice = f"{name} in stage {stage} alone takes {dominant.share:.0%} of the period"
        advice += ": split that layer or give it a faster device to go further"
    if enough_stages is None:
        return f"{advice}."
    many = "1 stage" if enough_stages == 1 else f"{enough_stages} stages"
    return f"{advice}; {many} would do as well."


def _lead_hint(model: CostModel, stretch: Fraction, lead: int | None) -> str:
    options = model.options
    stretched = (
        f"messages on their way stretch the period by {float(stretch):.0%} with lead {options.lead}"
    )
    if lead is not None:
        return f"{stretched}: --lead {lead} hides them and holds more activations."
    return (
        f"{stretched}: a larger lead would hide them, but uses more versions of the weights than "
        f"--weights {options.weights} keeps; use more micro-batches, or --weights stash."
    )


def _ratio(numerator: Fraction, denominator: Fraction) -> float:
    return float(numerator / denominator) if denominator else 1.0
