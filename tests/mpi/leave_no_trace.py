"""What a training leaves behind in its process, removed before the next one."""

import gc
import sys

import torch.distributed

from hpc_lpm.engine.job import Job


def end_groups(job: Job) -> None:
    """End the process groups of a training but for that of all ranks, and Horovod (collective).

    A user's process ends with its training. Here others follow, and every group would keep threads
    that look for work a hundred times a second: after some dozen trainings they take all cores.
    """
    gc.collect()
    job.barrier()
    if (horovod := sys.modules.get("horovod.torch")) is not None:
        horovod.shutdown()
    if torch.distributed.is_initialized():
        groups = set(torch.distributed.distributed_c10d._world.pg_map)
        for group in groups - {torch.distributed.group.WORLD}:
            torch.distributed.destroy_process_group(group)
    # What is here now stays. Looking through all that torch has imported would take longer, the
    # next time, than a tiny training.
    gc.freeze()
