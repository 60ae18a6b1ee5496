"""Being told of the signals that a Slurm job's script gets: `slurm/job.sh` passes them on."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FOLDER_VARIABLE = "HPC_LPM_SIGNALLED"
"""Names the folder in which a process that wants the script's signals leaves its number."""


@contextmanager
def told_of_job_signals(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Have the signals of the job's script sent to this process, too, while the block runs."""
    folder = Path(environment.get(FOLDER_VARIABLE, ""))
    if FOLDER_VARIABLE not in environment or not folder.is_dir():
        yield
        return
    entry = folder / str(os.getpid())
    entry.touch()
    try:
        yield
    finally:
        entry.unlink(missing_ok=True)
