"""Run under mpirun: `hpc-lpm`, one rank of which is killed in the middle of training.

    dying_rank.py RANK STEP CHECKPOINT ARGUMENTS...

It is killed after its so-manieth update, once the folder CHECKPOINT is there: files are written
behind training, which may be faster.
"""

import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.ranks import rank_from_environment

rank, step, checkpoint, *arguments = sys.argv[1:]
undisturbed, updates = Recorder.end_step, count(1)


def end_step(recorder: Recorder) -> None:
    undisturbed(recorder)
    if next(updates) == int(step):
        while not Path(checkpoint).exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


if int(rank) == rank_from_environment():
    Recorder.end_step = end_step  # type: ignore[method-assign]
sys.argv[1:] = arguments

from hpc_lpm.cli.main import main  # noqa: E402

main()
