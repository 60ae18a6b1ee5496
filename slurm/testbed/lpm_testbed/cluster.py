"""Brings a cluster up and down, and reports its state."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lpm_testbed import processes
from lpm_testbed.commands import attempt
from lpm_testbed.configuration import SESSIONS, write_configuration
from lpm_testbed.errors import TestbedError
from lpm_testbed.layout import RUNNING, Layout, Node, Options, plan_layout, read_layout
from lpm_testbed.network import (
    build_network,
    check_rate,
    namespaces_of,
    processes_in,
    remove_network,
)
from lpm_testbed.packages import check_rights, ensure_installed

MACHINE_CONFIGURATION = Path("/etc/slurm/slurm.conf")
"""Where Slurm's commands look by default; used where the machine has no Slurm of its own."""

_START_SECONDS = 120.0
_MUNGED, _SLURMCTLD = "munged", "slurmctld"


def bring_up(options: Options) -> tuple[Layout, bool]:
    """Return the cluster and whether it had to be started.

    A working cluster of exactly these options is left as it is; any other one of that name is taken
    down first.

    Raises:
        TestbedError: if rights or packages are missing, or the cluster does not start.
    """
    check_rights()
    check_rate(options.rate)
    layout = plan_layout(options)
    ensure_installed()
    if read_layout(options.name) == layout and not troubles(layout):
        return layout, False
    take_down(options.name)
    try:
        _start(layout)
    except BaseException:
        take_down(options.name)
        raise
    return layout, True


def take_down(name: str) -> bool:
    """Remove everything that a cluster of that name consists of; return whether there was anything.

    Processes are found by their recorded numbers and by the namespaces that they run in, so that a
    cluster whose folder is lost, or whose start was never finished, is removed as well.

    Raises:
        TestbedError: if the user is not root.
    """
    check_rights()
    layout = read_layout(name) or plan_layout(Options(name=name))
    namespaces = namespaces_of(name)
    found = bool(namespaces) or layout.folder.exists()
    daemons = [processes.running(daemon, layout.folder) for daemon in (_SLURMCTLD, _MUNGED)]
    processes.end(pid for pid in daemons if pid)
    nodes = [pid for namespace in namespaces for pid in processes_in(namespace)]
    processes.end(nodes, at_once=True)
    for namespace in namespaces:
        attempt(["ip", "netns", "delete", namespace])
    remove_network(layout)
    if _is_ours(MACHINE_CONFIGURATION, layout):
        MACHINE_CONFIGURATION.unlink()
    shutil.rmtree(layout.folder, ignore_errors=True)
    with suppress(OSError):
        RUNNING.rmdir()  # if no other cluster is up
    return found


def troubles(layout: Layout) -> list[str]:
    """Return a phrase for every part of a cluster that does not run."""
    found = [
        f"{daemon} does not run"
        for daemon in (_MUNGED, _SLURMCTLD)
        if processes.running(daemon, layout.folder) is None
    ]
    namespaces = namespaces_of(layout.options.name)
    for node in layout.nodes():
        if node.namespace not in namespaces:
            found.append(f"node {node.name} has no network")
        elif processes.running(node.name, layout.folder) is None:
            found.append(f"node {node.name} does not run")
    return found


@dataclass(frozen=True)
class NodeStatus:
    """The status of a node: its process, None if it is gone, and its state in Slurm's words."""

    node: Node
    pid: int | None
    state: str


def statuses(layout: Layout) -> list[NodeStatus]:
    """Return the status of each node."""
    states = node_states(layout)
    return [
        NodeStatus(
            node, processes.running(node.name, layout.folder), states.get(node.name, "unknown")
        )
        for node in layout.nodes()
    ]


def node_states(layout: Layout) -> dict[str, str]:
    """Return the state of each node in Slurm's words, empty if the controller does not answer."""
    if not all(processes.running(daemon, layout.folder) for daemon in (_MUNGED, _SLURMCTLD)):
        return {}  # Slurm's commands would keep trying for a minute
    asked = ["env", f"SLURM_CONF={layout.configuration}", "sinfo", "--noheader", "--Node"]
    answer = attempt([*asked, "--format=%N %T"]) or ""
    return dict(line.split() for line in answer.splitlines() if len(line.split()) == 2)


def variables(layout: Layout) -> dict[str, str]:
    """Return the variables with which a shell's commands talk to this cluster."""
    return {
        "SLURM_CONF": str(layout.configuration),
        # Users of the testbed are root, which Open MPI refuses unless it is told twice.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def is_default(layout: Layout) -> bool:
    """Tell if Slurm's commands find this cluster without any variable."""
    return _is_ours(MACHINE_CONFIGURATION, layout)


def _start(layout: Layout) -> None:
    folder = layout.folder
    for sub in ("munge", "log", "pid", "state", "spool", SESSIONS):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    layout.write()
    write_configuration(layout)
    build_network(layout)
    _start_munged(layout)
    processes.start(
        _SLURMCTLD, ["slurmctld", "-D", "-f", str(layout.configuration)], folder, _environment()
    )
    for node in layout.nodes():
        _start_node(node, layout)
    _wait_until_idle(layout)
    if not MACHINE_CONFIGURATION.exists() and MACHINE_CONFIGURATION.parent.is_dir():
        MACHINE_CONFIGURATION.unlink(missing_ok=True)  # a link of a cluster that is gone
        MACHINE_CONFIGURATION.symlink_to(layout.configuration)


def _start_munged(layout: Layout) -> None:
    folder = layout.munge_socket.parent
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    processes.start(
        _MUNGED,
        [
            *("munged", "--foreground", "--force", f"--socket={layout.munge_socket}"),
            *(f"--key-file={key}", f"--pid-file={folder / 'munged.pid'}"),
            *(f"--log-file={folder / 'munged.log'}", f"--seed-file={folder / 'munged.seed'}"),
        ],
        layout.folder,
        _environment(),
    )
    _wait(layout, layout.munge_socket.exists, "munged does not listen")


def _start_node(node: Node, layout: Layout) -> None:
    (layout.folder / "spool" / node.name).mkdir(exist_ok=True)
    program = Path(__file__).with_name("node.py")
    processes.start(
        node.name,
        [
            *("nsenter", f"--net=/run/netns/{node.namespace}", "unshare"),
            *("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, str(program), node.name, str(layout.folder)),
            ",".join(map(str, node.cores)),
            *("slurmd", "-D", "-N", node.name, "-f", str(layout.configuration)),
        ],
        layout.folder,
        _environment(),
    )


def _environment() -> dict[str, str]:
    """Return the environment of daemons, which jobs do not inherit but Slurm's scripts do."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def _wait_until_idle(layout: Layout) -> None:
    def ready() -> bool:
        states = node_states(layout)
        return all(states.get(node.name) == "idle" for node in layout.nodes())

    _wait(layout, ready, "the nodes do not register with slurmctld")


def _wait(layout: Layout, ready: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        stopped = [
            name
            for name in processes.started(layout.folder)
            if processes.running(name, layout.folder) is None
        ]
        if stopped or time.monotonic() > deadline:
            reason = f"{stopped[0]} ended at once" if stopped else problem
            raise TestbedError(f"{reason}: {_last_words(layout, stopped)}")
        time.sleep(0.1)


def _last_words(layout: Layout, stopped: list[str]) -> str:
    for name in stopped or processes.started(layout.folder):
        log = layout.folder / "log" / f"{name}.out"
        if log.exists() and (lines := log.read_text(errors="replace").split("\n")[:-1]):
            return lines[-1]
    return f"nothing was said after {_START_SECONDS:.0f} s"


def _is_ours(link: Path, layout: Layout) -> bool:
    return link.is_symlink() and link.readlink() == layout.configuration
