import pytest

from hpc_lpm.cluster.allocation import check_allocation, with_allocation
from hpc_lpm.cluster.launchers import rank_command
from hpc_lpm.errors import InputError

KEPT = {
    "HPC_LPM_SLURM_JOB_ID": "7",
    "HPC_LPM_SLURM_JOB_NODELIST": "n[1-2]",
    "HPC_LPM_SLURM_NTASKS": "2",
}


def test_what_was_kept_of_this_job_comes_back_and_what_is_there_stays() -> None:
    found = with_allocation({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", **KEPT})
    assert found["SLURM_JOB_NODELIST"] == "n[1-2]"
    assert found["SLURM_NTASKS"] == "4"


@pytest.mark.parametrize("job", [{}, {"SLURM_JOB_ID": "8"}])
def test_what_was_kept_of_another_job_does_not_come_back(job: dict[str, str]) -> None:
    assert "SLURM_JOB_NODELIST" not in with_allocation({**job, **KEPT})


def test_ranks_of_a_job_whose_nodes_are_lost_are_refused() -> None:
    with pytest.raises(InputError, match=r"Slurm job 7 has no SLURM_JOB_NODELIST.* slurm/"):
        check_allocation({"SLURM_JOB_ID": "7"}, 2)
    check_allocation({"SLURM_JOB_ID": "7"}, 1)
    check_allocation({}, 2)
    check_allocation({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1"}, 2)


def test_mpirun_and_its_daemons_are_shielded_from_the_end_of_a_job() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
    inside = rank_command(["models"], 2, "mpirun", environment=job)
    assert inside[:2] == ["env", "--block-signal=TERM"]
    assert "env --block-signal=TERM prted" in inside
    outside = rank_command(["models"], 2, "mpirun", environment={})
    assert outside[0].endswith("/mpirun")
    assert "prte_launch_agent" not in outside
