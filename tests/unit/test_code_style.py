"""Lint, format, strict types and the order of the packages hold on the whole tree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("ruff", "check", "--no-cache"),
        ("ruff", "format", "--check", "--no-cache"),
        ("mypy",),
        ("snakefmt", "--check", "Snakefile", "hpc_lpm"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_the_tree_is_clean(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_package_imports_only_from_those_below_it() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_nothing_is_timed_by_a_clock_that_can_be_set() -> None:
    # These compare clocks, or the times of files with that of their file system.
    allowed = {"doctor/clocks.py", "doctor/probe.py", "campaign/fingerprints.py"}
    package = ROOT / "hpc_lpm"
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\btime\.time\(|\btime_ns\(|from time import", path.read_text())
    }
    assert found == allowed
