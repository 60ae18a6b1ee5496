import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from hpc_lpm.campaign import driver
from hpc_lpm.campaign.driver import Driver, no_driver, take_over
from hpc_lpm.errors import InputError

HOLD = """
import sys
from pathlib import Path
from hpc_lpm.campaign.driver import Driver, take_over
held = take_over(Path(sys.argv[1]), Driver.here(sys.argv[2]), print)
print("held", flush=True)
sys.stdin.read()
"""
QUEUE = """#!/bin/sh
echo "$(basename $0) $*" >> "{folder}/calls"
case "$(basename $0)" in
squeue) [ -e "{folder}/cancelled" ] || printf '11\\n12\\n' ;;
scancel) touch "{folder}/cancelled" ;;
esac
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Slurm with two jobs in its queue; returns the file of what it was asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("squeue", "scancel"):
        (programs / name).write_text(QUEUE.format(folder=programs))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return programs / "calls"


def other_driver(root: Path, job_name: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), job_name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_driver_is_refused_while_the_first_one_lives(tmp_path: Path) -> None:
    first = other_driver(tmp_path / "c", "uuid")
    try:
        with pytest.raises(InputError, match=f"worked on by process {first.pid} on "):
            take_over(tmp_path / "c", Driver.here(None), print)
    finally:
        first.kill()
        first.communicate()
    take_over(tmp_path / "c", Driver.here(None), print).close()


def test_jobs_of_a_driver_that_was_killed_are_ended_once(tmp_path: Path, queue: Path) -> None:
    first = other_driver(tmp_path / "c", "uuid-of-first")
    first.kill()
    first.communicate()
    said: list[str] = []
    take_over(tmp_path / "c", Driver.here("uuid-of-second"), said.append).close()
    assert said == ["ending 2 jobs of a driver that is gone: 11, 12"]
    calls = queue.read_text().splitlines()
    assert "squeue --noheader --name=uuid-of-first --format=%i" in calls
    assert "scancel 11 12" in calls
    assert json.loads((tmp_path / "c" / ".driver").read_text())["job_name"] == "uuid-of-second"


def test_no_driver_starts_while_nobody_knows_what_the_one_before_has_left(
    tmp_path: Path, queue: Path
) -> None:
    first = other_driver(tmp_path / "c", "uuid-of-first")
    first.kill()
    first.communicate()
    squeue = queue.with_name("squeue")
    answering = squeue.read_text()
    squeue.write_text("#!/bin/sh\necho 'cannot reach slurmctld' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"squeue does not tell \(cannot reach slurmctld\): wait"):
        take_over(tmp_path / "c", Driver.here(None), pytest.fail)
    squeue.write_text(answering)
    said: list[str] = []
    take_over(tmp_path / "c", Driver.here(None), said.append).close()
    assert said == ["ending 2 jobs of a driver that is gone: 11, 12"]


def test_without_slurm_nothing_is_asked(tmp_path: Path, queue: Path) -> None:
    take_over(tmp_path / "c", Driver.here(None), print).close()
    take_over(tmp_path / "c", Driver.here(None), print).close()
    assert not queue.exists()


def leave_record(root: Path) -> None:
    """Leave what a driver leaves that was killed."""
    root.mkdir()
    before = Driver(1, "another-node", None, "uuid-of-first")
    (root / ".driver").write_text(json.dumps(asdict(before)))


def test_no_driver_starts_beside_jobs_that_do_not_end(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_record(tmp_path / "c")
    squeue = queue.with_name("squeue")
    squeue.write_text("#!/bin/sh\necho 11\n")
    monkeypatch.setattr(driver, "_GONE_SECONDS", 0.0)
    said: list[str] = []
    with pytest.raises(InputError, match=r"a driver that is gone \(11\), which have not ended"):
        take_over(tmp_path / "c", Driver.here(None), said.append)
    assert said == ["ending 1 jobs of a driver that is gone: 11"]
    squeue.write_text("#!/bin/sh\n")
    take_over(tmp_path / "c", Driver.here(None), pytest.fail).close()


def test_jobs_of_a_driver_that_was_killed_count_as_work_on_the_campaign(
    tmp_path: Path, queue: Path
) -> None:
    leave_record(tmp_path / "c")
    sentence = r"\(11, 12\): wait for them, or end them \(scancel 11 12\)"
    with pytest.raises(InputError, match=sentence), no_driver(tmp_path / "c"):
        pytest.fail("it is removed while jobs write to it")
    queue.with_name("squeue").write_text("#!/bin/sh\n")
    with no_driver(tmp_path / "c"):
        pass
    assert "scancel" not in queue.read_text()
