"""Real ranks and launchers are killed; the trial goes on by itself, and nothing is left of it."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from hpc_lpm.campaign.results import load_results
from tests.mpi.ranks import mpirun
from tests.mpi.test_bad_input import LAYERS, write_plan
from tests.mpi.test_failures import write_plan as write_faulty_plan
from tests.soak.kill_ranks import (
    ENDS_ALIKE,
    LAUNCHER,
    PATIENCE_SECONDS,
    Kill,
    Killer,
    Trial,
    check_as_undisturbed,
    disturbed,
    end,
    left_of,
    result_of,
    starts_of,
)

pytestmark = pytest.mark.mpi

KILLS = [
    Kill("saving", 1, 2),
    Kill("starting", 0, 1.5),
    Kill("training", LAUNCHER, 4),
]


def test_a_run_whose_ranks_and_launchers_are_killed_ends_in_the_bits_of_a_whole_one(
    tmp_path: Path,
) -> None:
    trial = Trial(tmp_path / "run", 600, lambda path: write_plan(path, LAYERS, 2), stages=2)
    said: list[str] = []
    outcome = disturbed(trial, KILLS, said.append)
    check_as_undisturbed(trial, KILLS, outcome)
    assert f"restart {len(KILLS)} of {len(KILLS)}" in outcome.said
    assert f"restart {len(KILLS)} of {len(KILLS)}\n" in (trial.run / "train.log").read_text()


def test_a_layer_that_fails_at_the_same_step_again_ends_a_trial_by_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(Path(__file__).with_name("faulty_model.py"), tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def plan(path: Path) -> None:
        write_faulty_plan(tmp_path).rename(path)

    trial = Trial(
        tmp_path / "run",
        40,
        plan,
        stages=2,
        models=["faulty_model:make,fault=late"],
        checkpoint_steps=0,
    )
    launched = trial.launch("--restarts", "9")
    launched.wait(timeout=PATIENCE_SECONDS)
    said = trial.said()
    assert launched.returncode == 1, said
    first, second = starts_of(trial.run)
    assert (first["exit_code"], second["exit_code"]) == (1, 1)
    assert 0 < first["step"] == second["step"]
    (sentence,) = [line for line in said.splitlines() if line.startswith(f"{trial.name} ends: ")]
    assert f"failed after step {first['step']} (exit code 1), and had come as far" in sentence
    assert left_of(trial.root) == []


def test_a_trial_whose_device_is_gone_goes_on_with_one_less_as_if_resumed_by_hand(
    tmp_path: Path,
) -> None:
    trial = Trial(tmp_path / "run", 300, lambda path: write_plan(path, LAYERS, 3), stages=3)
    profile = trial.steps.profiles_of(trial.trial)[trial.trial.micro_batch]
    arguments = trial.steps.profiles[profile.stem].arguments
    measured = mpirun(1, "-m", "hpc_lpm", *arguments)
    assert measured.returncode == 0, measured.stderr

    launched, by_hand = trial.launch("--elastic"), tmp_path / "by-hand"
    try:
        killer = Killer(trial, launched)
        killer.kill(Kill("training", 2, 12))
        third = killer.ranks()[2]
        # Without it the others train nothing meanwhile.
        third.suspend()
        shutil.copytree(trial.run, by_hand, ignore=shutil.ignore_patterns("hang", ".*"))
        third.kill()
        launched.wait(timeout=2 * PATIENCE_SECONDS)
    finally:
        end(launched)
    said = trial.said()
    assert launched.returncode == 0, said
    assert "planned again for 2 of 3 ranks" in said
    assert [each["planned_for"] for each in starts_of(trial.run)] == [None, None, 2]
    assert left_of(trial.root) == []

    found = result_of(trial.run)
    assert found["ranks"] == 2 and len(found["cuts"]) == 3
    resumed = trial.undisturbed(2, by_hand, "--resume")
    for name in (*ENDS_ALIKE, "cuts", "interruptions"):
        assert found[name] == resumed[name], name

    results = load_results(trial.root)
    assert results.runs == [] and len(results.summary) == 0
    assert "planned again for 2 of 3 ranks" in results.missing[0].reason


def test_a_launch_that_is_asked_to_stop_starts_nothing_again(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "run", 4000, lambda path: write_plan(path, LAYERS, 2), stages=2)
    launched = trial.launch()
    try:
        killer = Killer(trial, launched)
        killer.ranks()
        killer.wait_for_steps(3)
        launched.send_signal(signal.SIGTERM)
        launched.wait(timeout=PATIENCE_SECONDS)
    finally:
        end(launched)
    assert launched.returncode == 75, trial.said()
    assert [each["exit_code"] for each in starts_of(trial.run)] == [75]
    assert left_of(trial.root) == []
