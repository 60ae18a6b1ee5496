"""Starts the ranks of a trial again where they were lost: all of them, or fewer if it must be."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from hpc_lpm.campaign.elastic import plan_again
from hpc_lpm.campaign.launch_records import Attempt
from hpc_lpm.campaign.rank_start import Start
from hpc_lpm.campaign.restarts import Ending, ending_of, restart_after
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.cluster.lost_nodes import places_left
from hpc_lpm.cluster.supervisor import CommandOutcome
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically

Prepare = Callable[[int, Mapping[str, int] | None], Start]
"""Prepares the start of so many ranks, on some nodes of the job alone if any are named."""


class StartAgain:
    """Decides after each attempt at a trial whether and how its ranks are started again.

    `reason` says why they were started again last. `needs_other_nodes` tells that nodes of the job
    are down and too few are left.

    Args:
        steps: those of the campaign.
        trial: the trial.
        prepare: prepares a start of its ranks.
        log: what their output goes to.
        say: called with each line for the user.
        restarts: how often ranks that were lost are started again.
        elastic: whether fewer ranks go on if a device is gone for good.
    """

    def __init__(
        self,
        steps: Steps,
        trial: Trial,
        prepare: Prepare,
        log: Path,
        say: Callable[[str], None],
        *,
        restarts: int,
        elastic: bool,
    ) -> None:
        self._steps, self._trial = steps, trial
        self._prepare = prepare
        self._log, self._say = log, say
        self._restarts, self._elastic = restarts, elastic
        self.reason: str | None = None
        self.needs_other_nodes = False

    def after(
        self, done: CommandOutcome, start: Start, attempts: tuple[Attempt, ...]
    ) -> Start | None:
        """Return how ranks start again after an attempt, None if they do not; say why."""
        ending = ending_of(done, self._log)
        if ending not in (Ending.FAILED, Ending.LOST):
            return None
        found, name = restart_after(ending, attempts, self._restarts), self._trial.name
        if done.left:
            left = ", ".join(map(str, done.left))
            self._say(
                f"{name}: {found.why}, but process {left} of it does not end: see {self._log}"
            )
            return None
        places = places_left(start.environment) if ending is Ending.LOST else None
        lacking = places is not None and sum(places.values()) < start.ranks
        if self._elastic and (found.gone or (lacking and found.again)):
            return self._with_fewer(start, places, found.why)
        if not found.again or lacking:
            self.needs_other_nodes = found.again and lacking
            if lacking:
                self._say(f"{name}: nodes of the job are down, and too few are left to go on")
            elif self._restarts:
                self._say(f"{name} ends: {found.why}: see {self._log}")
            return None
        self._tell(found.why)
        if places is None:
            return start
        return replace(self._prepare(start.ranks, places), planned_for=start.planned_for)

    def _with_fewer(self, start: Start, places: Mapping[str, int] | None, why: str) -> Start | None:
        name, settings = self._trial.name, self._steps.settings(self._trial.name)
        most = None if places is None else sum(places.values())
        try:
            fewer = plan_again(self._steps, self._trial, settings, start.ranks, most)
        except InputError as error:
            self._say(f"{name} ends: {why}; it cannot go on with fewer devices: {error}")
            return None
        settings = settings.model_copy(update={"plan": fewer.plan})
        document = settings.model_dump_json(indent=2) + "\n"
        write_text_atomically(self._steps.folder.settings(name), document)
        self._tell(
            f"{why}; a device seems to be gone, so that it was planned again for {fewer.ranks} of "
            f"{self._trial.processes} ranks ({fewer.plan}), and is left out of all tables"
        )
        return replace(self._prepare(fewer.ranks, places), planned_for=fewer.ranks)

    def _tell(self, reason: str) -> None:
        self.reason = reason
        self._say(f"{self._trial.name}: {reason}")
