"""Checks what a machine has and allows, and installs Debian's packages where they are missing."""

import os
import sys
from pathlib import Path

from lpm_testbed.commands import attempt, installed, run
from lpm_testbed.errors import TestbedError

# The package of each program or file. libpmix-dev has the link by which Slurm's plugin finds PMIx,
# without which srun cannot start ranks of Open MPI.
_PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge", "ip": "iproute2"}
_LIBRARIES = {"libpmix-dev": "usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so"}
_KERNEL_PROGRAMS = ("tc", "unshare", "nsenter", "mount")
_POLICY = Path("/usr/sbin/policy-rc.d")


def check_rights() -> None:
    """Check that this is Linux and that the user is root.

    Raises:
        TestbedError: if it is not Linux or the user is not root.
    """
    if not sys.platform.startswith("linux"):
        raise TestbedError(f"the testbed needs Linux, this is {sys.platform}.")
    if os.geteuid() != 0:
        raise TestbedError(
            "the testbed needs root, which makes network namespaces: run it with sudo, or on a "
            "machine of your own."
        )


def ensure_installed() -> None:
    """Install Slurm and munge if they are missing, without starting services of the machine.

    Raises:
        TestbedError: naming the programs that are missing and cannot be installed.
    """
    needed = [package for program, package in _PROGRAMS.items() if not installed(program)]
    # These are not strictly needed, as another distribution may have them under another path.
    wanted = [package for package, path in _LIBRARIES.items() if not (Path("/") / path).exists()]
    if needed and not installed("apt-get"):
        raise TestbedError(
            f"{' and '.join(dict.fromkeys(needed))} are not installed, and there is no apt-get to "
            "install them with: install Slurm and munge first."
        )
    if installed("apt-get"):
        _install(list(dict.fromkeys(needed)), wanted)
    missing = [program for program in (*_PROGRAMS, *_KERNEL_PROGRAMS) if not installed(program)]
    if missing:
        raise TestbedError(f"{', '.join(missing)} cannot be found: install slurm-wlm and munge.")


def _install(needed: list[str], wanted: list[str]) -> None:
    if not needed and not wanted:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # Wait while another run of this program, or of apt, installs packages.
    patient = ("-o", "DPkg::Lock::Timeout=300")
    install = ["apt-get", "-qq", *patient, "install", "-y", "--no-install-recommends"]
    keep_services_off = not _POLICY.exists()
    if keep_services_off:
        # Debian starts the services that it installs, but only the testbed's daemons are wanted.
        _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
        _POLICY.chmod(0o755)
    try:
        attempt(["apt-get", "-qq", "update"])
        if needed:
            run([*install, *needed], environment)
        for package in wanted:
            attempt([*install, package])
    finally:
        if keep_services_off:
            _POLICY.unlink()
