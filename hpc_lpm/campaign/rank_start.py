"""How the ranks of a step of a campaign are started, and on which nodes."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.cluster.allocation import check_allocation, signals_of_job_script, with_allocation
from hpc_lpm.cluster.container import Container
from hpc_lpm.cluster.launchers import (
    launcher_options,
    options_on_nodes,
    rank_command,
    rank_environment,
)
from hpc_lpm.cluster.rank_nodes import RankNodes, find_rank_nodes
from hpc_lpm.cluster.supervisor import CommandOutcome, supervise


@dataclass(frozen=True)
class Start:
    """How ranks are started, and where; `planned_for` as in `Attempt`."""

    command: list[str]
    environment: dict[str, str]
    ranks: int
    where: RankNodes
    planned_for: int | None = None

    def supervised(
        self, log: Path, say: Callable[[str], None], ranks_within_seconds: float
    ) -> CommandOutcome:
        """Run the ranks once, and return how they ended.

        Args:
            log: the file that their output goes to.
            say: called with each line for the user.
            ranks_within_seconds: how long they may take to come to life.
        """
        with signals_of_job_script():
            return supervise(
                self.command,
                self.environment,
                self.ranks,
                log,
                say=say,
                ranks_within_seconds=ranks_within_seconds,
            )


def prepare_start(
    campaign: Campaign,
    arguments: Sequence[str],
    ranks: int,
    mpi: str,
    threads: int,
    style: str | None = None,
    container: Container | None = None,
    *,
    places: Mapping[str, int] | None = None,
) -> Start:
    """Prepare to start ranks.

    Args:
        campaign: the campaign.
        arguments: what the ranks run, as arguments of `hpc-lpm`.
        ranks: how many there are.
        mpi: what starts them.
        threads: of each rank.
        style: how ranks are bound, of those that a tuning tries.
        container: the site's, in which they run.
        places: the nodes of a job that they run on alone, with the ranks of each.

    Raises:
        InputError: if they cannot be started.
    """
    launcher = campaign.launcher
    given = launcher.options if launcher.mpi == mpi else None
    options = launcher_options(mpi, given, style)
    if places is not None:
        options = (*options, *options_on_nodes(mpi, places))
    if container is not None:
        container.require_installed()
    environment = rank_environment(with_allocation(os.environ), threads, container)
    check_allocation(environment, ranks)
    command = rank_command(arguments, ranks, mpi, options, environment, container)
    where = find_rank_nodes(ranks, mpi, options, environment)
    return Start(command, environment, ranks, where)
