"""`hpc-lpm doctor` as users and scripts call it."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from doctor_situations import job, rank, situation

from hpc_lpm.cli import doctor  # noqa: F401  registers the command
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOT_HELD, run_guarded
from hpc_lpm.cli.link_matrix import show_links
from hpc_lpm.doctor import examination, starting
from hpc_lpm.doctor.cores import core_quota
from hpc_lpm.doctor.probe import MARK, reports_in
from hpc_lpm.doctor.probe_report import LinkOfNodes
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.doctor.starting import outside_of_steps
from hpc_lpm.errors import InputError


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The list of checks, empty, of a doctor that starts no ranks."""
    made: list[object] = []
    monkeypatch.setattr(examination, "CHECKS", made)
    monkeypatch.setattr(examination, "in_job", lambda: False)
    monkeypatch.setattr(examination, "start_ranks", lambda asked: situation(asked=asked))
    return made


def fine(_: Situation) -> Finding:
    return Finding("fine", "ok", "all [/well]")


def doubtful(_: Situation) -> Finding:
    return Finding("doubtful", "warning", "something", "look at it")


def broken(_: Situation) -> Finding:
    return Finding("broken", "failed", "something", "mend it")


def test_nothing_failed_is_code_0_even_with_warnings(
    checks: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    checks += [fine, doubtful]
    assert run_guarded(app, ["doctor"]) == EXIT_DONE
    shown = capsys.readouterr().out
    assert "all [/well]" in shown
    assert "look at it" in shown
    assert shown.splitlines()[-1].startswith("1 ok, 1 warnings, 0 failed: ")


def test_a_failed_check_is_code_1_and_scripts_read_which(
    checks: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    checks += [fine, broken]
    assert run_guarded(app, ["doctor", "--json"]) == EXIT_NOT_HELD
    document = json.loads(capsys.readouterr().out)
    assert document["failed"] == 1
    assert document["links"] == []
    assert document["checks"][1] == {
        "name": "broken",
        "verdict": "failed",
        "found": "something",
        "remedy": "mend it",
    }


def test_a_check_that_breaks_down_fails_and_stops_no_other(checks: list[object]) -> None:
    def check_stars(_: Situation) -> Finding:
        raise ZeroDivisionError("no stars")

    checks += [check_stars, fine]
    stars, after = examination.examine_machine(None).findings
    assert (stars.name, stars.verdict) == ("stars", "failed")
    assert "ZeroDivisionError: no stars" in stars.found
    assert after.verdict == "ok"


@pytest.mark.usefixtures("checks")
def test_less_than_one_rank_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(app, ["doctor", "--ranks", "0"]) == EXIT_BAD_INPUT
    complaint = capsys.readouterr().err
    assert "--ranks" in complaint
    assert "found '0'" in complaint
    assert complaint.count("\n") == 1


def test_a_launcher_that_is_missing_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> list[str]:
        raise InputError("mpirun was not found.")

    monkeypatch.setattr(starting, "rank_command", missing)
    started = starting.start_ranks(2)
    assert (started.jobs, started.problem) == ((), "mpirun was not found.")


def test_the_last_report_of_each_job_is_found_among_the_launchers_own_words() -> None:
    half, whole, other = job(rank(0), unfinished="half"), job(rank(0)), job(rank(1))
    first, *lines = (MARK + report.model_dump_json() for report in (half, whole, other))
    output = f"mpirun: hello\n{first}\nnoise {lines[0]}\nmpirun: no\n{lines[1]}\n"
    assert reports_in(output) == (whole, other)


def test_a_step_of_srun_without_mpi_counts_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}
    assert starting.ranks_of_this_job(step) == 4
    assert starting.in_job(step)
    assert not starting.is_first_of_this_job(step)
    assert starting.is_first_of_this_job({**step, "SLURM_PROCID": "0"})
    assert not starting.in_job({})
    # mpirun's own processes on the nodes are such a step, and its ranks see the variables.
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    assert starting.ranks_of_this_job({**step, "OMPI_COMM_WORLD_SIZE": "3"}) == 3
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    assert starting.is_first_of_this_job({})


def test_in_a_job_of_slurm_one_rank_a_task_is_started() -> None:
    assert starting.ranks_to_start({}) == starting.DEFAULT_RANKS
    batch_script = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "6"}
    assert starting.ranks_to_start(batch_script) == 6


def test_from_a_step_of_one_process_mpirun_finds_the_nodes_of_the_whole_job() -> None:
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "n1",
        "SLURM_NTASKS": "1",
        "SLURM_TASKS_PER_NODE": "1",
        "PMIX_RANK": "0",
        "OMPI_MCA_btl": "tcp",
    }
    found = outside_of_steps(step, nodes=3)
    assert (found["SLURM_NNODES"], found["SLURM_TASKS_PER_NODE"]) == ("3", "1(x3)")
    assert found["OMPI_MCA_btl"] == "tcp"
    assert "PMIX_RANK" not in found
    batch = {"SLURM_JOB_ID": "7", "SLURM_TASKS_PER_NODE": "2(x3)"}
    assert outside_of_steps(batch, nodes=3)["SLURM_TASKS_PER_NODE"] == "2(x3)"


def show(nodes: int, capsys: pytest.CaptureFixture[str]) -> str:
    names = [f"n{number}" for number in range(1, nodes + 1)]
    links = [
        LinkOfNodes(nodes=pair, latency_seconds=20e-6, bandwidth_bytes_per_second=1.25e9)
        for pair in combinations(names, 2)
    ]
    links[0] = LinkOfNodes(
        nodes=("n1", "n2"), latency_seconds=None, bandwidth_bytes_per_second=None
    )
    inner = LinkOfNodes(nodes=("n1", "n1"), latency_seconds=1e-6, bandwidth_bytes_per_second=9e9)
    show_links((inner, *links))
    return capsys.readouterr().out


@pytest.mark.parametrize("nodes", [2, 3, 16])
def test_links_are_shown_as_a_matrix_with_a_row_a_node_that_fits(
    nodes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = show(nodes, capsys)
    for title in ("latency in us", "bandwidth in GB/s"):
        assert title in shown
    rows = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│")]
    assert len(rows) == 2 * nodes
    assert {len(row) for row in rows} == {nodes + 1}
    first, second = rows[0], rows[1]
    assert [cell.strip() for cell in first[:3]] == ["1 n1", "1.0", "none"]
    assert second[1].strip() == "none"
    assert all(line.count("\n") == 0 and len(line) <= 140 for line in shown.splitlines())


def test_of_many_nodes_the_worst_pairs_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(20, capsys)
    assert "10 of 190 pairs" in shown
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    assert len(rows) == 20
    assert "n1 - n2" in rows[0]
    assert "n1 - n2" in rows[10]


def control_group(root: Path, lines: str, files: dict[str, str]) -> float | None:
    proc, groups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(lines)
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return core_quota(proc, groups)


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("0::/\n", {}, None),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000\n"}, None),
        (
            "0::/job/step\n",
            {"job/step/cpu.max": "400000 100000", "job/cpu.max": "150000 100000"},
            1.5,
        ),
        (
            "4:cpuset:/x\n3:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        (
            "3:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
    ],
    ids=["none", "unlimited", "a parent's is tighter", "version 1", "version 1 unlimited"],
)
def test_the_tightest_quota_of_the_control_groups_counts(
    tmp_path: Path, lines: str, files: dict[str, str], cores: float | None
) -> None:
    assert control_group(tmp_path, lines, files) == cores
