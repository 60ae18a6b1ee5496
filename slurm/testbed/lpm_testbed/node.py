"""The first process of a node, in namespaces of its own: sets the node up and watches over it.

Started as `python node.py NAME HOSTS CORES COMMAND...` by `unshare`, it is the node's process 1:
whatever loses its parent there becomes its child, and when it is killed the kernel kills the whole
node.
"""

import os
import signal
import socket
import subprocess
import sys


def main(name: str, hosts: str, cores: str, command: list[str]) -> int:
    """Give the node its name, table of hosts, shared memory and cores; run the command."""
    socket.sethostname(name)
    # In this node's own mount namespace: the machine's table of hosts stays as it is.
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    # Nodes have no memory in common; programs that meet in /dev/shm must not meet across nodes.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "shm", "/dev/shm"], check=True)
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while True:
        pid, status = os.wait()  # also buries orphans of the node
        if pid == daemon.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
