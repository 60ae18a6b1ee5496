"""The lock that set-up installs from: whole, with hashes, and what its command writes."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, metadata, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from hpc_lpm.campaign.environment import CONSTRAINTS, compare_with_lock

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "config" / "environment" / "lock"
OF_THE_ENVIRONMENT = ("packages", "sources", "torch-cuda")
"""Files whose packages constraints.txt names; the CPU build is another build of the same torch."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def logical_lines(file: Path) -> list[str]:
    text = file.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins_of(*names: str) -> dict[str, str]:
    requirements = [
        Requirement(line.split(" --hash")[0])
        for name in names
        for line in logical_lines(LOCK / f"{name}.txt")
    ]
    pins = {canonicalize_name(each.name): str(each.specifier)[2:] for each in requirements}
    assert len(pins) == len(requirements), "a package is locked twice"
    return pins


@pytest.mark.parametrize("file", sorted(LOCK.iterdir()), ids=lambda file: file.name)
def test_every_package_has_one_version_and_the_hashes_of_its_files(file: Path) -> None:
    lines = logical_lines(file)
    assert lines
    for line in lines:
        # No address, no option and no marker beside them.
        assert re.fullmatch(r"[\w.-]+==[\w.+]+( +--hash=sha256:[0-9a-f]{64})+ *", line), line


def test_versions_are_stated_once() -> None:
    pins = [Requirement(line) for line in logical_lines(CONSTRAINTS)]
    stated = {canonicalize_name(each.name): str(each.specifier)[2:] for each in pins}
    assert stated == pins_of(*OF_THE_ENVIRONMENT)
    assert pins_of("torch-cpu") == {"torch": f"{stated['torch']}+cpu"}
    assert (ROOT / "config/environment/constraints.txt").samefile(CONSTRAINTS)


def needed(
    name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]
) -> Iterator[Requirement]:
    """Yield what an installed package needs here, and what that needs."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for text in requires(name) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": e}) for e in (extras or {""})):
            yield requirement
            yield from needed(requirement.name, frozenset(requirement.extras), seen)


def test_the_lock_has_all_that_the_toolkit_needs_directly_and_indirectly() -> None:
    pins = pins_of(*OF_THE_ENVIRONMENT) | pins_of("horovod")
    options = PROJECT["project"]["optional-dependencies"]
    direct = [*PROJECT["project"]["dependencies"], *options["dev"], *options["horovod"]]
    # The tools are installed before what is built without isolation.
    direct += [*PROJECT["build-system"]["requires"], "wheel", "cmake>=3.25,<4", "ninja"]
    asked = [Requirement(text) for text in direct]
    seen: set[tuple[str, frozenset[str]]] = set()
    asked += needed("hpc-lpm", frozenset({"dev", "horovod"}), seen)
    assert len({each.name for each in asked}) > 150
    asked = [each for each in asked if each.name != "hpc-lpm"]
    assert {canonicalize_name(each.name) for each in asked} - pins.keys() == set()
    unfit = {
        f"{each}, but {pins[canonicalize_name(each.name)]} is locked"
        for each in asked
        if not each.specifier.contains(pins[canonicalize_name(each.name)], prereleases=True)
    }
    assert unfit == set()


def test_what_is_installed_is_what_is_locked() -> None:
    installed = {each.metadata["Name"]: each.version for each in distributions()}
    compared = compare_with_lock(CONSTRAINTS, installed)
    assert compared is not None
    assert compared["differing"] == {}
    assert set(compared["not_locked"]) <= {"hpc-lpm", "horovod", "pip"}
    assert {"horovod": installed["horovod"]} == pins_of("horovod")


def test_the_pinned_packages_accept_the_oldest_python_of_a_current_system() -> None:
    """Debian 12 has Python 3.11.2: pip would search for hours and then give up."""
    refusing = []
    for name, version in pins_of(*OF_THE_ENVIRONMENT).items():
        try:
            found = metadata(name)
        except PackageNotFoundError:
            continue
        accepted = SpecifierSet(found.get("Requires-Python", ""))
        if found["Version"] == version and not accepted.contains("3.11.2"):
            refusing.append(f"{name}=={version} wants Python {accepted}")
    assert refusing == []


def test_the_lock_is_what_its_command_writes(tmp_path: Path) -> None:
    """With a resolver that finds what is locked, and no index that torch could be fetched from."""
    scripts = tmp_path / "config" / "environment"
    constraints = tmp_path / CONSTRAINTS.relative_to(ROOT)
    constraints.parent.mkdir(parents=True)
    shutil.copytree(LOCK, scripts / "lock")
    shutil.copy(ROOT / "config/environment/lock.py", scripts)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(CONSTRAINTS, constraints)
    found = tmp_path / "found"
    found.mkdir()
    by_name = {
        re.split("==", entry)[0]: entry
        for name in OF_THE_ENVIRONMENT
        for entry in re.findall(
            r"(?m)^[\w.-]+==(?:.*\\\n)*.*\n", (LOCK / f"{name}.txt").read_text()
        )
    }
    (found / "project").write_text("".join(text for _, text in sorted(by_name.items())))
    for name in ("horovod", "crate-validator"):
        shutil.copy(LOCK / f"{name}.txt", found / name)
    resolver = tmp_path / "bin" / "uv"
    resolver.parent.mkdir()
    resolver.write_text(
        f"""#!/usr/bin/env bash
case "$*" in
*pyproject.toml*) name=project ;;
*--no-deps*) name=horovod ;;
*) name=crate-validator ;;
esac
# The versions so far are there for the resolver to prefer.
[ $name = horovod ] || grep -q '^click==' "${{!#}}" || exit 1
cp "{found}/$name" "${{!#}}"
"""
    )
    resolver.chmod(0o755)
    before = {path.name: path.read_bytes() for path in (scripts / "lock").iterdir()}
    run_lock = [sys.executable, str(scripts / "lock.py"), "--upgrade"]
    path = f"{resolver.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PATH": path}
    subprocess.run(run_lock, env=environment | offline, check=True)
    assert {path.name: path.read_bytes() for path in (scripts / "lock").iterdir()} == before
    assert constraints.read_bytes() == CONSTRAINTS.read_bytes()
    # A torch whose CPU build is nowhere to be found is refused, and nothing is half written.
    (found / "project").write_text((found / "project").read_text().replace("torch==2", "torch==9"))
    done = subprocess.run(
        run_lock, env=environment | offline, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "was not found where pip looks for packages: name a place" in done.stderr
    assert {path.name: path.read_bytes() for path in (scripts / "lock").iterdir()} == before
