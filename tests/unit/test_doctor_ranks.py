"""What the doctor concludes from what ranks report about themselves."""

import pytest
from doctor_situations import job, of_job, of_ranks, rank, situation

from hpc_lpm.doctor.clocks import check_clock
from hpc_lpm.doctor.cores import check_binding
from hpc_lpm.doctor.link_check import check_link
from hpc_lpm.doctor.rank_checks import check_placement, check_ranks
from hpc_lpm.doctor.shared_files import check_shared_files
from hpc_lpm.doctor.situation import Situation
from hpc_lpm.doctor.software import check_environment

HEALTHY = of_ranks(rank(0), rank(1))
TWO_NODES = of_ranks(rank(0), rank(1), rank(2, host="n2"), rank(3, host="n2"))
ON_RANKS = [
    check_placement,
    check_binding,
    check_link,
    check_clock,
    check_shared_files,
    check_environment,
]


@pytest.mark.parametrize("machine", [HEALTHY, TWO_NODES], ids=["one node", "two nodes"])
@pytest.mark.parametrize("check", [check_ranks, *ON_RANKS])
def test_a_healthy_job_is_ok_and_leaves_nothing_to_do(check: object, machine: Situation) -> None:
    finding = check(machine)  # type: ignore[operator]
    assert (finding.verdict, finding.remedy) == ("ok", "")
    assert finding.found


@pytest.mark.parametrize("check", ON_RANKS)
def test_without_ranks_only_the_check_of_ranks_fails(check: object) -> None:
    nothing = situation(problem="mpirun: command not found")
    assert check(nothing).verdict != "failed"  # type: ignore[operator]
    ranks = check_ranks(nothing)
    assert ranks.verdict == "failed"
    assert "mpirun: command not found" in ranks.found


def test_processes_that_do_not_know_each_other_are_called_so() -> None:
    singletons = check_ranks(situation(job(rank(0)), job(rank(1))))
    assert singletons.verdict == "failed"
    assert "2 processes that do not know each other" in singletons.found
    assert "mpirun beside this Python" in singletons.remedy
    inside = check_ranks(situation(job(rank(0)), asked=3))
    assert "3 processes that do not know each other" in inside.found


def test_as_many_ranks_as_were_asked_for_must_come_and_each_with_a_process() -> None:
    fewer = check_ranks(situation(job(rank(0), rank(1)), asked=3))
    assert fewer.verdict == "failed"
    assert "2 ranks came, 3 were asked for" in fewer.found
    shared = check_ranks(of_ranks(rank(0, pid=7), rank(1, pid=7)))
    assert shared.verdict == "failed"
    apart = check_ranks(of_ranks(rank(0, pid=7), rank(1, pid=7, host="n2")))
    assert apart.verdict == "ok"
    assert "2 hosts" in apart.found


def test_ranks_that_report_but_end_badly_are_a_warning() -> None:
    ended = check_ranks(situation(job(rank(0), rank(1)), problem="it ended with exit code 139"))
    assert ended.verdict == "warning"
    assert "exit code 139" in ended.found


@pytest.mark.parametrize(
    ("cores", "verdict"),
    [
        ([(0,), (1,)], "ok"),
        ([(0, 1), (2, 3)], "ok"),
        ([(0,), (0,)], "failed"),
        ([(0, 1), (0, 1)], "ok"),
        ([(0,), (0, 1)], "ok"),
        ([(0, 1), (0, 1), (0, 1)], "failed"),
        ([(0,), (0, 1), (1,)], "failed"),
        ([(0,), (1,), (2,), (2,)], "failed"),
    ],
)
def test_ranks_bound_to_fewer_cores_than_they_are_fail_where_cores_are_free(
    cores: list[tuple[int, ...]], verdict: str
) -> None:
    finding = check_binding(of_ranks(*(rank(n, cores=own) for n, own in enumerate(cores))))
    assert finding.verdict == verdict, finding
    if verdict == "failed":
        assert "--bind-to none" in finding.remedy


@pytest.mark.parametrize(
    "limited",
    [{"cores": (0,), "launcher_cores": 1}, {"core_quota": 1.5}],
    ids=["affinity", "quota"],
)
def test_fewer_cores_than_ranks_are_a_warning_whoever_limits_them(limited: dict) -> None:
    finding = check_binding(of_ranks(rank(0, **limited), rank(1, **limited)))
    assert finding.verdict == "warning"
    assert "share 1 core(s)" in finding.found


def test_more_threads_than_cores_are_a_warning_that_names_the_number_that_fits() -> None:
    greedy = {"threads": 4, "omp_num_threads": None}
    finding = check_binding(of_ranks(rank(0, **greedy), rank(1, **greedy)))
    assert finding.verdict == "warning"
    assert "unset" in finding.found
    assert "OMP_NUM_THREADS=2" in finding.remedy


def test_cores_of_different_hosts_are_not_mixed_up() -> None:
    finding = check_binding(of_ranks(rank(0, cores=(0,)), rank(1, cores=(0,), host="n2")))
    assert finding.verdict == "ok"


def test_a_warning_about_binding_says_on_how_many_nodes() -> None:
    greedy = {"threads": 4}
    one = check_binding(of_ranks(rank(0, **greedy), rank(1, host="n2")))
    assert one.verdict == "ok", one
    both = check_binding(
        of_ranks(*(rank(n, host=host, **greedy) for n, host in enumerate(["n1", "n1", "n2", "n2"])))
    )
    assert both.verdict == "warning"
    assert "of 2 nodes 2" in both.found


def test_nodes_that_are_bound_differently_are_told_apart() -> None:
    finding = check_binding(of_ranks(rank(0), rank(1, host="n2", cores=(0,), launcher_cores=1)))
    assert finding.verdict == "ok"
    assert "n1: every rank on 4 core(s)" in finding.found
    assert "n2: every rank on 1 core(s)" in finding.found


def test_ranks_that_may_leave_the_cores_that_slurm_allotted_are_a_warning() -> None:
    loose = check_binding(of_ranks(rank(0, slurm_cores=2), rank(1, slurm_cores=2)))
    assert loose.verdict == "warning"
    assert "Slurm allotted 2 core(s) on n1" in loose.found
    assert "--exclusive" in loose.remedy
    held = {"slurm_cores": 2, "cores": (0, 1), "launcher_cores": 2}
    assert check_binding(of_ranks(rank(0, **held), rank(1, **held))).verdict == "ok"


def test_fewer_cores_from_slurm_than_ranks_are_a_warning() -> None:
    finding = check_binding(of_ranks(rank(0, slurm_cores=1), rank(1, slurm_cores=1)))
    assert finding.verdict == "warning"
    assert "share 1 core(s)" in finding.found


def test_a_rank_that_did_not_come_to_the_end_fails_and_is_named() -> None:
    half = job(rank(0), rank(1, host="n2"), clocks=(), node_links=(), unfinished="rank 1 (on n2)")
    finding = check_ranks(of_job(half))
    assert finding.verdict == "failed"
    assert "rank 1 (on n2)" in finding.found
    assert "rank 1 (on n2)" in check_link(of_job(half)).found
    ended = check_ranks(situation(half, problem="n2 cannot reach n3"))
    assert ended.verdict == "failed"
    assert "n2 cannot reach n3" in ended.found
    none_came = check_ranks(situation(job(unfinished="rank 1 was not there")))
    assert (none_came.verdict, none_came.found) == ("failed", "rank 1 was not there")
