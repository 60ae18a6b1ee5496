"""Training cases in this process, which plays all their ranks."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from hpc_lpm.engine.job import Job
from hpc_lpm.engine.one_process.play import play_ranks
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InterruptedTrainingError
from hpc_lpm.stop_signals import StopSignals
from tests.mpi.plans import placing, write_plan
from tests.mpi.short_evaluation import evaluated_on_few

ALIKE = (
    *("weights_sha256", "train_loss", "test_accuracy", "test_predictions", "lag_counts"),
    *("peak_in_flight", "bytes_sent", "skipped_updates", "drains", "parameter_groups", "cuts"),
    *("ranks", "replicas"),
)
"""What a result has to have in common with that of ranks that are processes."""


def check_alike(played: dict, on_ranks: dict) -> None:
    """Compare two results but for what was measured by a clock."""
    for name in ALIKE:
        assert played[name] == on_ranks[name], (name, played["settings"])
    scores = [
        [{**each, "seconds": 0, "drain_seconds": 0} for each in result["evaluations"]]
        for result in (played, on_ranks)
    ]
    assert scores[0] == scores[1], played["settings"]


@contextmanager
def stopping_after(updates: int) -> Iterator[StopSignals]:
    """Let a signal come after so many updates of all stages together."""
    signals, end_step = StopSignals(), Recorder.end_step
    left = updates

    def count(recorder: Recorder) -> None:
        nonlocal left
        end_step(recorder)
        left -= 1
        if left == 0:
            signals.received = "SIGTERM"

    Recorder.end_step = count  # type: ignore[method-assign]
    try:
        yield signals
    finally:
        Recorder.end_step = end_step  # type: ignore[method-assign]


def interrupt_case(ranks: int, case: dict, folder: Path, updates: int) -> None:
    """Train a case here until a signal stops it."""
    with (
        stopping_after(updates) as signals,
        pytest.raises(InterruptedTrainingError, match="checkpoint saved in"),
    ):
        play_case(ranks, case, folder, signals=signals)


def play_case(
    ranks: int,
    case: dict,
    folder: Path,
    *,
    resume: bool = False,
    signals: StopSignals | None = None,
) -> dict:
    """Train one case of train_cases.py here and return its result."""
    case = {"in_one_process": True, **case}
    case.pop("sleep", None)
    if (cuts := case.pop("cuts", None)) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        case["plan"] = str(folder / "plan-by-hand.json")
        write_plan(cuts, case["model"], Path(case["plan"]), **placing(case))

    def part(job: Job) -> dict | None:
        training = Training(settings, job, resume_from=folder if resume else None)
        result = training.run(folder, None, signals)
        return None if result is None else result.model_dump(mode="json")

    threads, environment = torch.get_num_threads(), dict(os.environ)
    try:
        with evaluated_on_few(case):
            settings = checked_settings(**case)
            first = play_ranks(ranks, settings.receive_timeout_seconds, part)[0]
    finally:
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)
    assert first is not None
    result: dict = json.loads(json.dumps(first))
    return result
