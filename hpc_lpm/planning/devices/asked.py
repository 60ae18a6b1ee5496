"""A search over devices as a user asks for it: what was named is fixed, the rest is tried."""

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_lpm.errors import InputError
from hpc_lpm.options import WeightPolicyName
from hpc_lpm.planning.devices.candidates import THROUGHPUT, TIME_TO_TARGET, DeviceSearch, Objective
from hpc_lpm.planning.devices.search import LEADS, search_devices, search_for_target
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.worth.expected import rows_for
from hpc_lpm.planning.worth.measured import Measurements
from hpc_lpm.profile_file import Profile
from hpc_lpm.schedules.registry import FLUSHING_SCHEDULE, schedule_named

OBJECTIVES: tuple[Objective, ...] = (THROUGHPUT, TIME_TO_TARGET)
_POLICIES: tuple[WeightPolicyName, ...] = ("live", "replay", "stash")
"""The weight policies in the order in which they are preferred: by what they cost."""


def objective_of(objective: str) -> Objective:
    """Return an objective by its name.

    Raises:
        InputError: if there is none of that name.
    """
    for known in OBJECTIVES:
        if known == objective:
            return known
    raise InputError(
        f"--objective is {objective!r}, accepted are {' and '.join(OBJECTIVES)}: give one of these."
    )


@dataclass(frozen=True)
class AskedSearch:
    """What a user asks of a search over devices; None stands for what was not named.

    Attributes:
        options: those of every candidate, but for what is tried.
        objective: what the best candidate is best at.
        measured: what lags cost.
        schedule: the schedule's name.
        weights: the weight policy.
        lead: the lead.
        micro_batches: of a step on a replica.
    """

    options: PlanOptions
    objective: Objective
    measured: Measurements
    schedule: str | None
    weights: str | None
    lead: int | None
    micro_batches: int | None

    def run(self, profiles: Sequence[Profile], devices: int, global_batch: int) -> DeviceSearch:
        """Search.

        Raises:
            InputError: as `search_devices` and `search_for_target`; if the time to a target
                decides and nothing is measured for the optimizer.
        """
        leads = LEADS if self.lead is None else (self.lead,)
        if self.objective == THROUGHPUT:
            return search_devices(
                profiles,
                devices,
                global_batch,
                self.options,
                leads,
                micro_batches=self.micro_batches,
                measured=self.measured,
            )
        return search_for_target(
            profiles,
            devices,
            global_batch,
            self._ways(),
            leads,
            micro_batches=self.micro_batches,
            measured=self.measured,
        )

    def _ways(self) -> list[PlanOptions]:
        """Return the options of every schedule and weight policy that is to be tried."""
        if schedule_named(self.options.schedule).flushes:
            return [self.options]
        self._check_measured()
        policies = _POLICIES if self.weights is None else (self.weights,)
        ways = [self.options.model_copy(update={"weights": policy}) for policy in policies]
        if self.schedule is None:
            flushing = {"schedule": FLUSHING_SCHEDULE, "prediction_rule": None}
            ways.append(ways[0].model_copy(update=flushing))
        return ways

    def _check_measured(self) -> None:
        """Refuse an optimizer and a recipe for which nothing is measured."""
        optimizer, recipe = self.options.optimizer, self.options.recipe
        if rows_for(self.measured, optimizer, recipe):
            return
        found = sorted({(row.optimizer, row.recipe) for row in self.measured.rows})
        raise InputError(
            f"--objective is time-to-target, but for --optimizer {optimizer} with --recipe "
            f"{recipe} nothing is measured: accepted are "
            f"{', '.join(f'{one} with {other}' for one, other in found)}, or give measurements of "
            "your own with --efficiency."
        )
