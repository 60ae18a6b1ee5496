"""What the doctor concludes from what ranks report about themselves."""

import pytest
from doctor_situations import FAST, job, of_ranks, rank, situation

from hpc_lpm.campaign.doctor.binding import check_binding
from hpc_lpm.campaign.doctor.clock import check_clock
from hpc_lpm.campaign.doctor.link import check_link
from hpc_lpm.campaign.doctor.ranks import check_ranks
from hpc_lpm.campaign.doctor.reports import RankReport
from hpc_lpm.profiling.profile import LinkProfile

HEALTHY = of_ranks(rank(0), rank(1))
SLOW = LinkProfile(latency_seconds=2e-3, bandwidth_bytes_per_second=1e8)


@pytest.mark.parametrize("check", [check_ranks, check_binding, check_link, check_clock])
def test_a_healthy_job_is_ok_and_leaves_nothing_to_do(check: object) -> None:
    finding = check(HEALTHY)  # type: ignore[operator]
    assert (finding.verdict, finding.remedy) == ("ok", "")
    assert finding.found


@pytest.mark.parametrize("check", [check_binding, check_link, check_clock])
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


def test_milliseconds_within_one_host_are_absurd_and_between_hosts_are_not() -> None:
    here, there = rank(1), rank(1, host="n2")
    absurd = check_link(situation(job(rank(0), here, links=(SLOW,))))
    assert absurd.verdict == "warning"
    assert "ranks 0 and 1" in absurd.found
    assert check_link(situation(job(rank(0), there, links=(SLOW,)))).verdict == "ok"


def test_the_worst_link_is_shown() -> None:
    ranks = rank(0), rank(1), rank(2, host="n2")
    finding = check_link(situation(job(*ranks, links=(FAST, SLOW)), asked=3))
    assert "latency 2000.0 us, bandwidth 0.10 GB/s" in finding.found


@pytest.mark.parametrize(
    ("second", "about"),
    [
        (rank(1, wall=1e9 + 5), "wall clocks"),
        (rank(1, monotonic=99.0), "monotonic clocks"),
        (rank(1, wall_elapsed=0.7), "wall clock moved"),
    ],
)
def test_clocks_that_disagree_or_jump_are_a_warning(second: RankReport, about: str) -> None:
    finding = check_clock(of_ranks(rank(0), second))
    assert finding.verdict == "warning"
    assert about in finding.found


def test_monotonic_clocks_of_two_hosts_need_not_agree() -> None:
    assert check_clock(of_ranks(rank(0), rank(1, host="n2", monotonic=9e6))).verdict == "ok"
