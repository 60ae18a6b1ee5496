"""`hpc_lpm.plan`: the plan of `hpc-lpm plan`, made in a script."""

from collections.abc import Sequence
from pathlib import Path

from hpc_lpm.errors import InputError
from hpc_lpm.keyword_errors import options_as_keywords
from hpc_lpm.planning.devices.candidates import THROUGHPUT, Objective
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.request import PlanRequest, ProfileAndHash
from hpc_lpm.prediction_rules import PredictionRule
from hpc_lpm.profile_file import Profile
from hpc_lpm.recipes import NO_RECIPE


def plan(
    profile: Profile | Sequence[Profile],
    *,
    stages: int | None = None,
    devices: int | None = None,
    global_batch: int | None = None,
    cuts: str | Sequence[int | str] | None = None,
    cut_only_at: str | Sequence[str] | None = None,
    planner: str | None = None,
    schedule: str | None = None,
    chunks: int | None = None,
    tolerance: float = 0.02,
    memory_limit: int | str | Sequence[int | str] | None = None,
    lead: int | None = None,
    micro_batches: int | None = None,
    weights: str | None = None,
    optimizer: str = "momentum",
    prediction_rule: PredictionRule | None = None,
    recipe: str = NO_RECIPE,
    objective: Objective = THROUGHPUT,
    efficiency: Path | str | None = None,
    overlap: bool | None = None,
    speeds: str | Sequence[float] | None = None,
    latency: str | float | None = None,
    bandwidth: float | None = None,
    links: str | Sequence[str] | None = None,
    node_link: str | None = None,
    devices_per_node: int | None = None,
) -> Plan:
    """Merge neighbouring layers of a profiled model into stages, and predict what they cost.

    The plan is the very one that `hpc-lpm plan` writes for the profile's file and the same options.
    Lists may also be texts in which commas separate the entries, as the command takes them.

    Args:
        profile: The profile; with `devices` one or more, of different micro-batches.
        stages: Stages to merge the layers into, one for each rank.
        devices: Devices to share among stages and their replicas, instead of `stages`.
        global_batch: Samples of an optimizer step on all `devices`.
        cuts: Your own split instead of a planner's: positions (how many layers are in front of the
            cut), or names of layers or modules to cut behind.
        cut_only_at: Cut behind these layers or modules alone: names, patterns in which `*` stands
            for anything up to a dot and `**` for any parts, or `type:CLASS`.
        planner: A planner's name, or `module:name` of your own; by default `lpm`, which finds the
            best plan there is.
        schedule: The schedule to price the plan for, or `module:name` of your own: by default
            `fbp`; with `devices` and `"time-to-target"` a flush is tried too.
        chunks: Parts of the model on each device, where the schedule places several there.
        tolerance: Share of the period to give up for fewer bytes between stages.
        memory_limit: Memory of a stage in bytes or as `"4GiB"`: one size, or one for each stage.
        lead: Micro-batches that each stage runs ahead of the next, where the schedule takes a lead:
            by default 1, or searched with `devices`.
        micro_batches: Micro-batches of an optimizer step: by default 4, or searched with `devices`.
        weights: What is done about weights that lag, where the schedule lets them: `"live"`,
            which is the default, `"replay"`, `"stash"` or `"double-buffer"` (two versions at every
            stage); searched for `"time-to-target"`.
        optimizer: Whose state each device holds, as training takes it: `"momentum"`, `"AdamW"`,
            `"nadam"` or `"module:name"`; or `"other"` for two copies of the weights.
        prediction_rule: The rule by which lagged weights are predicted, whose copies each device
            holds; by default none.
        recipe: The corrections for lagged weights, by which it is told what a step is worth
            and whose copies each device holds: `"none"`, `"auto"`, or the name of one.
        objective: With `devices`, what to look for: `"throughput"` or `"time-to-target"`.
        efficiency: A CSV file of your own measurements of what lags cost, instead of the toolkit's.
        overlap: Whether transfers hide behind compute; by default the profile says.
        speeds: Speed of every stage's device, relative to the profiled one.
        latency: Latency of the link in seconds or as `"50us"`, instead of the profile's.
        bandwidth: Bandwidth of the link in bytes per second, instead of the profile's.
        links: `"LATENCY:BANDWIDTH"` for each boundary between stages, or `"measured"` for those
            between the ranks that profiled.
        node_link: `"LATENCY:BANDWIDTH"` between nodes; the profile's is that inside.
        devices_per_node: Neighbouring stages that share a node, with `node_link`.

    Returns:
        The plan; its `cuts` are the positions at which stages begin and end.

    Raises:
        InputError: If an option is not accepted, two exclude each other, or no plan is feasible;
            the sentence says what is accepted, or what would be feasible.
    """
    profiles = [profile] if isinstance(profile, Profile) else list(profile)
    for found in profiles:
        if not isinstance(found, Profile):
            raise InputError(
                f"the profile is of type {type(found).__name__}, accepted is what hpc_lpm.profile "
                "returns: read one from a file with hpc_lpm.Profile.read."
            )
    if not profiles:
        raise InputError("no profile is given, accepted is at least one: see hpc_lpm.profile.")
    counts = {
        "stages": stages,
        "devices": devices,
        "global_batch": global_batch,
        "chunks": chunks,
        "devices_per_node": devices_per_node,
    }
    for name, count in counts.items():
        if count is not None and not hasattr(count, "__index__"):
            raise InputError(f"{name} is {count!r}, accepted are whole numbers from 1, such as 2.")
    with options_as_keywords():
        request = PlanRequest.of(
            [ProfileAndHash.of(one) for one in profiles],
            stages=stages,
            devices=devices,
            global_batch=global_batch,
            cuts=cuts,
            cut_only_at=cut_only_at,
            planner=planner,
            schedule=schedule,
            chunks=chunks,
            tolerance=tolerance,
            memory_limit=memory_limit,
            lead=lead,
            micro_batches=micro_batches,
            weights=weights,
            optimizer=optimizer,
            prediction_rule=prediction_rule,
            recipe=recipe,
            objective=objective,
            efficiency=efficiency,
            overlap=overlap,
            speeds=speeds,
            latency=latency,
            bandwidth=bandwidth,
            links=links,
            node_link=node_link,
            devices_per_node=devices_per_node,
        )
        return request.answer().plan
