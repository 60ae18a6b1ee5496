"""What the doctor concludes about several nodes: their links, clocks, ranks, files and Python."""

from itertools import combinations

import pytest
from doctor_situations import (
    READING,
    SOFTWARE,
    between,
    job,
    neighbours,
    of_job,
    of_ranks,
    rank,
)

from hpc_lpm.doctor.clocks import check_clock
from hpc_lpm.doctor.link_check import check_link
from hpc_lpm.doctor.probe_report import (
    ClockOffset,
    ClockReading,
    NodeLink,
    SharedFiles,
    links_of_nodes,
)
from hpc_lpm.doctor.rank_checks import check_placement
from hpc_lpm.doctor.shared_files import check_shared_files
from hpc_lpm.doctor.situation import Allocation, Finding, allocation_of_slurm
from hpc_lpm.doctor.software import check_environment

NODES = [f"n{number}" for number in range(1, 6)]
RANKS = tuple(rank(number, host=host) for number, host in enumerate(NODES))


def linked(**slow: NodeLink) -> Finding:
    """Return what is found on five nodes whose links are alike but for these."""
    links = (between(*pair) for pair in combinations(NODES, 2))
    changed = tuple(slow.get("_".join(link.nodes), link) for link in links)
    return check_link(of_job(job(*RANKS, node_links=changed)))


def test_milliseconds_within_one_host_are_absurd_and_between_hosts_are_not() -> None:
    absurd = check_link(of_job(job(rank(0), rank(1), neighbours=(neighbours(0, 2e-3),))))
    assert absurd.verdict == "warning"
    assert "ranks 0 and 1" in absurd.found
    far = job(rank(0), rank(1, host="n2"), node_links=(between("n1", "n2", 2e-3),))
    assert check_link(of_job(far)).verdict == "ok"


def test_the_worst_link_is_shown_with_what_was_sent() -> None:
    ranks = rank(0), rank(1, host="n2"), rank(2, host="n3")
    links = between("n1", "n2"), between("n1", "n3", 2e-5, 0.9e9), between("n2", "n3", 3e-5)
    finding = check_link(of_job(job(*ranks, node_links=links)))
    assert finding.verdict == "ok"
    assert "latency 30.0 us, bandwidth 0.90 GB/s (worst of 3 pairs)" in finding.found
    assert "8 B and 1 MiB" in finding.found


def test_a_pair_far_slower_than_the_median_is_a_warning_that_names_both_nodes() -> None:
    assert linked(n1_n2=between("n1", "n2", 30e-6, 0.6e9)).verdict == "ok"
    for slow in (between("n2", "n4", 20e-6, 0.4e9), between("n2", "n4", 45e-6, 1e9)):
        finding = linked(n2_n4=slow)
        assert finding.verdict == "warning"
        assert "n2 and n4 (" in finding.found
        assert "n1 and" not in finding.found
        assert "--exclude" in finding.remedy


def test_a_node_that_all_slow_pairs_share_is_named() -> None:
    slow = {
        f"{a}_{b}": between(a, b, 20e-6, 0.1e9) for a, b in combinations(NODES, 2) if "n3" in (a, b)
    }
    finding = linked(**slow)
    assert "all of them involve n3" in finding.found
    assert "and 1 more pairs" in finding.found


def test_one_bad_node_of_four_is_found() -> None:
    pairs = combinations(NODES[:4], 2)
    links = tuple(between(a, b, 20e-6, 0.1e9 if "n4" in (a, b) else 1e9) for a, b in pairs)
    assert "all of them involve n4" in check_link(of_job(job(*RANKS[:4], node_links=links))).found


def test_microseconds_more_through_a_switch_are_no_warning() -> None:
    links = between("n1", "n2", 1e-6), between("n1", "n3", 1e-6), between("n2", "n3", 3e-6)
    assert check_link(of_job(job(*RANKS[:3], node_links=links))).verdict == "ok"


def test_two_nodes_without_a_message_between_them_fail_and_are_named() -> None:
    finding = linked(n1_n5=between("n1", "n5", None, None))
    assert finding.verdict == "failed"
    assert "between n1 and n5, of 10 pairs" in finding.found
    assert "btl_tcp_if_include" in finding.remedy


def test_links_that_were_not_all_measured_are_told_with_the_reason() -> None:
    finding = check_link(of_job(job(*RANKS, node_links_complete=False)))
    assert "time did not suffice to measure all pairs" in finding.found
    ended = "the probe ended at the link between n2 and n3"
    stopped = job(*RANKS[:3], node_links=(between("n1", "n2"),), node_links_complete=False)
    finding = check_link(of_job(stopped.model_copy(update={"unfinished": ended})))
    assert finding.verdict == "warning"
    assert ended in finding.found
    assert "latency 20.0 us" in finding.found


def test_links_for_scripts_are_within_nodes_and_between_them() -> None:
    ranks = rank(0), rank(1), rank(2), rank(3, host="n2"), rank(4, host="n3")
    measured = between("n2", "n3"), between("n1", "n3"), between("n1", "n2")
    inner = neighbours(0), neighbours(1, 9e-6, 1e9)
    links = links_of_nodes(job(*ranks, neighbours=inner, node_links=measured))
    order = [("n1", "n1"), ("n1", "n2"), ("n1", "n3"), ("n2", "n3")]
    assert [link.nodes for link in links] == order
    assert links[0].latency_seconds == 9e-6
    assert links[0].bandwidth_bytes_per_second == 1e9
    sizes = [link.message_bytes for link in links]
    assert sizes == [None, *(link.message_bytes for link in reversed(measured))]
    assert all(sizes[1:])


def offset(host: str, seconds: float | None, uncertainty: float | None = 1e-4) -> ClockOffset:
    return ClockOffset(host=host, offset_seconds=seconds, uncertainty_seconds=uncertainty)


@pytest.mark.parametrize(
    ("seconds", "uncertainty", "verdict"),
    [
        (0.05, 1e-4, "ok"),
        (-0.5, 1e-4, "warning"),
        (0.5, 0.45, "ok"),
        (-400.0, 1e-4, "failed"),
        (None, None, "ok"),
    ],
)
def test_clocks_of_hosts_are_judged_by_what_is_certain(
    seconds: float | None, uncertainty: float | None, verdict: str
) -> None:
    apart = job(*RANKS[:2], offsets=(offset("n2", seconds, uncertainty),))
    finding = check_clock(of_job(apart))
    assert finding.verdict == verdict
    if verdict != "ok":
        assert "n2" in finding.found
        assert "chrony" in finding.remedy
    assert ("munge" in finding.found) == (verdict == "failed")


@pytest.mark.parametrize(
    ("change", "about"),
    [({"monotonic": 99.0}, "monotonic clocks"), ({"wall_elapsed": 0.7}, "wall clock moved")],
)
def test_clocks_of_a_host_that_disagree_or_jump_are_a_warning(
    change: dict[str, float], about: str
) -> None:
    other: ClockReading = READING.model_copy(update=change)
    finding = check_clock(of_job(job(rank(0), rank(1), clocks=(READING, other))))
    assert finding.verdict == "warning"
    assert about in finding.found


def test_monotonic_clocks_of_two_hosts_need_not_agree() -> None:
    other = READING.model_copy(update={"monotonic": 9e6})
    assert check_clock(of_job(job(*RANKS[:2], clocks=(READING, other)))).verdict == "ok"


def placed(*hosts: str, allocation: Allocation | None = None) -> Finding:
    ranks = (rank(number, host=host) for number, host in enumerate(hosts))
    return check_placement(of_ranks(*ranks, allocation=allocation))


def test_ranks_of_a_node_that_do_not_follow_each_other_are_a_warning_with_the_option() -> None:
    assert placed("n1", "n1", "n2", "n2", "n2").found == "n1: ranks 0-1; n2: ranks 2-4"
    finding = placed("n1", "n2", "n1", "n2")
    assert finding.verdict == "warning"
    assert "n1: ranks 0, 2; n2: ranks 1, 3" in finding.found
    assert "--map-by slot" in finding.remedy
    assert "--distribution=block" in finding.remedy


def test_nodes_of_the_job_without_a_rank_are_a_warning() -> None:
    assert placed("n1", "n2", allocation=Allocation("7", nodes=2, tasks=2)).verdict == "ok"
    crowded = placed("n1", "n1", "n1", allocation=Allocation("7", nodes=3, tasks=3))
    assert crowded.verdict == "warning"
    assert "job 7 has 3 nodes, but ranks run on only 1:" in crowded.found
    few = placed("n1", "n2", allocation=Allocation("7", nodes=3, tasks=6))
    assert few.verdict == "warning"
    assert "--ranks 6" in few.remedy


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, Allocation("7", 1, 1)),
        (
            {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "5"},
            Allocation("7", 2, 5),
        ),
        (
            {"SLURM_JOB_ID": "7", "SLURM_NNODES": "4", "SLURM_TASKS_PER_NODE": "2(x3),1"},
            Allocation("7", 4, 7),
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}, Allocation("7", 2, 2)),
    ],
)
def test_the_allocation_is_read_from_what_slurm_says(
    variables: dict[str, str], expected: Allocation | None
) -> None:
    assert allocation_of_slurm(variables) == expected


def files(**changes: object) -> Finding:
    """Return what is found where the second of two nodes reports this."""
    good = SharedFiles(host="n1", waited_seconds=0.1, lock_problem="")
    other = SharedFiles(host="n2", waited_seconds=0.2, lock_problem="").model_copy(update=changes)
    return check_shared_files(of_job(job(*RANKS[:2], shared_files=(good, other))))


def test_files_that_all_nodes_see_are_ok_and_how_long_it_took_is_told() -> None:
    finding = files()
    assert finding.verdict == "ok"
    assert "after 0.20 s" in finding.found
    assert "locks work" in finding.found


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({"problem": "No such file or directory"}, "failed", "n2 (No such file"),
        ({"unseen": ("n1",), "waited_seconds": 20.0}, "failed", "n2 did not see the files of n1"),
        ({"waited_seconds": 9.0}, "warning", "only after 9.0 s"),
        ({"lock_problem": "No locks available"}, "warning", "No locks available"),
    ],
)
def test_what_is_wrong_with_shared_files_names_the_node_and_the_folder(
    changes: dict[str, object], verdict: str, said: str
) -> None:
    finding = files(**changes)
    assert finding.verdict == verdict
    assert said in finding.found
    assert "/shared/work" in finding.found
    assert finding.remedy


def test_nodes_must_run_the_same_python_and_packages() -> None:
    elsewhere = SOFTWARE.model_copy(update={"executable": "/local/python"})
    finding = check_environment(of_ranks(rank(0), rank(1, host="n2", software=elsewhere)))
    assert finding.verdict == "warning"
    assert "/local/python on n2" in finding.found
    older = SOFTWARE.model_copy(update={"versions": {"Python": "3.11.2"}})
    finding = check_environment(of_ranks(rank(0), rank(1, host="n2", software=older)))
    assert finding.verdict == "failed"
    assert "Python differs: 3.11.7 on n1; 3.11.2 on n2" in finding.found
