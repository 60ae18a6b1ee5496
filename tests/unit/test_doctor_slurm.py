"""What the doctor concludes from Slurm's programs, made up: controller, nodes, accounts, MPI."""

import shlex
import sys
from pathlib import Path

import pytest
from doctor_situations import job, of_ranks, rank, situation

from hpc_lpm.doctor import slurm, software
from hpc_lpm.doctor.situation import Allocation, Finding
from hpc_lpm.doctor.slurm import minutes_of

NO_ACCOUNTING = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds all programs there are, beside those of the base system."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/nowhere")
    return folder


def install(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def sinfo(folder: Path, partitions: str, reasons: str = "") -> None:
    """Install a sinfo that knows these partitions and these nodes that are out of order."""
    install(
        folder,
        "sinfo",
        f'case "$*" in *--list-reasons*) printf %s {shlex.quote(reasons)};; '
        f"*) printf %s {shlex.quote(partitions)};; esac",
    )


@pytest.mark.usefixtures("programs")
def test_a_machine_without_slurm_is_ok() -> None:
    for check in (slurm.check_slurm, slurm.check_accounting):
        finding = check(situation())
        assert (finding.verdict, finding.found) == ("ok", "not installed on this machine")
    assert slurm.check_mpi_plugin(situation()).verdict == "ok"


@pytest.mark.parametrize(
    ("partitions", "verdict", "found"),
    [
        (
            "debug* up 0/2/0/2 infinite\nlong up 4/0/0/4 7-00:00:00\n",
            "ok",
            "debug* (up, 2 of 2 nodes idle, no time limit), long (up, 0 of 4 nodes idle, time "
            "limit 7-00:00:00)",
        ),
        ("debug up 0/2/0/2 infinite\n", "warning", "there is no default partition"),
        ("debug* down 0/2/0/2 infinite\n", "warning", "but no partition is up"),
        ("debug* up 0/2/0/2 30:00\n", "warning", "ask for 60 minutes"),
    ],
)
def test_sinfo_is_believed(programs: Path, partitions: str, verdict: str, found: str) -> None:
    sinfo(programs, partitions)
    finding = slurm.check_slurm(situation())
    assert finding.verdict == verdict
    assert found in finding.found


def test_a_controller_that_cannot_be_reached_is_a_warning(programs: Path) -> None:
    install(programs, "sinfo", "echo 'slurm_load_partitions: Unable to contact' >&2; exit 1")
    finding = slurm.check_slurm(situation())
    assert finding.verdict == "warning"
    assert "Unable to contact" in finding.found


def test_a_controller_that_does_not_answer_is_a_warning_and_no_hang(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(programs, "sinfo", "exec /bin/sleep 60")
    ask = slurm.ask
    monkeypatch.setattr(slurm, "ask", lambda command: ask(command, seconds=0.2))
    finding = slurm.check_slurm(situation())
    assert finding.verdict == "warning"
    assert "did not answer in time" in finding.found


def test_nodes_that_take_no_jobs_are_listed_with_the_reason(programs: Path) -> None:
    sinfo(programs, "debug* up 0/1/1/2 infinite\n", "n2|drained|disk is | full\nn3|down*|gone\n")
    finding = slurm.check_slurm(situation())
    assert finding.verdict == "warning"
    assert "n2 drained (disk is | full), n3 down* (gone)" in finding.found
    assert "state=resume" in finding.remedy


def test_outside_a_job_the_command_that_looks_at_nodes_is_given(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinfo(programs, "debug* up 0/2/0/2 infinite\n")
    install(programs, "sbatch", "exit 0")
    monkeypatch.setattr(sys, "executable", "/with space/python")
    command = slurm.check_slurm(situation()).remedy.partition(": ")[2].partition(";")[0]
    *submit, wrapped = shlex.split(command)
    assert submit[:3] == ["sbatch", "--nodes=2", "--ntasks=2"]
    script = wrapped.removeprefix("--wrap=")
    assert shlex.split(script) == ["/with space/python", "-m", "hpc_lpm", "doctor"]
    inside = situation(allocation=Allocation("7", 2, 2))
    assert slurm.check_slurm(inside).remedy == ""


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", None),
        ("n/a", None),
        ("30", 30),
        ("30:30", 30.5),
        ("1:00:00", 60),
        ("2-00:00:00", 2880),
        ("1-6", 1800),
    ],
)
def test_times_of_slurm_are_read_as_slurm_writes_them(text: str, minutes: float | None) -> None:
    assert minutes_of(text) == minutes


def test_without_accounting_the_profile_must_ask_squeue(programs: Path, tmp_path: Path) -> None:
    install(programs, "sacct", NO_ACCOUNTING)
    bare = slurm.check_accounting(situation(folder=tmp_path))
    assert bare.verdict == "warning"
    assert "accounting storage is disabled" in bare.found
    assert "slurm-status-command: squeue" in bare.remedy
    profile = tmp_path / slurm.PROFILE
    profile.parent.mkdir()
    profile.write_text("slurm-status-command: squeue\nslurm-no-account: true\n")
    assert slurm.check_accounting(situation(folder=tmp_path)).verdict == "ok"


def test_the_profile_that_ships_suits_a_cluster_without_accounting(programs: Path) -> None:
    install(programs, "sacct", NO_ACCOUNTING)
    repository = Path(__file__).parents[2]
    assert slurm.check_accounting(situation(folder=repository)).verdict == "ok"


@pytest.mark.parametrize(("kept", "verdict"), [(8, "warning"), (9, "ok"), (300, "ok")])
def test_a_cluster_that_forgets_jobs_before_they_are_asked_for_is_a_warning(
    programs: Path, kept: int, verdict: str
) -> None:
    install(programs, "sacct", NO_ACCOUNTING)
    install(programs, "scontrol", f"echo 'MinJobAge               = {kept} sec'")
    finding = slurm.check_accounting(situation(folder=Path(__file__).parents[2]))
    assert finding.verdict == verdict
    assert ("(MinJobAge)" in finding.found) == (verdict == "warning")


def test_the_partition_and_the_account_of_the_site_count(programs: Path, tmp_path: Path) -> None:
    site = tmp_path / "slurm" / "site.yaml"
    site.parent.mkdir()
    site.write_text("partition: long\naccount: physics\n")
    sinfo(programs, "debug up 0/2/0/2 infinite\nlong up 4/0/0/4 7-00:00:00\n")
    assert slurm.check_slurm(situation(folder=tmp_path)).verdict == "ok"
    sinfo(programs, "debug* up 0/2/0/2 infinite\nlong up 4/0/0/4 30:00\n")
    assert "more than long allows" in slurm.check_slurm(situation(folder=tmp_path)).found
    install(programs, "sacct", "exit 0")
    install(programs, "sacctmgr", "echo physics")
    (tmp_path / slurm.PROFILE).write_text("slurm-no-account: true\n")
    assert slurm.check_accounting(situation(folder=tmp_path)).found == "sacct answers"


def test_accounts_are_named_where_the_profile_uses_none(programs: Path, tmp_path: Path) -> None:
    install(programs, "sacct", "exit 0")
    install(programs, "sacctmgr", "echo physics; echo chemistry; echo physics")
    profile = tmp_path / slurm.PROFILE
    profile.parent.mkdir()
    profile.write_text("slurm-no-account: true\n")
    finding = slurm.check_accounting(situation(folder=tmp_path))
    assert finding.verdict == "ok"
    assert "chemistry, physics" in finding.found
    assert "set account in slurm/site.yaml" in finding.remedy


LIST = "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\nspecific pmix plugin versions: pmix_v4"
OLD_LIST = "srun: MPI types are...\nsrun: none\nsrun: pmi2\n"


def plugins(
    folder: Path, *, offered: str = LIST, default: str = "none", step: str = "exit 1", errors: bool
) -> None:
    """Install an srun that offers these types, and a scontrol with this default."""
    to = ">&2" if errors else ""
    install(
        folder,
        "srun",
        f'case "$*" in *--mpi=list*) printf %s {shlex.quote(offered)} {to};; *) {step};; esac',
    )
    install(folder, "scontrol", f"echo 'MpiDefault              = {default}'")


@pytest.mark.parametrize(
    ("offered", "default", "verdict", "said", "remedy"),
    [
        (LIST, "none", "ok", "srun --mpi=pmix may start our ranks", ""),
        (LIST, "pmix", "ok", "srun may start our ranks", ""),
        (OLD_LIST, "none", "ok", "offers none, pmi2, but not pmix", "mpirun"),
        (OLD_LIST, "pmix", "warning", "every srun fails", "SLURM_MPI_TYPE=none"),
    ],
)
def test_what_srun_offers_decides_on_the_launcher(
    programs: Path, offered: str, default: str, verdict: str, said: str, remedy: str
) -> None:
    plugins(programs, offered=offered, default=default, errors=offered == OLD_LIST)
    finding = slurm.check_mpi_plugin(of_ranks(rank(0), rank(1)))
    assert finding.verdict == verdict
    assert said in finding.found
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("step", "verdict", "said"),
    [
        ("echo ranks 2; echo ranks 2", "ok", "starts our ranks (tried)"),
        ("echo ranks 1; echo ranks 1", "warning", "do not know each other"),
        ("echo 'srun: error: cannot load libpmix' >&2; exit 1", "warning", "cannot load libpmix"),
    ],
)
def test_in_a_job_srun_is_tried(programs: Path, step: str, verdict: str, said: str) -> None:
    plugins(programs, step=step, errors=False)
    inside = situation(job(rank(0), rank(1)), allocation=Allocation("7", 1, 2))
    finding = slurm.check_mpi_plugin(inside)
    assert finding.verdict == verdict
    assert said in finding.found
    assert ("keep `mpi: mpirun`" in finding.remedy) == (verdict == "warning")


def test_ranks_of_a_step_do_not_take_themselves_for_those_of_mpirun(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMIX_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_MCA_btl_tcp_if_include", "eth0")
    step = 'echo "ranks 2"; echo "ranks ${PMIX_RANK:-2}${OMPI_COMM_WORLD_SIZE:-}"; '
    step += 'test "$OMPI_MCA_btl_tcp_if_include" = eth0'
    plugins(programs, step=step, errors=False)
    inside = situation(job(rank(0), rank(1)), allocation=Allocation("7", 1, 2))
    assert slurm.check_mpi_plugin(inside).verdict == "ok"


def test_an_srun_that_does_not_answer_leaves_mpirun(programs: Path) -> None:
    install(programs, "srun", "echo 'srun: fatal: no configuration' >&2; exit 1")
    finding = slurm.check_mpi_plugin(situation())
    assert finding.verdict == "warning"
    assert "no configuration" in finding.found
    assert "mpirun" in finding.remedy


def look_for_python(folder: Path, script: str) -> Finding:
    """Return what is found where no rank came on a job of two nodes."""
    install(folder, "srun", script)
    return software.check_environment(situation(allocation=Allocation("7", 2, 2)))


def test_where_no_rank_came_the_nodes_without_our_python_are_named(programs: Path) -> None:
    blind = look_for_python(programs, "echo n2")
    assert blind.verdict == "failed"
    assert f"{sys.executable} does not exist on n2" in blind.found
    assert look_for_python(programs, "exit 0").verdict == "ok"
    assert "no nodes" in look_for_python(programs, "echo no nodes >&2; exit 1").found
