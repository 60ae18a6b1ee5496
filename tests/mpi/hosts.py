"""Several hosts on one machine: ranks that are given hosts' names of their own."""

import os
import subprocess
from pathlib import Path

import pytest

_SCRIPT = """#!/bin/sh
host=n$((OMPI_COMM_WORLD_RANK / {ranks_a_host} + 1))
exec unshare --uts sh -c 'hostname "$0" && exec "$@"' "$host" "$@"
"""


def can_name_hosts() -> bool:
    """Tell if this user may give processes a host's name of their own."""
    try:
        done = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


needs_hosts = pytest.mark.skipif(not can_name_hosts(), reason="needs the right to name hosts")


def host_namer(folder: Path, ranks_a_host: int) -> str:
    """Return a program that starts its arguments on host n1, n2, ..., so many ranks on each."""
    program = folder / "on_host"
    program.write_text(_SCRIPT.format(ranks_a_host=ranks_a_host))
    program.chmod(0o755)
    return os.fspath(program)
