"""The first process of a node, in namespaces of its own: sets the node up and watches over it.

`unshare` starts it as `python node.py NAME FOLDER CORES COMMAND...`. It is the node's process 1:
processes of the node that lose their parent become its children, and when it is killed, the kernel
kills the whole node.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

SLURM = Path("/etc/slurm")


def main(name: str, folder: Path, cores: str, command: list[str]) -> int:
    """Give the node its name, configuration, shared memory and cores, and run the command.

    Args:
        name: the node's host name.
        folder: the cluster's folder, which holds its hosts table and its slurm.conf.
        cores: the numbers of the node's cores, separated by commas.
        command: the daemon to run; the node ends when it ends.

    Returns:
        The exit code of the daemon.
    """
    socket.sethostname(name)
    # These mounts are in the node's own namespace, so the machine's files stay as they are.
    _bind(folder / "hosts", Path("/etc/hosts"))
    if SLURM.is_dir():
        # Snakemake's executor removes SLURM_CONF from the environment of what it starts.
        _bind(folder, SLURM)
    # Nodes have no memory in common; programs that meet in /dev/shm must not meet across nodes.
    _mount_memory(Path("/dev/shm"))
    _mount_memory(folder / "sessions")
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while True:
        pid, status = os.wait()  # also reaps the orphans of the node
        if pid == daemon.pid:
            return os.waitstatus_to_exitcode(status)


def _mount_memory(folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "shm", str(folder)], check=True)


def _bind(source: Path, target: Path) -> None:
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
