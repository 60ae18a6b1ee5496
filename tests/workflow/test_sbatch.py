"""campaign.sbatch with a stand-in for snakemake: what it calls, and how it ends."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from hpc_lpm.study.record import StudyRecord

SCRIPT = Path(__file__).parents[2] / "slurm" / "campaign.sbatch"
STAND_IN = """#!/bin/bash
echo "called with: $*" >> calls.txt
env | grep ^SLURM_ >> calls.txt
exit ${STAND_IN_EXIT_CODE:-0}
"""
# Not in bash, which may lose an interrupt that comes while it starts a command.
PATIENT_STAND_IN = """#!/usr/bin/env python3
import signal, sys, time
count = 0
def note(text):
    with open("calls.txt", "a") as calls:
        calls.write(text + chr(10))
def interrupted(*_):
    global count
    count += 1
    note(f"interrupt {count}")
    if count == 2:
        sys.exit(1)
signal.signal(signal.SIGINT, interrupted)
note("started")
while True:
    time.sleep(0.1)
"""


def checkout(folder: Path, stand_in: str = STAND_IN) -> Path:
    (folder / "slurm").mkdir(parents=True)
    (folder / "config").mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "Snakefile").touch()
    (folder / "config" / "quick.yaml").touch()
    shutil.copy(SCRIPT, folder / "slurm")
    program = folder / ".venv" / "bin" / "snakemake"
    program.write_text(stand_in)
    program.chmod(0o755)
    return folder


def submit(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "slurm/campaign.sbatch", *arguments],
        cwd=folder,
        env=os.environ | {"SLURM_SUBMIT_DIR": str(folder)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_drives_the_profile_without_the_variables_of_its_own_job(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "a checkout")
    done = submit(folder, SLURM_JOB_ID="7", SLURM_CONF="/etc/slurm.conf", SLURM_MEM_PER_NODE="9")
    assert done.returncode == 0, done.stderr
    calls = (folder / "calls.txt").read_text().splitlines()
    assert calls == [
        "called with: --profile slurm",
        "SLURM_CONF=/etc/slurm.conf",
    ]


def test_the_campaign_and_more_options_are_passed_on(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "c")
    (folder / "my campaign.yaml").touch()
    submit(folder, "my campaign.yaml", "--dry-run")
    called = (folder / "calls.txt").read_text().splitlines()[0]
    assert called == "called with: --profile slurm --configfile my campaign.yaml --dry-run"


@pytest.mark.parametrize("code", ["0", "1", "3"])
def test_the_exit_code_is_that_of_the_campaign(tmp_path: Path, code: str) -> None:
    folder = checkout(tmp_path / "c")
    assert submit(folder, STAND_IN_EXIT_CODE=code).returncode == int(code)


@pytest.mark.parametrize("missing", ["Snakefile", "config/quick.yaml", ".venv/bin/snakemake"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    folder = checkout(tmp_path / "c")
    (folder / missing).unlink()
    done = submit(folder, "config/quick.yaml", PATH="/usr/bin:/bin")
    assert done.returncode == 2
    assert missing in done.stderr
    assert done.stderr.count("\n") == 1


def test_snakemake_is_that_of_the_folder_else_of_the_shell_else_of_the_environment_of_init(
    tmp_path: Path,
) -> None:
    folder = checkout(tmp_path / "c")
    programs = {}
    for name in ("of the shell", "of init"):
        program = tmp_path / name / "snakemake"
        program.parent.mkdir()
        program.write_text(f"#!/bin/bash\necho '{name}' >> calls.txt\n")
        program.chmod(0o755)
        programs[name] = str(program.parent)
    StudyRecord(programs=programs["of init"], files={}).write(folder / ".hpc-lpm.json")
    path = f"{programs['of the shell']}:/usr/bin:/bin"
    submit(folder, PATH=path)
    (folder / ".venv" / "bin" / "snakemake").unlink()
    submit(folder, PATH=path)
    submit(folder, PATH="/usr/bin:/bin")
    calls = (folder / "calls.txt").read_text().splitlines()
    assert calls[0].startswith("called with")
    assert calls[-2:] == ["of the shell", "of init"]


def test_the_end_of_its_time_stops_the_driver_in_order(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "c", PATIENT_STAND_IN)
    assert code_at_the_end_of_its_time(folder) == 1
    calls = (folder / "calls.txt").read_text().splitlines()
    assert calls == ["started", "interrupt 1", "interrupt 2"]


def test_the_exit_code_is_that_of_a_driver_that_ends_at_the_first_interrupt(
    tmp_path: Path,
) -> None:
    hasty = PATIENT_STAND_IN.replace("count == 2", "count == 1").replace("exit(1)", "exit(3)")
    assert code_at_the_end_of_its_time(checkout(tmp_path / "c", hasty)) == 3


def code_at_the_end_of_its_time(folder: Path) -> int:
    job = subprocess.Popen(["bash", "slurm/campaign.sbatch"], cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "calls.txt").exists():
            assert time.monotonic() < deadline, "the driver does not start"
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        return job.wait(timeout=120)
    finally:
        end_with_children(job)


def end_with_children(job: subprocess.Popen[bytes]) -> None:
    if job.poll() is None:
        for process in [*psutil.Process(job.pid).children(recursive=True), job]:
            process.kill()
