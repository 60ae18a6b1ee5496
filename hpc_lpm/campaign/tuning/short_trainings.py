"""Short trainings of candidates in turn, on the same ranks: what every rank of a tuning runs."""

import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile, write_text_atomically

FIRST, LAST = 2, 1
"""The steps that are left out at the start and at the end, in which a pipeline fills and drains."""
STEPS = 7
"""The optimizer steps of one short training."""


class Asked(VersionedFile):
    """What the ranks are asked to train: settings by candidate, how often, and until when."""

    kind: ClassVar[str] = "request for short trainings"

    settings: dict[int, dict[str, Any]]
    turns: int
    seconds: float
    parallel: bool


class Trained(BaseModel):
    """One short training: the seconds of its steps and of all of them, or why it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: int
    step_seconds: list[float] = []
    refusal: str | None = None
    seconds: float = 0.0


class Progress(VersionedFile):
    """What has been trained in how many seconds, and what trains now, to be blamed for an end."""

    kind: ClassVar[str] = "record of short trainings"

    trained: tuple[Trained, ...] = ()
    seconds: float = 0.0
    running: int | None = None


def train_in_turn(request: Path, out: Path) -> None:
    """Train the candidates of a request in turn, and keep the progress in `out` (collective)."""
    # Imported here, because they import torch and start MPI.
    from hpc_lpm.engine.job import start_job

    asked = Asked.read(request)
    job = start_job(parallel=asked.parallel)
    began = time.monotonic()
    progress = Progress()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.turns):
            for candidate, settings in asked.settings.items():
                seconds = time.monotonic() - began
                if not job.broadcast(seconds < asked.seconds or not progress.trained):
                    return
                progress = progress.model_copy(update={"running": candidate, "seconds": seconds})
                _keep(progress, out, job.rank)
                if any(one.candidate == candidate and one.refusal for one in progress.trained):
                    continue
                trained = _train(job, candidate, settings, Path(folder))
                if not progress.trained:
                    # In the first training packages are imported, which is part of the start.
                    began = time.monotonic() - trained.seconds
                gc.collect()
                progress = Progress(
                    trained=(*progress.trained, trained), seconds=time.monotonic() - began
                )
                _keep(progress, out, job.rank)


def _keep(progress: Progress, out: Path, rank: int) -> None:
    if rank == 0:
        write_text_atomically(out, json.dumps(progress.model_dump(mode="json")))


def _train(job: Any, candidate: int, settings: dict[str, Any], folder: Path) -> Trained:
    from hpc_lpm.engine.settings import checked_settings
    from hpc_lpm.engine.training import Training

    try:
        result = Training(checked_settings(**settings), job).run(folder, None)
    except InputError as error:  # on every rank alike, before any rank trains
        return Trained(candidate=candidate, refusal=str(error).rstrip("."))
    if result is None:  # of another rank than the first
        return Trained(candidate=candidate)
    return Trained(
        candidate=candidate,
        step_seconds=list(result.step_seconds[FIRST : STEPS - LAST]),
        seconds=result.training_seconds,
    )
