"""A campaign with a target: what its runs need to reach it, what is refused, and what is told."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.comparison.compare import compare_folders
from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.figures.style import TIMES
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.report import write_report
from hpc_lpm.campaign.results import load_results
from hpc_lpm.campaign.statistics import estimate
from hpc_lpm.campaign.trials import Trial, trials_of
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.evaluation import Evaluation
from hpc_lpm.engine.result import RunResult
from hpc_lpm.errors import InputError

register([])

BASELINE = {"metric": "train_loss", "value": "baseline"}
PAIR = ["sequential", "fbp"]
DECAYING = {"schedule": "cosine"}
Losses = Callable[[Trial, int], list[float]]


def refusal(**changes: Any) -> str:
    with pytest.raises(InputError) as refused:
        check_names(campaign(**changes), "some.yaml")
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("train_los", "'train_los', which is unknown, did you mean 'train_loss'?"),
        ("samples_per_second", "which is no curve over steps"),
        ("my_metrics:HALF", "which is unknown"),
    ],
)
def test_a_metric_without_a_curve_is_refused(metric: str, words: str) -> None:
    message = refusal(target={"metric": metric, "value": 1.0})
    assert words in message
    assert "accepted are train_loss, test_loss, test_accuracy" in message


@pytest.mark.parametrize("value", ["best", True, "1.0", None, float("inf")])
def test_a_value_is_a_number_or_the_baseline(value: object) -> None:
    message = refusal(target={"metric": "train_loss", "value": value})
    assert "target.value: accepted are a number, and baseline" in message


def test_the_keys_of_a_target_are_its_own() -> None:
    assert "unknown key 'windows' in target, did you mean 'window'?" in refusal(
        target={**BASELINE, "windows": 3}
    )


def test_the_baseline_has_to_be_among_the_contestants() -> None:
    message = refusal(strategies=["fbp", "gpipe"], target=BASELINE)
    assert "none of the strategies of the campaign (fbp, gpipe)" in message
    assert "add sequential, or give a number" in message
    check_names(campaign(strategies=["fbp"], target={**BASELINE, "value": 1.5}), "some.yaml")


def test_a_metric_that_no_evaluation_finds_is_refused() -> None:
    message = refusal(target={"metric": "test_acuracy", "value": 0.9})
    assert "test_acuracy, which resnet20 on digits does not have" in message
    assert "did you mean 'test_accuracy'?" in message
    held_out = {"metric": "validation_loss", "value": 0.9}
    assert "set validation to a share" in refusal(target=held_out)
    check_names(campaign(target=held_out, validation=0.1), "some.yaml")


def test_a_window_is_for_the_training_loss() -> None:
    message = refusal(target={"metric": "test_accuracy", "value": 0.9, "window": 3})
    assert "test_accuracy is not smoothed" in message


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("test_accuracy", 95, "never has, since it is a share above 0 and up to 1: write 0.95."),
        ("test_accuracy", 100, "write 1."),
        ("test_accuracy", 0, "write 0.95 for 95 %."),
        ("test_accuracy", -0.5, "write 0.95 for 95 %."),
        ("test_accuracy", 950, "write 0.95 for 95 %."),
        ("test_top5_accuracy", 95, "a share above 0 and up to 1: write 0.95."),
        ("train_loss", -0.1, "never has, since it is never below 0: give one that it can reach."),
        ("test_loss", -0.1, "never has, since it is never below 0"),
        ("test_perplexity", 0.5, "never has, since it is never below 1"),
        ("test_rmse", -1, "never has, since it is never below 0"),
        ("test_mae", -1.5, "the value -1.5, which test_mae never has"),
        ("train_loss", "95%", "accepted are a number, and baseline for .*train_loss is no share"),
    ],
)
def test_a_value_that_the_metric_never_has_is_refused(
    metric: str, value: object, words: str
) -> None:
    evaluated = metric.removeprefix("test_")
    known = {"top5_accuracy", "rmse", "mae", "perplexity"}
    message = refusal(target={"metric": metric, "value": value}, metric=list({evaluated} & known))
    assert re.search(words, message), message
    assert metric in message


def test_a_share_may_be_given_in_percent() -> None:
    for value in ("95%", "95 %", "95.0%", 0.95):
        chosen = campaign(target={"metric": "test_accuracy", "value": value})
        check_names(chosen, "some.yaml")
        assert chosen.target is not None
        assert chosen.target.value == 0.95
    check_names(campaign(target={"metric": "test_accuracy", "value": 1.0}), "some.yaml")
    check_names(campaign(target={"metric": "train_loss", "value": 0}), "some.yaml")


def test_a_loss_of_the_users_own_may_be_below_zero() -> None:
    below = {"metric": "train_loss", "value": -1.0}
    check_names(campaign(target=below, loss="torch.nn:CrossEntropyLoss"), "some.yaml")
    assert "is never below 0" in refusal(target=below, loss="cross-entropy,label_smoothing=0.1")


@pytest.mark.parametrize("window", [59, 400])
def test_a_window_as_long_as_the_runs_is_refused(window: int) -> None:
    message = refusal(epochs=None, steps=59, strategies=PAIR, target={**BASELINE, "window": window})
    assert f"target has the window {window}, but runs of sequential have 59 steps" in message
    assert "a twentieth of the longest run (3)" in message
    kept = campaign(epochs=None, steps=59, strategies=PAIR, target={**BASELINE, "window": 58})
    check_names(kept, "some.yaml")


def test_lengths_that_say_nothing_are_refused() -> None:
    several = {"lengths": [1, 2], "strategies": PAIR}
    assert "they serve a target alone" in refusal(**several)
    assert "its learning rate is constant" in refusal(**several, target=BASELINE)
    decaying = {**several, "target": BASELINE, "learning_rate": DECAYING}
    assert "3 is the usual length" in refusal(**{**decaying, "lengths": [3]})
    assert "list of different whole numbers" in refusal(
        target=BASELINE, learning_rate=DECAYING, strategies=["sequential", {"fbp": {"lengths": 4}}]
    )


def test_every_length_is_a_run_with_a_schedule_of_its_own() -> None:
    chosen = campaign(
        repeats=1,
        target=BASELINE,
        learning_rate=DECAYING,
        lengths=[1],
        strategies=["sequential", {"fbp": {"lengths": [4, 5]}}],
    )
    check_names(chosen, "some.yaml")
    found = [(trial.contestant, trial.length) for trial in trials_of(chosen)]
    assert found == [
        ("sequential", 1),
        ("sequential", None),
        ("fbp", 4),
        ("fbp", 5),
        ("fbp", None),
    ]
    assert len({trial.name for trial in trials_of(chosen)}) == 5


def with_losses(root: Path, chosen: Campaign, losses: Losses) -> CampaignFolder:
    """Write a campaign whose runs have the losses that are given for a trial and its steps."""
    folder = write_folder(root, chosen)
    for trial in trials_of(chosen):
        path = folder.run(trial) / "result.json"
        result = RunResult.read(path)
        steps = 4 * (trial.length or chosen.epochs or 1)
        found = losses(trial, steps)
        result.model_copy(
            update={
                "train_loss": found,
                "step_seconds": [result.step_seconds[0]] * len(found),
                "evaluations": [
                    Evaluation(
                        step,
                        step // 4,
                        "test",
                        2 * loss,
                        {"accuracy": 1 - loss / 10},
                        predictions=9,
                    )
                    for step, loss in enumerate(found, start=1)
                    if step % 4 == 0
                ],
            }
        ).write(path)
    return folder


def halved(trial: Trial, steps: int) -> list[float]:
    """Return losses of 12 - s after s steps, of fbp those of half as many steps."""
    pace = 0.5 if trial.strategy == "fbp" else 1.0
    return [12.0 - pace * step for step in range(1, steps + 1)]


def test_steps_and_seconds_follow_from_the_loss(tmp_path: Path) -> None:
    chosen = campaign(strategies=PAIR, repeats=1, target={**BASELINE, "value": 8.0})
    summary = load_results(with_losses(tmp_path / "c", chosen, halved).root).summary
    # A window of one step; 64 samples a step at 200 and 320 samples a second.
    assert summary["steps_to_target"].tolist() == [4.0, 8.0]
    assert summary["seconds_to_target"].tolist() == pytest.approx([4 * 0.32, 8 * 0.2])
    assert summary["target"].tolist() == ["reached", "reached"]


def test_a_window_of_several_steps_smooths_the_loss(tmp_path: Path) -> None:
    chosen = campaign(strategies=PAIR, repeats=1, target={**BASELINE, "value": 8.0, "window": 3})
    summary = load_results(with_losses(tmp_path / "c", chosen, halved).root).summary
    # The mean of three losses is that of the middle one.
    assert summary["steps_to_target"].tolist() == [5.0, 9.0]


def test_the_baseline_determines_the_value(tmp_path: Path) -> None:
    chosen = campaign(strategies=PAIR, repeats=1, epochs=6, target=BASELINE)
    folder = with_losses(tmp_path / "c", chosen, halved)
    (target,) = load_results(folder.root).targets.values()
    # From 11 to -12 in 24 steps.
    assert target.value == pytest.approx(11 - 0.95 * 23)


def test_a_metric_of_evaluations_is_interpolated_between_them(tmp_path: Path) -> None:
    chosen = campaign(strategies=PAIR, repeats=1, target={"metric": "test_accuracy", "value": 0.35})
    summary = load_results(with_losses(tmp_path / "c", chosen, halved).root).summary
    # 1 - loss / 10 is 0.35 at a loss of 6.5: after 5.5 steps, and after 11 of half the pace.
    assert summary["steps_to_target"].tolist() == pytest.approx([5.5, 11.0])


def test_a_run_that_never_gets_there_is_counted_and_shown(tmp_path: Path) -> None:
    chosen = campaign(strategies=PAIR, seeds=[0, 1, 2], repeats=1, target={**BASELINE, "value": 7})

    def losses(trial: Trial, steps: int) -> list[float]:
        pace = 0.1 if trial.strategy == "fbp" and trial.seed == 2 else 1.0
        return [12.0 - pace * step for step in range(1, steps + 1)]

    folder = with_losses(tmp_path / "c", chosen, losses)
    outcome = write_report(folder.root)
    for table in (
        pd.read_csv(folder.root / "summary.csv"),
        pd.read_parquet(folder.root / "summary.parquet"),
    ):
        fbp = table[table["strategy"] == "fbp"]
        assert fbp["steps_to_target"].fillna(-1).tolist() == [5.0, 5.0, -1.0]
        assert fbp["target"].tolist() == ["reached", "reached", "not reached in 12 steps"]
    statistics = pd.read_csv(folder.root / "statistics.csv")
    row = statistics[
        (statistics["contestant"] == "fbp")
        & (statistics["metric"] == "steps_to_target")
        & statistics["comparison"].isna()
    ].iloc[0]
    assert (row["n"], row["median"], row["minimum"]) == (3, 5.0, 5.0)
    assert math.isnan(row["maximum"])
    assert "did not reach the target" in row["note"]
    (race,) = outcome.races
    assert race.target is not None
    assert [row[-1] for row in race.target.rows if row[0] == "fbp"] == ["2 of 3 reached it"]
    assert "2 of 3 reached it" in folder.report.read_text()


def test_where_no_run_gets_there_the_report_says_in_how_many_steps(tmp_path: Path) -> None:
    chosen = campaign(strategies=PAIR, repeats=2, target={**BASELINE, "value": 3.0})
    folder = with_losses(tmp_path / "c", chosen, halved)
    (race,) = write_report(folder.root).races
    assert race.target is not None
    rows = {row[0]: row for row in race.target.rows}
    assert rows["fbp"][2:] == ["", "", "", "", "not reached in 12 steps"]
    assert race.target.sentence == (
        "Most runs of fbp did not reach a training loss of 3 with resnet20 on digits in 12 steps, "
        "where sequential is after 9."
    )


@pytest.mark.parametrize(
    ("values", "median", "low"),
    [
        ([400, 500, math.inf], 500, None),
        ([400, math.inf, math.inf], math.inf, None),
        ([400, 410, 420, 430, 440, math.inf], 425, 400),
    ],
)
def test_infinite_values_are_larger_than_all_others(
    values: list[float], median: float, low: float | None
) -> None:
    found = estimate(values)
    assert (found.median, found.maximum) == (median, math.inf)
    assert (found.low is None) == (low is None)
    if found.low is not None and found.high is not None:
        assert 400 <= found.low < found.median < found.high


def test_seeds_give_intervals_and_censored_seeds_widen_them(tmp_path: Path) -> None:
    chosen = campaign(
        strategies=PAIR, seeds=list(range(7)), repeats=1, target={**BASELINE, "value": 7.0}
    )

    def losses(trial: Trial, steps: int) -> list[float]:
        late = trial.seed if trial.strategy == "fbp" else 0
        return [12.0 + late - step for step in range(1, steps + 1)]

    statistics = load_results(with_losses(tmp_path / "c", chosen, losses).root).statistics
    rows = statistics[(statistics["metric"] == "steps_to_target")]
    alone = rows[(rows["comparison"] == "") & (rows["contestant"] == "fbp")].iloc[0]
    assert (alone["n"], alone["median"], alone["minimum"], alone["maximum"]) == (7, 8, 5, 11)
    assert alone["interval_low"] < 8 < alone["interval_high"]
    ratio = rows[(rows["relative_to"] == "sequential lpm") | (rows["relative_to"] == "sequential")]
    assert ratio["median"].tolist() == pytest.approx([8 / 5])


def by_length(trial: Trial, steps: int) -> list[float]:
    """Return losses that come down at the end of each run alone, as under a decaying rate.

    A run of n steps ends at 10 - n / 4, that of fbp at 11 - n / 4.
    """
    end = (11.0 if trial.strategy == "fbp" else 10.0) - steps / 4
    return [10.0] * (steps - 1) + [end]


def decaying(**changes: Any) -> Campaign:
    chosen = {
        "strategies": PAIR,
        "repeats": 1,
        "target": {**BASELINE, "value": 7.5},
        "learning_rate": DECAYING,
    }
    return campaign(**(chosen | changes))


def test_under_a_decaying_rate_runs_of_several_lengths_are_interpolated(tmp_path: Path) -> None:
    folder = with_losses(tmp_path / "c", decaying(lengths=[2, 4]), by_length)
    results = load_results(folder.root)
    usual = results.summary[results.summary["length"] == 0]
    # 7.5 is what a run of 10 steps would end at, between those of 8 and 12; fbp needs 14.
    assert usual["steps_to_target"].tolist() == [10.0, 14.0]
    assert usual["seconds_to_target"].tolist() == pytest.approx([10 * 0.32, 14 * 0.2])
    others = results.summary[results.summary["length"] > 0]
    assert others["steps_to_target"].isna().all()
    (target,) = results.targets.values()
    assert target.within_one_run == ()
    (race,) = write_report(folder.root).races
    assert race.target is not None
    assert any("the ends of runs of several lengths" in note for note in race.target.notes)


def test_a_shortest_length_beyond_the_target_is_an_upper_bound(tmp_path: Path) -> None:
    folder = with_losses(tmp_path / "c", decaying(lengths=[4]), by_length)
    results = load_results(folder.root)
    first = results.summary[results.summary["length"] == 0].iloc[0]
    assert (first["steps_to_target"], first["target"]) == (12.0, "reached at the first value")
    (race,) = write_report(folder.root).races
    assert race.target is not None
    assert any("sequential were beyond the target" in note for note in race.target.notes)


def test_one_length_under_a_decaying_rate_is_said_to_be_one(tmp_path: Path) -> None:
    folder = with_losses(tmp_path / "c", decaying(), halved)
    write_report(folder.root)
    page = " ".join(folder.report.read_text().split())
    assert "The learning rate of sequential, fbp changes along the run and one length alone" in page
    assert "set <code>lengths</code>" in page


def test_other_lengths_count_for_nothing_but_the_target(tmp_path: Path) -> None:
    folder = with_losses(tmp_path / "c", decaying(lengths=[1]), by_length)
    statistics = load_results(folder.root).statistics
    speed = statistics[statistics["metric"] == "samples_per_second"]
    assert speed["n"].tolist() == [1] * len(speed)
    write_report(folder.root)
    accuracy = pd.read_csv(folder.figures / "accuracy-resnet20-digits.csv")
    assert not accuracy["trial"].str.contains("length").any()
    curves = pd.read_csv(folder.figures / "target-resnet20-digits.csv")
    assert set(curves["length"]) == {0, 1}


def test_speed_times_the_worth_of_a_step_is_the_time_to_the_target(tmp_path: Path) -> None:
    chosen = campaign(strategies=PAIR, target={**BASELINE, "value": 8.0})
    folder = with_losses(tmp_path / "c", chosen, halved)
    outcome = write_report(folder.root)
    (race,) = outcome.races
    assert race.target is not None
    rows = {row[0]: [cell.partition(" (")[0] for cell in row] for row in race.target.rows}
    # 320 over 200 samples a second, a step worth half of one: 0.8 times as fast.
    assert rows["fbp"][1:5] == [f"1.60{TIMES}", f"0.50{TIMES}", f"0.80{TIMES}", "8"]
    assert rows["sequential"][1:5] == ["1", "1", "1", "4"]
    assert outcome.headline.startswith("fbp reaches a training loss of 8")
    assert "0.80 times as fast as sequential" in outcome.headline
    assert "one step of it is worth 0.50 of one of sequential" in outcome.headline
    page = " ".join(folder.report.read_text().split())
    assert page.index("<h3>Time to target</h3>") < page.index("<h3>Throughput</h3>")
    assert 'href="figures/target-resnet20-digits.svg"' in page
    assert "shows speed alone" not in page


def test_the_headline_has_the_interval_of_its_ratio(tmp_path: Path) -> None:
    chosen = campaign(
        strategies=PAIR, seeds=list(range(6)), repeats=1, target={**BASELINE, "value": 8.0}
    )
    headline = write_report(with_losses(tmp_path / "c", chosen, halved).root).headline
    assert "0.80 times as fast as sequential (95 % interval 0.80 to 0.80)" in headline


@pytest.mark.parametrize(("discarded", "holds"), [(0, True), (1, False), (5, False)])
def test_the_product_is_said_to_hold_only_where_speed_and_seconds_count_the_same_steps(
    discarded: int, holds: bool, tmp_path: Path
) -> None:
    chosen = campaign(strategies=PAIR, target={**BASELINE, "value": 8.0}, discard_steps=discarded)
    folder = with_losses(tmp_path / "c", chosen, halved)
    write_report(folder.root)
    page = " ".join(folder.report.read_text().split())
    assert "worth is the steps of sequential to the target over the contestant" in page
    assert ("so that the product holds but for what medians round" in page) == holds
    assert ("Speed leaves out the first" in page) != holds
    assert ("first 5 steps of a run (<code>discard_steps</code>)" in page) == (discarded == 5)


def test_the_json_of_a_report_has_the_value_that_a_baseline_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = campaign(strategies=PAIR, target=BASELINE)
    folder = with_losses(tmp_path / "c", chosen, halved)
    assert run_guarded(app, ["report", str(folder.root), "--json"]) == 0
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert (target["race"], target["metric"]) == ("resnet20 on digits", "train_loss")
    # From 11 to 0 in 12 steps.
    assert target["value"] == pytest.approx(0.05 * 11)


def test_a_campaign_without_a_target_says_that_it_shows_speed_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign(strategies=PAIR))
    write_report(folder.root)
    page = " ".join(folder.report.read_text().split())
    assert "This campaign has no target, so that it shows speed alone" in page
    assert "<code>target: {metric: train_loss, value: baseline}</code>" in page
    assert "Time to target" not in page
    assert "steps_to_target" not in pd.read_csv(folder.root / "summary.csv")


def test_a_baseline_that_gains_nothing_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    chosen = campaign(strategies=PAIR, target=BASELINE)
    folder = with_losses(tmp_path / "c", chosen, lambda trial, steps: [1.0] * steps)
    (race,) = write_report(folder.root).races
    assert race.target is not None
    assert race.target.rows == []
    assert "is unknown: no run of it has finished, or none has gained" in race.target.notes[0]


def test_a_window_as_long_as_the_runs_is_the_reason_of_a_baseline_without_a_value(
    tmp_path: Path,
) -> None:
    chosen = campaign(strategies=PAIR, target={**BASELINE, "window": 400})
    folder = with_losses(tmp_path / "c", chosen, halved)
    (race,) = write_report(folder.root).races
    assert race.target is not None
    assert race.target.notes[0].endswith(
        "is unknown: the loss is averaged over 400 steps, and runs of 12 have one such mean, of "
        "which no gain can be told: set a smaller window, or train for longer"
    )


def expecting(**bound: float) -> Campaign:
    expectation = {"metric": "steps_to_target", "strategy": "fbp", "relative_to": "sequential"}
    return campaign(
        strategies=PAIR, target={**BASELINE, "value": 8.0}, expect=[expectation | bound]
    )


@pytest.mark.parametrize(
    ("bound", "held"),
    [({"at_most": 2.0}, True), ({"at_most": 1.9}, False), ({"at_least": 2.0}, True)],
)
def test_steps_may_be_expected_to_be_few(
    bound: dict[str, float], held: bool, tmp_path: Path
) -> None:
    folder = with_losses(tmp_path / "c", expecting(**bound), halved)
    (verdict,) = judge(expecting(**bound), load_results(folder.root).summary)
    assert verdict.held == held
    assert f"{next(iter(bound)).replace('_', ' ')} " in verdict.sentence()


def test_a_contestant_that_never_gets_there_exceeds_every_bound(tmp_path: Path) -> None:
    chosen = expecting(at_most=1e9)

    def losses(trial: Trial, steps: int) -> list[float]:
        return [10.0] * steps if trial.strategy == "fbp" else halved(trial, steps)

    folder = with_losses(tmp_path / "c", chosen, losses)
    (verdict,) = judge(chosen, load_results(folder.root).summary)
    assert not verdict.held
    assert "is ∞" in verdict.sentence()


def test_where_neither_gets_there_nothing_is_judged(tmp_path: Path) -> None:
    chosen = expecting(at_most=2.0)
    folder = with_losses(tmp_path / "c", chosen, lambda trial, steps: [10.0] * steps)
    (verdict,) = judge(chosen, load_results(folder.root).summary)
    assert not verdict.held
    assert "neither run of a pair reached the target" in verdict.sentence()


def test_an_expectation_has_one_bound() -> None:
    for bound, found in (({}, "neither is"), ({"at_least": 1.0, "at_most": 2.0}, "both are")):
        with pytest.raises(InputError, match=found):
            expecting(**bound)


def test_steps_to_no_target_are_never_judged() -> None:
    expectation = {"metric": "steps_to_target", "strategy": "fbp", "relative_to": "sequential"}
    message = refusal(strategies=PAIR, expect=[{**expectation, "at_most": 2.0}])
    assert "because the campaign has no target" in message


def changes_of(a: CampaignFolder, b: CampaignFolder) -> dict[tuple[str, str], Any]:
    document = json.loads(json.dumps(compare_folders(a.root, b.root).document(), allow_nan=False))
    return {(each["label"], each["metric"]): each for each in document["changes"]}


def seeded(value: float = 8.0) -> Campaign:
    return campaign(
        strategies=PAIR, seeds=list(range(6)), repeats=1, target={**BASELINE, "value": value}
    )


def test_a_comparison_judges_fewer_steps_as_better(tmp_path: Path) -> None:
    a = with_losses(tmp_path / "a", seeded(), halved)
    b = with_losses(
        tmp_path / "b", seeded(), lambda trial, steps: [10.0 - step for step in range(1, steps + 1)]
    )
    found = changes_of(a, b)
    assert found["fbp", "steps_to_target"]["ratio"] == pytest.approx(2 / 8)
    assert found["fbp", "steps_to_target"]["verdict"] == "better"
    assert found["sequential", "seconds_to_target"]["verdict"] == "better"


def test_a_comparison_survives_runs_that_never_get_there(tmp_path: Path) -> None:
    a = with_losses(tmp_path / "a", seeded(), halved)

    def losses(trial: Trial, steps: int) -> list[float]:
        return [10.0] * steps if trial.strategy == "fbp" else halved(trial, steps)

    b = with_losses(tmp_path / "b", seeded(), losses)
    found = changes_of(a, b)["fbp", "steps_to_target"]
    assert found["ratio"] is None
    assert found["note"] == "not reached in B"
    assert changes_of(a, b)["sequential", "steps_to_target"]["ratio"] == 1.0


def test_a_comparison_says_that_targets_differ(tmp_path: Path) -> None:
    a = with_losses(tmp_path / "a", seeded(8.0), halved)
    b = with_losses(tmp_path / "b", seeded(7.0), halved)
    (finding,) = compare_folders(a.root, b.root).findings()
    assert "a training loss of 8 in A and of 7 in B" in finding
    assert "resnet20 on digits" in finding
