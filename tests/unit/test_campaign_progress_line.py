import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from campaign_folders import STARTED, campaign, write_run

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.progress_line import ProgressLine
from hpc_lpm.campaign.run_log import read_run_log
from hpc_lpm.campaign.steps import Steps


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write_metrics(folder: CampaignFolder, name: str, lines: list[dict[str, float]]) -> None:
    folder.run(name).mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder.run(name) / "metrics.jsonl").write_text(text + '{"step": 9, "sec')


def test_the_line_says_where_trial_and_campaign_stand(tmp_path: Path) -> None:
    chosen = campaign(strategies=["sequential", "fbp"], repeats=2, epochs=4, batch_size=64)
    folder = CampaignFolder(tmp_path)
    steps = Steps(chosen, folder)
    first, second, *_ = steps.trials.values()
    write_run(folder, chosen, first)
    write_metrics(
        folder,
        second.name,
        [
            {"step": 0, "epoch": 0, "loss": 2, "seconds": 1.0},
            {"step": 0, "validation_loss": 2.5, "evaluation_seconds": 9.0},
            {"step": 1, "epoch": 0, "loss": 1, "seconds": 1.0},
            {"epoch": 0, "test_accuracy": 0.931},
        ],
    )
    clock = Clock()
    progress = ProgressLine(steps, second.name, clock)
    clock.now = 10.0
    # A quarter of this trial took 10 s, so it takes 40; each of the two sequential ones takes 30.
    assert progress.line() == (
        "[2/4] fbp seed 0 repeat 0 | epoch 2/4 | 64.0 samples/s | accuracy 93.1 % | "
        "campaign 31 %, about 2 min left"
    )


def test_before_anything_is_known_no_time_is_promised(tmp_path: Path) -> None:
    steps = Steps(campaign(strategies=["fbp"]), CampaignFolder(tmp_path))
    line = ProgressLine(steps, next(iter(steps.trials))).line()
    assert line == "[1/2] fbp seed 0 repeat 0 | starting | campaign 0 %"


def test_a_trial_of_so_many_steps_counts_steps(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    steps = Steps(campaign(strategies=["fbp"], epochs=None, steps=4, repeats=1), folder)
    name = next(iter(steps.trials))
    write_metrics(folder, name, [{"step": 0, "epoch": 0, "loss": 2, "seconds": 2.0}])
    assert "step 1/4 | 32.0 samples/s | campaign 25 %" in ProgressLine(steps, name).line()


@pytest.mark.parametrize(
    "changes",
    [
        {"strategies": [{"fbp": {"steps": 8}}]},
        {"strategies": ["fbp"], "epochs": None, "steps": 4, "lengths": [8]},
    ],
    ids=["of a contestant", "for a target"],
)
def test_a_run_of_another_length_than_usual_counts_up_to_its_own(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = CampaignFolder(tmp_path)
    steps = Steps(campaign(**changes, repeats=1), folder)
    name = next(iter(steps.trials))
    done = [{"step": step, "epoch": 0, "loss": 2, "seconds": 2.0} for step in range(2)]
    write_metrics(folder, name, done)
    assert "step 2/8 | 32.0 samples/s" in ProgressLine(steps, name).line()


def test_the_time_left_is_told_by_trials_of_the_same_model(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    chosen = campaign(strategies=["sequential"], models=["resnet20", "resnet110"], repeats=2)
    steps = Steps(chosen, folder)
    *done, last = steps.trials.values()
    for trial in done:
        write_run(folder, chosen, trial)
        seconds = 300 if trial.model == last.model else 30
        path = folder.run(trial) / "launch.json"
        ended = STARTED + timedelta(seconds=seconds)
        Launch.read(path).model_copy(update={"started": STARTED, "ended": ended}).write(path)
    line = ProgressLine(steps, last.name, Clock()).line()
    assert last.model == "resnet110"
    assert line.endswith("about 5 min left")


@pytest.mark.parametrize(("exit_code", "word"), [(0, "done in 7 s"), (1, "failed after 7 s")])
def test_the_closing_line_says_how_it_ended(tmp_path: Path, exit_code: int, word: str) -> None:
    steps = Steps(campaign(strategies=["fbp"]), CampaignFolder(tmp_path))
    clock = Clock()
    progress = ProgressLine(steps, next(iter(steps.trials)), clock)
    clock.now = 7.0
    assert progress.closing_line(exit_code).endswith(word)


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "seconds": 1.5, "loss": 2.0}\n{"step": 1, "seco')
    metrics = read_run_log(path)
    assert metrics.step_seconds == [1.5]


def test_a_launch_lasts_from_start_to_end() -> None:
    launch = Launch(
        command=["a"],
        ranks=1,
        started=STARTED,
        ended=STARTED + timedelta(seconds=12.5),
        exit_code=0,
    )
    assert launch.seconds == 12.5
