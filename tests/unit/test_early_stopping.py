"""Which evaluation is the best, where a run stops early, and what may be watched."""

import math
import random

import pytest

from hpc_lpm.engine.early_stopping import EarlyStop, WatchedMetric
from hpc_lpm.engine.evaluation import Evaluation
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError


def evaluations(*losses: float | None, part: str = "validation") -> list[Evaluation]:
    return [Evaluation(3 * n, n, part, loss, {}) for n, loss in enumerate(losses, start=1)]


LOSS = WatchedMetric("validation", "loss", higher_is_better=False, patience=2)


def test_a_run_stops_after_so_many_evaluations_without_improvement() -> None:
    assert LOSS.stop(evaluations(2.0, 1.0, 1.0), 9) is None
    assert LOSS.stop(evaluations(2.0, 1.0, 1.0, 1.5), 12) == EarlyStop(
        12, 4, "validation_loss", 2, 1.0, 6
    )
    assert LOSS.stop(evaluations(2.0, 1.0, 1.0, 0.5), 12) is None
    # Whoever has trained since the last evaluation trains on to the next.
    assert LOSS.stop(evaluations(1.0, 1.0, 1.0), 10) is None


def test_losses_that_are_not_finite_never_improve() -> None:
    assert LOSS.stop(evaluations(None, None), 6) == EarlyStop(
        6, 2, "validation_loss", 2, None, None
    )
    assert LOSS.stop(evaluations(None, 1.0, None), 9) is None
    assert "no finite value in 2 evaluations" in str(EarlyStop(6, 2, "m", 2, None, None).sentence())


def test_only_the_watched_part_counts_and_the_first_best_stays_the_best() -> None:
    mixed = [*evaluations(2.0, 1.0, 1.0), *evaluations(0.1, part="test")]
    assert LOSS.best(mixed) == mixed[1]
    highest = WatchedMetric("validation", "loss", higher_is_better=True)
    assert highest.best(mixed) == mixed[0]
    assert highest.stop(mixed, 9) is None  # no patience, no stop


def test_the_stop_is_where_a_count_of_evaluations_since_the_least_loss_says() -> None:
    generator = random.Random(0)
    for _ in range(200):
        losses = [generator.choice([0.0, 1.0, 2.0, 3.0]) for _ in range(8)]
        lowest, waited, expected = math.inf, 0, None
        for number, loss in enumerate(losses, start=1):
            lowest, waited = (loss, 0) if loss < lowest else (lowest, waited + 1)
            if waited == LOSS.patience:
                expected = number
                break
        found = next((n for n in range(1, 9) if LOSS.stop(evaluations(*losses[:n]), 3 * n)), None)
        assert found == expected, losses


RUN = {"model": "mlp", "dataset": "digits", "epochs": 1, "batch_size": 256}


def test_what_is_watched_is_the_loss_of_the_validation_part_or_what_is_asked_for() -> None:
    def watched(**more: object) -> WatchedMetric:
        return Training(checked_settings(**RUN, **more), SingleProcess()).watched

    assert watched() == WatchedMetric("test", "loss", False)
    assert watched(validation=0.2, patience=3) == WatchedMetric("validation", "loss", False, 3)
    accuracy = WatchedMetric("test", "accuracy", True)
    assert watched(patience_metric="accuracy") == accuracy
    assert watched(patience_metric="test_accuracy") == accuracy
    assert watched(patience_mode="max") == WatchedMetric("test", "loss", True)
    with pytest.raises(InputError, match="accepted are loss, accuracy, of the validation part"):
        watched(validation=0.2, patience_metric="test_loss")
    with pytest.raises(InputError, match="did you mean 'accuracy'"):
        watched(validation=0.2, patience_metric="acuracy")
