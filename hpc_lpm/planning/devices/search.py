"""Search for the stages and replicas that train fastest on a number of devices.

Every number of stages K that divides the D devices is tried, with R = D / K replicas of every
stage; K = 1 is data parallelism alone. With profiles of several micro-batch sizes each is tried
that the global batch B allows: a step has M = B / (R x micro-batch) micro-batches a replica. The
lead is tried from 1 upwards, as long as stages wait for messages (`steady_step`) and memory allows:
where they do not wait, a larger one only holds and replays more. Cuts are those of planner `lpm`.
The schedule has to be one that alternates, since steps of others are not known in closed form.

The best candidate has the shortest step; of equally short ones the smallest lead, then the fewest
stages, then the fewest micro-batches. Everything is compared exactly.
"""

from collections.abc import Iterator, Sequence

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.candidates import Candidate, DeviceSearch, LeftOut, Reason
from hpc_lpm.planning.devices.refusals import check_request, no_candidate
from hpc_lpm.planning.devices.steady_state import steady_step
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.lpm import optimal_cuts
from hpc_lpm.planning.search.cheapest import cheapest_within
from hpc_lpm.planning.search.reach import Limits
from hpc_lpm.profile_file import Profile
from hpc_lpm.schedules.base import LEAD
from hpc_lpm.schedules.registry import schedule_named

LEADS = range(1, 9)


def search_devices(
    profiles: Sequence[Profile],
    devices: int,
    global_batch: int,
    options: PlanOptions,
    leads: Sequence[int] = LEADS,
) -> DeviceSearch:
    """Return all ways to train `global_batch` samples per step on `devices` devices, best first.

    Args:
        profiles: one or more, of one model with different micro-batches.
        devices: how many there are.
        global_batch: the samples of an optimizer step over all of them.
        options: micro-batches, lead, replicas and global batch are set here, the others hold for
            all candidates.
        leads: those to try, ascending, where the schedule takes a lead.

    Raises:
        InputError: if the profiles do not belong together, an option has one entry for each stage,
            the schedule does not alternate, or no combination is left; the sentence says why.
    """
    check_request(profiles, devices, global_batch, options)
    tried = leads if LEAD in schedule_named(options.schedule).own_options else leads[:1]
    found = [
        entry
        for profile in profiles
        for stages in range(1, devices + 1)
        if devices % stages == 0
        for entry in _try(profile, stages, devices // stages, global_batch, options, tried)
    ]
    candidates = [entry for entry in found if isinstance(entry, Candidate)]
    left_out = tuple(entry for entry in found if isinstance(entry, LeftOut))
    if not candidates:
        raise no_candidate(profiles, devices, global_batch, options, left_out)
    candidates.sort(key=lambda candidate: candidate.merit)
    return DeviceSearch(devices, global_batch, tuple(candidates), left_out)


def _try(
    profile: Profile,
    stages: int,
    replicas: int,
    global_batch: int,
    options: PlanOptions,
    leads: Sequence[int],
) -> Iterator[Candidate | LeftOut]:
    micro_batches, samples_left = divmod(global_batch, profile.micro_batch * replicas)
    if stages > len(profile.layers):
        yield LeftOut(stages, replicas, profile.micro_batch, Reason.LAYERS)
        return
    if samples_left:
        yield LeftOut(stages, replicas, profile.micro_batch, Reason.BATCH)
        return
    for lead in leads:
        update = {
            "micro_batches": micro_batches,
            "lead": lead,
            "replicas": replicas,
            "global_batch": global_batch,
        }
        model = CostModel(profile, stages, options.model_copy(update=update))
        if cheapest_within(model, Limits(period=None)).cuts is None:
            yield LeftOut(stages, replicas, profile.micro_batch, Reason.MEMORY, model)
            return
        cuts = optimal_cuts(model)
        step = steady_step(model, cuts)
        yield Candidate(model, cuts, step)
        if not step.by_messages:
            return
