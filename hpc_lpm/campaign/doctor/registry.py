"""The checks, in the order they are made in. A new one is a file of its own and a line here."""

from collections.abc import Callable

from hpc_lpm.campaign.doctor.accounting import check_accounting
from hpc_lpm.campaign.doctor.binding import check_binding
from hpc_lpm.campaign.doctor.clock import check_clock
from hpc_lpm.campaign.doctor.environment import check_environment
from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.gpu import check_gpu
from hpc_lpm.campaign.doctor.link import check_link
from hpc_lpm.campaign.doctor.mpi_plugin import check_mpi_plugin
from hpc_lpm.campaign.doctor.packages import check_packages
from hpc_lpm.campaign.doctor.placement import check_placement
from hpc_lpm.campaign.doctor.ranks import check_ranks
from hpc_lpm.campaign.doctor.shared import check_shared_files
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.campaign.doctor.slurm import check_slurm
from hpc_lpm.campaign.doctor.storage import check_storage

CHECKS: list[Callable[[Situation], Finding]] = [
    check_ranks,
    check_placement,
    check_binding,
    check_link,
    check_clock,
    check_gpu,
    check_slurm,
    check_accounting,
    check_mpi_plugin,
    check_storage,
    check_shared_files,
    check_environment,
    check_packages,
]
