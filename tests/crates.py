"""The RO-Crate validator, as tests call it."""

import json
import subprocess
import sys
from pathlib import Path

PROFILES = ("ro-crate-1.1", "process-run-crate", "workflow-ro-crate", "workflow-run-crate")
STRICTEST = "workflow-run-crate"
"""The profile that includes what the others ask for."""

_PROGRAM = Path(__file__).with_name("validate_crate.py")
_PYTHON = Path(sys.prefix) / "crate-validator" / "bin" / "python"


def complaints_about(folder: Path, *profiles: str) -> dict[str, list[str]]:
    """Return what the validator finds wrong with the crate in a folder, for each profile."""
    assert _PYTHON.exists(), f"{_PYTHON} is missing: run make setup."
    done = subprocess.run(
        [str(_PYTHON), str(_PROGRAM), str(folder), *profiles],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found
