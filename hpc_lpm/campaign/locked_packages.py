"""Whether the installed packages are those that the toolkit was tested with."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def compare_with_lock(constraints: Path, installed: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the SHA-256 of a constraints file and the installed packages that differ from it.

    `differing` maps names to the locked and the installed version; a build of the locked version
    (2.13.0+cpu) does not differ. `not_locked` are installed packages that the file does not name.
    None if the file is not there.
    """
    if not constraints.is_file():
        return None
    content = constraints.read_bytes()
    lines = (line.partition("#")[0].strip() for line in content.decode().splitlines())
    requirements = [Requirement(line) for line in lines if line]
    locked = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    differing: dict[str, dict[str, str]] = {}
    not_locked: list[str] = []
    for name, version in installed.items():
        requirement = locked.get(canonicalize_name(name))
        if requirement is None:
            not_locked.append(name)
        elif not requirement.specifier.contains(version, prereleases=True):
            differing[name] = {"locked": str(requirement.specifier), "installed": version}
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "differing": differing,
        "not_locked": not_locked,
    }
