"""Search for the stages and replicas that train fastest on a number of devices.

Every number of stages K that divides the D devices is tried, with R = D / K replicas of every
stage; K = 1 is data parallelism alone. With profiles of several micro-batch sizes each is tried
that the global batch B allows: a step has M = B / (R x micro-batch) micro-batches a replica. The
lead is tried from 1 upwards, as long as stages wait for messages (`steady_step`) and memory allows:
where they do not wait, a larger one only holds and replays more. Cuts are those of planner `lpm`.
Steps of a schedule that alternates are known in closed form; those of one that flushes are played.

For throughput the best candidate has the shortest step, and the schedule is one that alternates;
for the time to a target it has the shortest step times the steps that its lag is expected to cost.
Of equally good ones it is that of the smallest lead, then the fewest stages, then the fewest
micro-batches, then the first way to train. Everything is compared exactly.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hpc_lpm.planning.chunks import evened_out
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.candidates import (
    TIME_TO_TARGET,
    Candidate,
    DeviceSearch,
    LeftOut,
    Reason,
)
from hpc_lpm.planning.devices.flushing import flushing_step
from hpc_lpm.planning.devices.refusals import (
    check_alternates,
    check_case,
    check_request,
    check_steps_are_known,
    no_candidate,
    nothing_known,
)
from hpc_lpm.planning.devices.steady_state import SteadyStep, steady_step
from hpc_lpm.planning.memory import is_buffer_enough
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.lpm import optimal_cuts
from hpc_lpm.planning.search.cheapest import cheapest_within
from hpc_lpm.planning.search.reach import Limits
from hpc_lpm.planning.worth.expected import expected_steps
from hpc_lpm.planning.worth.lag import Lag
from hpc_lpm.planning.worth.measured import Measurements, packaged_measurements
from hpc_lpm.profile_file import Link, Profile
from hpc_lpm.schedules.base import LEAD

LEADS = range(1, 9)

Wiring = Callable[[Profile, int], tuple[Profile, tuple[Link, ...] | None]]
"""Returns a profile with the link over which replicas average, and the link of each boundary, for
so many stages; None where all boundaries have the profile's link."""


def search_devices(
    profiles: Sequence[Profile],
    devices: int,
    global_batch: int,
    options: PlanOptions,
    leads: Sequence[int] = LEADS,
    *,
    micro_batches: int | None = None,
    measured: Measurements | None = None,
) -> DeviceSearch:
    """Return all ways to train `global_batch` samples per step on `devices` devices, fastest first.

    Args:
        profiles: one or more, of one model with different micro-batches.
        devices: how many there are.
        global_batch: the samples of an optimizer step over all of them.
        options: micro-batches, lead, replicas and global batch are set here, the others hold for
            all candidates.
        leads: those to try, ascending, where the schedule takes a lead.
        micro_batches: those of a step on a replica, where no others are to be tried.
        measured: what lags cost; by default what comes with the toolkit.

    Raises:
        InputError: if the profiles do not belong together, an option has one entry for each stage,
            the schedule does not alternate, or no combination is left; the sentence says why.
    """
    check_request(profiles, devices, global_batch, options)
    check_alternates(options)
    trial = _Trial(profiles, devices, global_batch, leads, micro_batches, _known(measured))
    candidates, left_out = trial.run([options])
    candidates.sort(key=lambda candidate: candidate.merit)
    return DeviceSearch(devices, global_batch, tuple(candidates), left_out)


def search_for_target(
    profiles: Sequence[Profile],
    devices: int,
    global_batch: int,
    ways: Sequence[PlanOptions],
    leads: Sequence[int] = LEADS,
    *,
    micro_batches: int | None = None,
    measured: Measurements | None = None,
) -> DeviceSearch:
    """Return all ways to train, the one with the least expected time to a target first.

    Candidates whose steps are of unknown worth come last, and none of them is chosen.

    Args:
        profiles: as for `search_devices`, and so are the others.
        devices: likewise.
        global_batch: likewise.
        ways: the options of every way to train that is to be tried: schedules and weight policies.
        leads: likewise.
        micro_batches: likewise.
        measured: likewise.

    Raises:
        InputError: as `search_devices`; if a schedule neither alternates nor flushes, or the worth
            of every candidate's step is unknown.
    """
    for options in ways:
        check_request(profiles, devices, global_batch, options)
        check_steps_are_known(options)
    trial = _Trial(profiles, devices, global_batch, leads, micro_batches, _known(measured))
    candidates, left_out = trial.run(ways)
    candidates.sort(key=lambda candidate: candidate.target_merit)
    if candidates[0].target_seconds is None:
        raise nothing_known(candidates, devices)
    return DeviceSearch(devices, global_batch, tuple(candidates), left_out, TIME_TO_TARGET)


def every_way(
    profiles: Sequence[Profile],
    devices: int,
    global_batch: int,
    ways: Sequence[PlanOptions],
    leads: Sequence[int] = LEADS,
    *,
    measured: Measurements | None = None,
    wiring: Wiring | None = None,
    fewest_stages: int = 1,
) -> tuple[list[Candidate], tuple[LeftOut, ...]]:
    """Return all ways to train as `search_for_target` orders them, and the combinations left out.

    Nothing is refused because it is unknown, and there may be no way at all.

    Args:
        profiles: as for `search_devices`, and so are the others.
        devices: likewise.
        global_batch: likewise.
        ways: as for `search_for_target`.
        leads: likewise.
        measured: likewise.
        wiring: tells the links of so many stages; by default all are the profile's.
        fewest_stages: the least K that is tried.

    Raises:
        InputError: as `search_devices`; if a schedule neither alternates nor flushes.
    """
    for options in ways:
        check_case(profiles, devices, global_batch, options)
        check_steps_are_known(options)
    trial = _Trial(
        profiles, devices, global_batch, leads, None, _known(measured), wiring, fewest_stages
    )
    candidates, left_out = trial.tried(ways)
    candidates.sort(key=lambda candidate: candidate.target_merit)
    return candidates, left_out


def step_of(model: CostModel, cuts: tuple[int, ...]) -> SteadyStep:
    """Return what a step takes with a plan's cuts: in closed form, or simulated under a flush."""
    return (steady_step if model.schedule.alternates else flushing_step)(model, cuts)


def _known(measured: Measurements | None) -> Measurements:
    return packaged_measurements() if measured is None else measured


@dataclass(frozen=True)
class _Trial:
    """Everything that a search tries, whatever it looks for."""

    profiles: Sequence[Profile]
    devices: int
    global_batch: int
    leads: Sequence[int]
    micro_batches: int | None
    measured: Measurements
    wiring: Wiring | None = None
    fewest_stages: int = 1

    def run(self, ways: Sequence[PlanOptions]) -> tuple[list[Candidate], tuple[LeftOut, ...]]:
        """Try all ways with all profiles and numbers of stages.

        Raises:
            InputError: if no candidate is found.
        """
        candidates, left_out = self.tried(ways)
        if not candidates:
            raise no_candidate(self.profiles, self.devices, self.global_batch, ways[0], left_out)
        return candidates, left_out

    def tried(self, ways: Sequence[PlanOptions]) -> tuple[list[Candidate], tuple[LeftOut, ...]]:
        """Try all ways with all profiles and numbers of stages, which may leave nothing."""
        found = [
            entry
            for options in ways
            for profile in self.profiles
            for stages in range(self.fewest_stages, self.devices + 1)
            if self.devices % stages == 0
            for entry in self._try(profile, stages, options)
        ]
        candidates = [entry for entry in found if isinstance(entry, Candidate)]
        # More ways leave out the same combination for the same reason.
        left_out = tuple(dict.fromkeys(entry for entry in found if isinstance(entry, LeftOut)))
        return candidates, left_out

    def _try(
        self, profile: Profile, stages: int, options: PlanOptions
    ) -> Iterator[Candidate | LeftOut]:
        replicas = self.devices // stages
        micro_batches, samples_left = divmod(self.global_batch, profile.micro_batch * replicas)
        schedule = options.scheduled
        pieces = stages * schedule.chunks
        if pieces > len(profile.layers):
            yield LeftOut(stages, replicas, profile.micro_batch, Reason.LAYERS)
            return
        if samples_left:
            yield LeftOut(stages, replicas, profile.micro_batch, Reason.BATCH)
            return
        if self.micro_batches not in {None, micro_batches}:
            yield LeftOut(stages, replicas, profile.micro_batch, Reason.MICRO_BATCHES)
            return
        if self.wiring is not None:
            profile, links = self.wiring(profile, stages)
            options = options.model_copy(update={"links": links})
        before: SteadyStep | None = None
        for lead in self.leads if LEAD in schedule.own_options else self.leads[:1]:
            update = {
                "micro_batches": micro_batches,
                "lead": lead,
                "replicas": replicas,
                "global_batch": self.global_batch,
            }
            found = self._at_lead(profile, stages, options.model_copy(update=update))
            if isinstance(found, LeftOut):
                yield found
                return
            step = found.step
            if before is not None and not schedule.alternates and step.seconds >= before.seconds:
                return
            before = step
            yield found
            if schedule.alternates and not step.by_messages:
                return

    def _at_lead(self, profile: Profile, stages: int, options: PlanOptions) -> Candidate | LeftOut:
        """Return what a plan for so many devices does with these options, or why there is none."""
        schedule, pieces = options.scheduled, options.stages_on(stages)
        left_out = stages, options.replicas, profile.micro_batch
        if not is_buffer_enough(schedule, pieces, options):
            return LeftOut(*left_out, Reason.VERSIONS)
        model = CostModel(profile, pieces, options)
        if cheapest_within(model, Limits(period=None)).cuts is None:
            return LeftOut(*left_out, Reason.MEMORY, model)
        cuts = evened_out(model, optimal_cuts(model))
        lag = Lag.of(schedule, pieces, model.options)
        expected = expected_steps(self.measured, lag, model.options, profile.model)
        return Candidate(model, cuts, step_of(model, cuts), expected)
