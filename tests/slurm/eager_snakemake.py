"""Snakemake whose Slurm executor looks after its jobs every second.

By itself it looks ever more seldom, after 3, 13, 23 ... s, and a test would wait for that most of
its time. Nothing else of Snakemake is changed.
"""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(  # type: ignore[method-assign]
    lambda executor: 1, lambda executor, seconds: None
)

if __name__ == "__main__":
    sys.exit(main())
