"""The toolkit as it is installed from its wheel, in an environment of its own.

The environment has links to everything that this one holds but the toolkit, so that nothing has to
be fetched, and nothing of the checkout is to be seen.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OWN = ("hpc_lpm", "__editable__", "__pycache__", "distutils-precedence")


def build_wheel(folder: Path) -> Path:
    """Build the wheel into a folder and return it; nothing is written to the checkout."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "hpc_lpm", source / "hpc_lpm")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder)]
    subprocess.run([*command, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder: Path) -> Path:
    """Make an environment that has all that this one has but the toolkit; return its programs."""
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    here = Path(sys.prefix)
    for program in (here / "bin").iterdir():
        if not (programs / program.name).exists() and program.name not in ("hpc-lpm", "activate"):
            _take_over(program, programs)
    packages = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}")
    _link_all(here / "lib", folder / "lib", packages.name)
    _link_all(here / packages / "site-packages", folder / packages / "site-packages", *_OWN)
    return programs


def environment_of(programs: Path) -> dict[str, str]:
    """Return the variables of a shell in which such an environment has been activated."""
    names = ("PYTHONPATH", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if k not in names and not k.startswith("HPC_LPM")}
    own = str(Path(sys.prefix) / "bin")
    paths = [path for path in os.environ["PATH"].split(os.pathsep) if path != own]
    return kept | {
        "PATH": os.pathsep.join([str(programs), *paths]),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def install(folder: Path) -> Path:
    """Build the wheel, install it into a new environment and return the folder of its programs."""
    wheel = build_wheel(folder / "wheel")
    programs = make_environment(folder / "environment")
    subprocess.run(
        [str(programs / "pip"), "install", "--quiet", str(wheel)],
        env=environment_of(programs),
        check=True,
    )
    return programs


def _take_over(program: Path, programs: Path) -> None:
    with program.open("rb") as stream:
        line = stream.readline()
        if not (line.startswith(b"#!") and b"python" in line):
            (programs / program.name).symlink_to(program)
            return
        text = stream.read()
    script = programs / program.name
    script.write_bytes(b"#!%s\n" % os.fsencode(programs / "python") + text)
    script.chmod(0o755)


def _link_all(source: Path, target: Path, *left_out: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if not entry.name.startswith(left_out) and not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)
