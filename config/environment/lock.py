"""Write the lock: every package that set-up installs, with its version and the hashes of its files.

    python config/environment/lock.py [--upgrade | --upgrade-package NAME ...]

Packages are found for what pyproject.toml asks for, with the versions that are locked so far; the
two options, which are uv's, let newer ones in. It writes config/environment/lock/ and, from that,
hpc_lpm/campaign/constraints.txt, which names the versions alone.

uv, which finds the hashes of all files of a release, is taken from the search path, or else fetched
by pip into a folder that is then removed. The CPU build of torch, which is not in the package
index, is looked for where pip's settings say; its hashes stay as long as its version does.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LOCK = HERE / "lock"
CONSTRAINTS = ROOT / "hpc_lpm" / "campaign" / "constraints.txt"

OLDEST_PYTHON = "3.11"
PYTHONS = (OLDEST_PYTHON, "3.12", "3.13")
MACHINE, SYSTEM = "x86_64", "manylinux_2_28"
EXTRAS = ("dev",)
BUILD_TOOLS = ("setuptools>=77", "wheel", "cloudpickle", "cmake>=3.25,<4", "ninja")
"""What DeepSpeed and Horovod are built with. CMake 4 refuses Horovod's bundled gloo."""
SOURCES = ("connection-pool", "deepspeed")
"""Packages that are released as source alone. Of all others only wheels are installed."""
VALIDATOR = ("roc-validator==0.13.0", "rocrate==0.15.0")
"""What tests/validate_crate.py runs with. rocrate 0.15 is the last to know RO-Crate 1.1's terms."""

_OF_CUDA = re.compile(r"torch$|triton$|nvidia-|cuda-")
"""The CUDA build of torch and what it brings; the CPU build brings none of it."""
_HEADER = "# Made by config/environment/lock.py (make lock). {}\n"

Entries = Mapping[str, str]
"""Text of each locked package, by its name: a line `NAME==VERSION` and one for each hash."""


def main(options: Sequence[str]) -> None:
    """Write the lock.

    Raises:
        SystemExit: a version, or the CPU build of torch, cannot be found.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uv = shutil.which("uv") or _install_uv(folder)
        extras = [f"--extra={extra}" for extra in EXTRAS]
        project = [str(ROOT / "pyproject.toml"), *extras, *options]
        wheels = ["--only-binary=:all:", *(f"--no-binary={name}" for name in SOURCES)]
        found = _resolve(
            uv, folder, BUILD_TOOLS, [*project, *wheels], versions=CONSTRAINTS.read_text()
        )
        horovod = _resolve(uv, folder, _horovod(), ["--no-deps", "--no-binary=:all:"])
        validator = _resolve(
            uv,
            folder,
            VALIDATOR,
            ["--only-binary=:all:", *options],
            versions=_read("crate-validator.txt"),
        )
    cuda = {name: entry for name, entry in found.items() if _OF_CUDA.match(name)}
    sources = {name: found[name] for name in SOURCES}
    packages = {n: entry for n, entry in found.items() if n not in cuda and n not in sources}
    cpu = _lock_cpu_build(version_of(cuda["torch"]))
    LOCK.mkdir(exist_ok=True)
    _write("packages.txt", "Wheels of all packages but torch.", packages)
    _write("sources.txt", "Packages that have no wheels and are built.", sources)
    _write("torch-cpu.txt", "torch for machines without a GPU.", {"torch": cpu})
    _write("torch-cuda.txt", "torch for machines with an NVIDIA GPU.", cuda)
    _write("horovod.txt", "What build_horovod.sh builds.", horovod)
    _write("crate-validator.txt", "What tests/validate_crate.py runs with.", validator)
    pins = "".join(f"{pin_of(entry)}\n" for entry in found.values())
    CONSTRAINTS.write_text(_HEADER.format("The versions that lock/ holds with hashes.") + pins)


def entries_of(text: str) -> Entries:
    """Return the entries of a file of the lock, by name and in the order of the file."""
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    entries = re.split(r"(?m)^(?=\S)", lines)
    return {re.split("[=\\[]", entry, maxsplit=1)[0]: entry for entry in entries if entry.strip()}


def pin_of(entry: str) -> str:
    """Return `NAME==VERSION` of an entry, nothing of an empty one."""
    return next(iter(entry.split()), "")


def version_of(entry: str) -> str:
    """Return the version of an entry."""
    return pin_of(entry).partition("==")[2]


def _read(name: str) -> str:
    path = LOCK / name
    return path.read_text() if path.exists() else ""


def _write(name: str, holds: str, entries: Entries) -> None:
    (LOCK / name).write_text(_HEADER.format(holds) + "".join(entries.values()))


def _install_uv(folder: Path) -> str:
    venv.create(folder / "tool", with_pip=True)
    _run([str(folder / "tool/bin/python"), "-m", "pip", "install", "--quiet", "uv"])
    return str(folder / "tool/bin/uv")


def _resolve(
    uv: str, folder: Path, requirements: Iterable[str], options: Sequence[str], versions: str = ""
) -> Entries:
    """Return what requirements need, with the versions of a file where they can stay."""
    asked, output = folder / "requirements.in", folder / "requirements.txt"
    asked.write_text("\n".join(requirements))
    output.write_text(versions)
    _run(
        [
            *(uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"),
            *("--python-version", OLDEST_PYTHON, "--python-platform", f"{MACHINE}-{SYSTEM}"),
            *(str(asked), *options, "--output-file", str(output)),
        ]
    )
    return entries_of(output.read_text())


def _horovod() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked: list[str] = project["optional-dependencies"]["horovod"]
    return asked


def _lock_cpu_build(version: str) -> str:
    """Return the entry of torch's CPU build: the wheels found now, and those locked so far."""
    pin = f"torch=={version}+cpu"
    before = entries_of(_read("torch-cpu.txt")).get("torch", "")
    hashes = set(re.findall("sha256:[0-9a-f]{64}", before)) if pin_of(before) == pin else set()
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as folder:
            asked = ("--no-deps", "--only-binary=:all:", f"--platform={SYSTEM}_{MACHINE}")
            where = (f"--python-version={python}", "--dest", folder)
            command = [sys.executable, "-m", "pip", "download", "--quiet", *asked, *where, pin]
            subprocess.run(command, capture_output=True, check=False)
            for wheel in Path(folder).iterdir():
                hashes.add(f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
    if not hashes:
        sys.exit(
            f"lock: {pin} was not found where pip looks for packages: name a place that has it in "
            "PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL."
        )
    return " \\\n".join([pin, *(f"    --hash={value}" for value in sorted(hashes))]) + "\n"


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        sys.exit(f"lock: {command[0]} failed, see above; nothing was written.")


if __name__ == "__main__":
    main(sys.argv[1:])
