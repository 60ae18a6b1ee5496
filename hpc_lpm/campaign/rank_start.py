"""How the ranks of a step of a campaign are started, and on which nodes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.cluster.allocation import check_allocation, with_allocation
from hpc_lpm.cluster.container import Container
from hpc_lpm.cluster.launchers import (
    launcher_options,
    options_on_nodes,
    rank_command,
    rank_environment,
)
from hpc_lpm.cluster.rank_nodes import RankNodes, find_rank_nodes


@dataclass(frozen=True)
class Start:
    """How ranks are started, and where; `planned_for` as in `Attempt`."""

    command: list[str]
    environment: dict[str, str]
    ranks: int
    where: RankNodes
    planned_for: int | None = None


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
