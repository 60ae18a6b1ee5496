"""Run under mpirun: `hpc-lpm`, whose checkpoints are slow to write or do not fit on the disk.

    slow_saving.py RANK HOW ARGUMENTS...

On this rank, files of tensors take HOW seconds from the second on, or are `full` from the second
on: the kernel writes no file beyond some bytes.
"""

import resource
import sys
import time
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from hpc_lpm.engine.checkpoint import save
from hpc_lpm.ranks import rank_from_environment

FULL_BYTES = 20_000
"""Less than a rank's tensors, and more than the log of metrics may have by then: 150 lines of 100.

This rank writes to that log, too, while its thread writes tensors.
"""

written: list[Path] = []


def disturb(how: str) -> None:
    def slowly(tensors: Any, path: Path) -> None:
        written.append(path)
        if len(written) == 1:
            save_file(tensors, path)
        elif how == "full":
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, limits[1]))
            try:
                save_file(tensors, path)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        else:
            time.sleep(float(how))
            save_file(tensors, path)

    save.save_file = slowly  # type: ignore[assignment]


rank, how, *arguments = sys.argv[1:]
if int(rank) == rank_from_environment():
    disturb(how)
sys.argv[1:] = arguments

from hpc_lpm.__main__ import main  # noqa: E402

main()
