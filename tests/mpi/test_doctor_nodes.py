"""The doctor on real ranks of several hosts, and on ranks of which one hangs."""

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.mpi.hosts import host_namer, needs_hosts
from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi

DOCTOR = ("-m", "hpc_lpm", "doctor")


def on_hosts(
    folder: Path, ranks: int, ranks_a_host: int, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m mpi4py ARGUMENTS` on ranks of several hosts."""
    return mpirun(ranks, *arguments, program=host_namer(folder, ranks_a_host))


def check(document: dict[str, Any], name: str) -> dict[str, str]:
    found: dict[str, str] = next(one for one in document["checks"] if one["name"] == name)
    return found


@needs_hosts
def test_every_pair_of_hosts_is_measured_and_every_host_looked_at(tmp_path: Path) -> None:
    done = on_hosts(tmp_path, 6, 2, *DOCTOR, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    pairs = sorted(tuple(link["nodes"]) for link in document["links"])
    nodes = ["n1", "n2", "n3"]
    assert pairs == sorted((a, b) for a in nodes for b in nodes if a <= b)
    for link in document["links"]:
        assert 1e-8 < link["latency_seconds"] < 0.1
        assert 1e6 < link["bandwidth_bytes_per_second"] < 1e12
    assert "6 ranks in 6 processes on 3 hosts" in check(document, "ranks")["found"]
    assert check(document, "placement")["found"].startswith("n1: ranks 0-1; n2: ranks 2-3")
    assert "worst of 3 pairs" in check(document, "link")["found"]
    assert "hosts agree within" in check(document, "clock")["found"]
    assert "on each of 3 nodes" in check(document, "binding")["found"]
    assert "on all 3 nodes" in check(document, "environment")["found"]
    files = check(document, "shared files")
    assert files["verdict"] == "ok"
    assert "3 nodes write" in files["found"]
    assert "locks work" in files["found"]


@needs_hosts
def test_people_see_a_matrix(tmp_path: Path) -> None:
    done = on_hosts(tmp_path, 2, 1, *DOCTOR)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "latency in us" in done.stdout
    assert "2 n2" in done.stdout


PROBED = """
import errno, sys, time
from pathlib import Path
from mpi4py import MPI
from hpc_lpm.doctor import clocks, link_probe, probe, shared_files

rank = MPI.COMM_WORLD.rank
{change}
report = probe.probe_ranks(MPI.COMM_WORLD, "some MPI")
if rank == 0:
    print("report", report.model_dump_json())
    if report.unfinished:
        probe.abandon_ranks()
"""


def probed(folder: Path, change: str, *, ranks: int = 2, ranks_a_host: int = 1) -> dict[str, Any]:
    """Return the report of ranks, each on a host, on which modules of the probe were changed."""
    program = folder / "probed.py"
    program.write_text(PROBED.format(change=change), encoding="utf-8")
    done = on_hosts(folder, ranks, ranks_a_host, str(program))
    lines = [line for line in done.stdout.splitlines() if line.startswith("report ")]
    assert lines, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(lines[0].removeprefix("report "))
    return report


@needs_hosts
def test_a_rank_that_hangs_is_named_and_the_others_wait_no_longer_than_the_limit(
    tmp_path: Path,
) -> None:
    change = """
probe.COLLECTIVE_SECONDS = 2.0
if rank == 1:
    probe.measure_neighbours = lambda *_: time.sleep(600)
"""
    before = time.monotonic()
    report = probed(tmp_path, change)
    assert time.monotonic() - before < 300
    assert "rank 1 was not there for the links within nodes" in report["unfinished"]
    assert "(on n2)" in report["unfinished"]
    assert len(report["shared_files"]) == 2
    assert report["node_links"] == []


@needs_hosts
def test_two_hosts_that_do_not_hear_each_other_are_found_and_the_rest_is_measured(
    tmp_path: Path,
) -> None:
    change = """
link_probe.LIMIT_SECONDS = link_probe.LIMIT_AFTER_SILENCE_SECONDS = 3.0
if rank == 1:  # it leads against rank 2 alone
    link_probe._lead = lambda *_: (_ for _ in ()).throw(link_probe.NoAnswerError("deaf"))
"""
    report = probed(tmp_path, change, ranks=4)
    found = {tuple(link["nodes"]): link["latency_seconds"] for link in report["node_links"]}
    assert report["unfinished"] == ""
    assert len(found) == 6
    assert {pair for pair, latency in found.items() if latency is None} == {
        ("n2", "n3"),
        ("n2", "n4"),
    }


ODD_HOSTS = """
class Clock:
    perf_counter = time.perf_counter
    def time():
        return time.time() + 2.5
def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")
if rank == 1:
    clocks.time = Clock
    shared_files.fcntl.flock = lambda *_: None
if rank == 2:
    shared_files.fcntl.flock = refuse
"""


@pytest.fixture(scope="module")
def odd_hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of three hosts: the clock of n2 is off, its locks hold nothing, n3 has none."""
    return probed(tmp_path_factory.mktemp("odd"), ODD_HOSTS, ranks=3)


@needs_hosts
def test_a_clock_that_is_off_is_measured_to_half_a_round_trip(odd_hosts: dict[str, Any]) -> None:
    apart = {"n2": 2.5, "n3": 0.0}
    offsets = odd_hosts["offsets"]
    assert [offset["host"] for offset in offsets] == list(apart)
    for offset in offsets:
        error = abs(offset["offset_seconds"] - apart[offset["host"]])
        assert error <= offset["uncertainty_seconds"] + 1e-3
        assert offset["uncertainty_seconds"] < 0.05


@needs_hosts
def test_locks_that_do_not_hold_between_hosts_are_told(odd_hosts: dict[str, Any]) -> None:
    first, second, third = odd_hosts["shared_files"]
    assert first["lock_problem"] == ""
    assert second["lock_problem"] == "two nodes hold the same lock"
    assert third["lock_problem"] == "No locks available"


@needs_hosts
def test_a_host_that_does_not_see_the_folder_is_told_apart_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    change = """
shared_files.SEEN_SECONDS = 1.0
write = shared_files._write
if rank == 1:
    shared_files._write = lambda folder, rank: write(Path("/nowhere"), rank)
if rank == 2:
    shared_files._has_content = lambda folder, other: other == rank
"""
    first, second, third = probed(tmp_path, change, ranks=3)["shared_files"]
    assert (first["problem"], first["unseen"]) == ("", [])
    assert "No such file" in second["problem"]
    assert third["unseen"] == ["n1"]
    assert third["waited_seconds"] >= 1.0


def test_a_call_that_hangs_is_given_up() -> None:
    from hpc_lpm.doctor.bounded_waits import within

    over = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        within(0.2, lambda: over.wait(120))
    assert not over.is_set()
    over.set()
    assert within(60.0, lambda: 7) == 7
    with pytest.raises(FileNotFoundError):
        within(60.0, Path("/no/such/file").read_bytes)
