"""up, down, status and env: also twice, after a crash, without rights, with bad options."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.slurm.testbed import (
    REPOSITORY,
    Shell,
    cluster,
    network_of,
    taken_down_at_last,
    unused_name,
    variables,
)

pytestmark = pytest.mark.slurm

NAME = unused_name("commands")
FOLDER = Path("/run/hpc-lpm-testbed") / NAME
HOSTS = Path("/etc/hosts")
MACHINE_CONFIGURATION = Path("/etc/slurm/slurm.conf")


def traces() -> set[str]:
    """Return everything of this cluster that can be seen from outside."""
    found = set()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    # Another cluster may have a number that begins alike.
    ours = re.compile(rf"\blpm{network_of(NAME)}\b")
    found |= {line for line in links.stdout.splitlines() if ours.search(line)}
    if Path("/run/netns").is_dir():
        found |= {path.name for path in Path("/run/netns").glob(f"lpm-{NAME}-*")}
    for process in psutil.process_iter(["cmdline"]):
        if str(FOLDER) in " ".join(process.info["cmdline"] or ()):
            found.add(str(process))
    if FOLDER.exists():
        found.add(str(FOLDER))
    return found


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    done = cluster("down", name=NAME)
    if done.returncode == 2 and not os.environ.get("CI"):
        pytest.skip(f"no Slurm cluster on this machine: {done.stderr.strip()}")
    with taken_down_at_last(NAME):
        yield


def up(*options: str) -> str:
    done = cluster("up", *options, name=NAME)
    assert done.returncode == 0, done.stderr
    return done.stdout


def idle_nodes() -> set[str]:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%N %T"],
        env=variables(NAME),
        capture_output=True,
        text=True,
        check=False,
    )
    return {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" idle")}


def pid_of(name: str) -> int:
    return int((FOLDER / "pid" / name).read_text().split()[0])


def test_down_leaves_nothing_and_the_machines_files_as_they_were() -> None:
    hosts = HOSTS.read_bytes()
    configuration = MACHINE_CONFIGURATION.resolve() if MACHINE_CONFIGURATION.exists() else None
    up()
    assert HOSTS.read_bytes() == hosts
    assert traces()
    done = cluster("down", name=NAME)
    assert done.returncode == 0
    assert "everything is removed" in done.stdout
    assert not traces()
    assert HOSTS.read_bytes() == hosts
    after = MACHINE_CONFIGURATION.resolve() if MACHINE_CONFIGURATION.exists() else None
    assert after == configuration
    assert "was not up" in cluster("down", name=NAME).stdout


def test_up_twice_keeps_the_cluster_and_its_jobs() -> None:
    up()
    controller = pid_of("slurmctld")
    assert "was up already" in up()
    assert pid_of("slurmctld") == controller


def test_up_with_other_options_makes_another_cluster() -> None:
    up()
    assert "3 nodes of 1 core, links of 200mbit" in up("--nodes", "3", "--rate", "200mbit")
    assert idle_nodes() == {"head", "n1", "n2", "n3"}


@pytest.mark.parametrize("crashed", ["slurmctld", "munged", "n2"])
def test_a_daemon_that_died_is_seen_and_up_mends_it(crashed: str) -> None:
    up()
    os.kill(pid_of(crashed), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (status := cluster("status", name=NAME)).returncode == 0:
        assert time.monotonic() < deadline, status.stdout
        time.sleep(0.1)
    assert status.returncode == 1
    assert f"{crashed} does not run" in status.stdout
    up()
    assert cluster("status", name=NAME).returncode == 0
    assert idle_nodes() == {"head", "n1", "n2"}


def test_what_is_left_without_any_record_is_removed() -> None:
    up()
    os.kill(pid_of("slurmctld"), signal.SIGKILL)
    os.kill(pid_of("munged"), signal.SIGKILL)
    shutil.rmtree(FOLDER)
    assert cluster("status", name=NAME).returncode == 1
    assert "everything is removed" in cluster("down", name=NAME).stdout
    assert not traces()


def test_two_clusters_run_jobs_side_by_side(shell: Shell, cluster_name: str) -> None:
    up()
    other = Shell(variables(NAME), shell.folder)
    script = "hostname -i; scontrol show config | grep -o 'ClusterName.*'"
    # Quiet, since what they say besides goes to the same file.
    command = ("srun", "--quiet", "-n1", "bash", "-c", f"sleep 1; {script}")
    jobs = [one.start(*command) for one in (shell, other)]
    assert [job.wait(timeout=120) for job in jobs] == [0, 0]
    said = sorted(path.read_text() for path in shell.folder.glob("srun-*.out"))
    assert {text.split()[-1] for text in said} == {NAME, cluster_name}
    assert said[0].split()[0] != said[1].split()[0]
    assert cluster("down", name=NAME).returncode == 0
    assert not traces()
    assert cluster("status", name=cluster_name).returncode == 0
    shell.end_jobs()  # the first node is free again
    assert shell.output("srun", "-n1", "hostname").strip() == "n1"


def test_a_cluster_of_the_tests_goes_with_them_however_they_end() -> None:
    program = (
        "import time\n"
        "from tests.slurm.testbed import cluster, taken_down_at_last\n"
        f"with taken_down_at_last({NAME!r}):\n"
        f"    print(cluster('up', name={NAME!r}).returncode, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == b"0\n"
        assert traces()
        tests.kill()
    deadline = time.monotonic() + 120
    while traces():
        assert time.monotonic() < deadline, traces()
        time.sleep(0.2)


def test_jobs_of_the_cluster_end_with_it() -> None:
    up()
    marker = f"3141.{os.getpid()}"  # of these tests alone
    environment = variables(NAME)
    submit = ["sbatch", "--output=/dev/null", "--wrap", f"setsid sleep {marker} & sleep {marker}"]
    subprocess.run(submit, env=environment, check=True, capture_output=True)

    def sleepers() -> list[str]:
        listed = psutil.process_iter(["cmdline"])
        return [str(p) for p in listed if p.info["cmdline"] == ["sleep", marker]]

    deadline = time.monotonic() + 120
    while len(sleepers()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    cluster("down", name=NAME)
    assert not sleepers()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--rate", "fast"), "--rate 'fast'"),
        (("--nodes", "0"), "--nodes 0"),
        (("--cores-per-node", "4096"), "--cores-per-node 4096"),
    ],
)
def test_a_bad_option_is_refused_in_one_sentence(options: tuple[str, ...], named: str) -> None:
    done = cluster("up", *options, name=NAME)
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert not traces()


def test_the_variables_of_a_cluster_that_is_down_are_refused() -> None:
    done = cluster("env", name=NAME)
    assert done.returncode == 2
    assert "is not up" in done.stderr
    assert not done.stdout
