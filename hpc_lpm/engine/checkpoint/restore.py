"""Going on from a checkpoint: this rank's state, its figures and the run's history."""

from copy import deepcopy

from hpc_lpm.engine.checkpoint.load import CheckpointReader
from hpc_lpm.engine.checkpoint.opened import Checkpoint
from hpc_lpm.engine.checkpoint.together import together
from hpc_lpm.engine.figures import RankFigures
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.runners.runner import TrainedState
from hpc_lpm.errors import InputError


def restore(
    checkpoint: Checkpoint, job: Job, cuts: list[int], state: TrainedState, figures: RankFigures
) -> History:
    """Put this rank back and return what the run has behind it (collective).

    On another partition than before, the figures of single ranks start anew.

    Raises:
        InputError: on every rank, if a file is damaged or the model is another one.
    """

    def put_back() -> None:
        reader = CheckpointReader(checkpoint)
        reader.restore(state)
        if same_partition:
            reader.restore_random(job.rank)
            figures.add_earlier(reader.record(job.rank))
            return
        of_ranks = [reader.record(rank).segments for rank in range(saved.ranks)]
        history.earlier += [list(segment) for segment in zip(*of_ranks, strict=True)]

    saved = checkpoint.manifest
    same_partition = saved.ranks == job.size and saved.cuts == cuts
    history = deepcopy(saved.history)
    together(job, put_back, (InputError,), lambda problem, _: InputError(f"{problem}."))
    history.interruptions += 1
    return history
