"""What a user should know about the data that were loaded, said once, by one rank."""

import logging
import multiprocessing
from functools import cache

from hpc_lpm.errors import in_one_line
from hpc_lpm.ranks import rank_from_environment

_logger = logging.getLogger(__name__)


@cache
def say_once(sentence: str) -> None:
    """Print a sentence on stderr, on the first rank and unless this process has said it already.

    Processes that load data for a rank load what the rank has loaded, and say nothing.
    """
    if rank_from_environment() == 0 and multiprocessing.parent_process() is None:
        _logger.warning("hpc-lpm: %s", in_one_line(sentence))
