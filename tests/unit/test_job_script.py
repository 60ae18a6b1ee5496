"""slurm/job.sh, which starts every job: what survives of its variables, and who gets signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOB_SH = Path(__file__).parents[2] / "slurm" / "job.sh"
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "1(x2)"}
LONG_SECONDS = 120.0
"""Longer than anything takes that is waited for here."""
LISTENER = """
import os, pathlib, signal, sys, time
caught = []

def catch(number, _):
    caught.append(number)
    pathlib.Path(f"caught-{len(caught)}").touch()

for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, catch)
entry = pathlib.Path(os.environ["HPC_LPM_SIGNALLED"]) / str(os.getpid())
entry.touch()
pathlib.Path("ready").touch()
while len(caught) < int(sys.argv[1]):
    time.sleep(0.01)
# A signal that comes while Python ends would be one without a handler.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])
pathlib.Path("caught").write_text(" ".join(str(int(number)) for number in caught))
sys.exit(75)
"""


def script(folder: Path, command: str) -> Path:
    path = folder / "slurm script"
    path.write_text(f'. "{JOB_SH}" && {command}\n')
    return path


def environment(**variables: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "HPC_LPM_"))}
    return kept | variables


def run(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(script(folder, command))],
        env=environment(**variables),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG_SECONDS,
    )


def test_the_nodes_of_a_job_are_kept_under_names_that_nobody_removes(tmp_path: Path) -> None:
    done = run(tmp_path, "env", **JOB)
    lines = done.stdout.splitlines()
    assert "HPC_LPM_SLURM_JOB_NODELIST=n[1-2]" in lines
    assert "HPC_LPM_SLURM_TASKS_PER_NODE=1(x2)" in lines


def test_a_job_forgets_the_one_that_submitted_it(tmp_path: Path) -> None:
    outer = {"HPC_LPM_SLURM_JOB_ID": "3", "HPC_LPM_SLURM_STEP_NODELIST": "head"}
    done = run(tmp_path, "env", **JOB, **outer)
    assert "HPC_LPM_SLURM_JOB_ID=7" in done.stdout
    assert "HPC_LPM_SLURM_STEP_NODELIST" not in done.stdout


@pytest.mark.parametrize("code", [0, 1, 75])
@pytest.mark.parametrize("variables", [JOB, {}], ids=["in a job", "outside of one"])
def test_the_exit_code_is_that_of_the_command(
    tmp_path: Path, code: int, variables: dict[str, str]
) -> None:
    assert run(tmp_path, f"exit {code}", **variables).returncode == code


def test_outside_of_a_job_nothing_is_changed(tmp_path: Path) -> None:
    assert "HPC_LPM_S" not in run(tmp_path, "env").stdout


@pytest.mark.parametrize("numbers", [[signal.SIGUSR2], [signal.SIGTERM, signal.SIGUSR2]])
def test_signals_reach_whoever_asks_for_them_and_the_script_waits_for_its_command(
    tmp_path: Path, numbers: list[int]
) -> None:
    (tmp_path / "listener.py").write_text(LISTENER)
    command = f'"{sys.executable}" listener.py {len(numbers)}'
    job = subprocess.Popen(
        ["/bin/sh", str(script(tmp_path, command))], env=environment(**JOB), cwd=tmp_path
    )
    wait_for(tmp_path / "ready")
    for count, number in enumerate(numbers, start=1):
        job.send_signal(number)
        wait_for(tmp_path / f"caught-{count}")  # two at once would come in any order
    assert job.wait(LONG_SECONDS) == 75
    assert (tmp_path / "caught").read_text() == " ".join(str(int(number)) for number in numbers)


def test_the_shells_in_between_do_not_die_of_signals_to_the_whole_job(tmp_path: Path) -> None:
    (tmp_path / "listener.py").write_text(LISTENER)
    inner = f"'{sys.executable}' listener.py 1; exit \\$?"
    job = subprocess.Popen(
        ["/bin/sh", str(script(tmp_path, f'bash -c "{inner}"'))],
        env=environment(**JOB),
        cwd=tmp_path,
        start_new_session=True,
    )
    wait_for(tmp_path / "ready")
    os.killpg(job.pid, signal.SIGTERM)
    assert job.wait(LONG_SECONDS) == 75


def test_signals_have_their_folder_where_that_of_temporary_files_is_not_on_the_node(
    tmp_path: Path,
) -> None:
    gone = str(tmp_path / "of another node")
    done = run(tmp_path, 'test -d "$HPC_LPM_SIGNALLED"', TMPDIR=gone, **JOB)
    assert done.returncode == 0, done.stderr


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    done = run(tmp_path, 'echo "$HPC_LPM_SIGNALLED"', **JOB)
    folder = Path(done.stdout.strip())
    assert folder.name
    assert not folder.exists()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
