from datetime import UTC, datetime, timedelta
from pathlib import Path

from hpc_lpm.campaign.launch_records import Attempt, AttemptRecord, begin_attempt, end_attempt

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def attempt(number: int) -> Attempt:
    return Attempt(
        started=START + timedelta(hours=number), job_id=str(number), nodes=(f"n{number}",)
    )


def test_a_trial_that_is_continued_shows_all_its_attempts(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    end_attempt(path, begin_attempt(path, attempt(1)), START, 75)
    begin_attempt(path, attempt(2))  # its node died: nobody wrote its end
    attempts = end_attempt(path, begin_attempt(path, attempt(3)), START, 0)
    assert [found.job_id for found in attempts] == ["1", "2", "3"]
    assert [found.exit_code for found in attempts] == [75, None, 0]
    assert AttemptRecord.read(path).attempts == attempts


def test_a_trial_that_is_run_anew_starts_its_record_over(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    for number in (1, 2):
        attempts = end_attempt(path, begin_attempt(path, attempt(number)), START, 0)
    assert [found.job_id for found in attempts] == ["2"]
