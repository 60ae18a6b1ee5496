"""A script of the user's own that ends in some way on some of its ranks, while others wait.

    ending_script.py END RANKS [LIMIT_SECONDS]

The ranks named, as in "0" or "01", come to the END; the others wait for them in a barrier.
"""

import os
import signal
import sys
import time

from hpc_lpm.engine.job import start_job
from hpc_lpm.engine.script_end import guard_script
from hpc_lpm.errors import InputError, TrainingError


def end(how: str) -> None:
    if how == "own":
        raise KeyError("a mistake of mine")
    if how == "input":
        raise InputError("batch 3 has 7 samples, accepted are 8: leave it out.")
    if how == "training":
        raise TrainingError("stage 1, micro-batch 3: the loss is nan.")
    if how == "exit":
        sys.exit(0)
    if how == "interrupt":
        # Shells start background jobs, such as tests, with this signal ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    how, ranks = sys.argv[1:3]
    limit_seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 60.0
    standing = guard_script()
    job = start_job(parallel=False, limit_seconds=limit_seconds)
    standing.step = None if how == "input" else 7
    sys.stdout.write(f"rank {job.rank} has begun\n")
    sys.stdout.flush()
    if str(job.rank) in ranks:
        end(how)
    job.barrier()
    if how == "wait":
        time.sleep(600)


main()
