"""What a step is worth, worked out by hand, and which files of measurements are refused."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.worth.expected import expected_steps
from hpc_lpm.planning.worth.lag import Lag
from hpc_lpm.planning.worth.measured import (
    PACKAGED,
    Measurements,
    packaged_measurements,
)
from hpc_lpm.schedules.registry import SCHEDULES, schedule_named

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "results/reference/delay/worth.csv"
HEADER = (
    "model_family,optimizer,recipe,stages,micro_batches,lead,weights,first_stage_lag,"
    "steps_ratio,low,high,seeds,source"
)
BY_HAND = (
    "gpt,adamw,none,8,4,1,live,1.75,2.0,1.5,3.0,3,by hand",
    "gpt,adamw,none,4,4,1,live,0.75,1.25,1.0,1.5,3,by hand",
    "gpt,adamw,none,16,4,1,live,3.75,inf,4.0,inf,3,by hand",
    "gpt,adamw,auto,8,4,1,live,1.75,1.1,,,1,by hand",
    "gpt,muon,none,8,4,1,live,1.75,1.2,1.1,1.3,2,by hand",
    "gpt,momentum,none,8,4,1,live,1.75,1.5,,,1,by hand",
    "gpt,momentum,auto,8,4,1,live,1.75,1.3,,,1,by hand",
    "vgg,muon,none,8,4,1,live,1.75,1.4,1.3,1.6,5,by hand",
    "vgg,muon,none,8,4,1,replay,1.75,1.5,1.4,1.7,5,by hand",
)

MUON_ON_VGG = {"optimizer": "muon", "model": "vgg11"}


def written(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def by_hand(tmp_path: Path) -> Measurements:
    return Measurements.read(written(tmp_path / "own.csv", *BY_HAND))


def at(lag: Fraction) -> Lag:
    return Lag(mean=lag / 2, largest=-(-lag.numerator // lag.denominator), first_stage=lag)


def looked_up(measured: Measurements, lag: str, model: str = "gpt,layers=6", **options: object):
    given = {"optimizer": "adamw", "weights": "live", **options}
    return expected_steps(measured, at(Fraction(lag)), PlanOptions.checked(**given), model)


@pytest.mark.parametrize(
    ("lag", "options", "ratio", "low", "high"),
    [
        # Measured: 1 / 2, 1 / 3 to 1 / 1.5.
        ("7/4", {}, "2", 1 / 3, 1 / 1.5),
        ("3/4", {}, "5/4", 1 / 1.5, 1.0),
        # A third of the way from lag 0, where it is 1: 1 + 0.25 / 3, high 1 + 0.5 / 3.
        ("1/4", {}, "13/12", 1 / (7 / 6), 1.0),
        # Half way from 0.75 to 1.75: (1.25 + 2) / 2, 1.25 and 2.25.
        ("5/4", {}, "13/8", 1 / 2.25, 1 / 1.25),
        # Adam counts as AdamW does.
        ("7/4", {"optimizer": "adam"}, "2", 1 / 3, 1 / 1.5),
        # A recipe of its own; one seed has no interval.
        ("7/4", {"recipe": "auto"}, "11/10", None, None),
        ("7/8", {"recipe": "auto"}, "21/20", None, None),
        # With replicas the recipe of SGD corrects nothing.
        ("7/4", {"optimizer": "momentum", "recipe": "auto"}, "13/10", None, None),
        ("7/4", {"optimizer": "momentum", "recipe": "auto", "replicas": 2}, "3/2", None, None),
        # Rows of the model's family, or else all: (1.2 + 1.4) / 2 of policy live.
        ("7/4", {"optimizer": "muon"}, "6/5", 1 / 1.3, 1 / 1.1),
        ("7/4", {"optimizer": "muon", "model": "resnet20"}, "13/10", 1 / 1.6, 1 / 1.1),
        # Rows of the policy, or else all of the family: (1.4 + 1.5) / 2.
        ("7/4", {**MUON_ON_VGG, "weights": "replay"}, "3/2", 1 / 1.7, 1 / 1.4),
        ("7/4", {**MUON_ON_VGG, "weights": "stash"}, "29/20", 1 / 1.7, 1 / 1.3),
        # Nothing lags.
        ("0", {"optimizer": "sgd"}, "1", 1.0, 1.0),
    ],
)  # fmt: skip
def test_a_step_is_worth_what_is_measured_at_its_lag_or_lies_between(
    by_hand: Measurements,
    lag: str,
    options: dict[str, str],
    ratio: str,
    low: float | None,
    high: float | None,
) -> None:
    found = looked_up(by_hand, lag, **options)
    assert float(found.ratio) == pytest.approx(float(Fraction(ratio)))
    assert found.worth.value == pytest.approx(1 / float(Fraction(ratio)))
    assert found.worth.low == (None if low is None else pytest.approx(low))
    assert found.worth.high == (None if high is None else pytest.approx(high))


def test_what_lies_between_two_measured_lags_is_exact(by_hand: Measurements) -> None:
    assert looked_up(by_hand, "5/4").ratio == Fraction(13, 8)
    assert looked_up(by_hand, "13/12").ratio == Fraction(5, 4) + Fraction(3, 4) / 3


@pytest.mark.parametrize(
    ("lag", "options", "sentence"),
    [
        ("4", {}, "lags by 4 updates on average, and adamw on gpt, .* is measured up to 3.75"),
        ("2", {"optimizer": "muon"}, "lags by 2 .* muon on gpt, recipe none, 2 seeds is measured"),
        ("1", {"optimizer": "sgd"}, "nothing is measured for sgd with recipe none in "),
        ("1", {"optimizer": "muon", "recipe": "auto"}, "nothing is measured for muon with recipe "),
    ],
)
def test_nothing_is_extrapolated(
    by_hand: Measurements, lag: str, options: dict[str, str], sentence: str
) -> None:
    found = looked_up(by_hand, lag, **options)
    assert found.ratio is None
    assert (found.worth.value, found.worth.low, found.worth.high) == (None, None, None)
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(found.worth.reason)


def test_a_target_that_was_not_reached_makes_a_step_worth_nothing(by_hand: Measurements) -> None:
    found = looked_up(by_hand, "15/4")
    assert found.ratio is None
    assert (found.worth.value, found.worth.low, found.worth.high) == (0.0, 0.0, 0.25)
    assert "the target was not reached" in found.worth.reason


def test_nothing_is_known_between_a_lag_and_one_at_which_the_target_was_not_reached(
    by_hand: Measurements,
) -> None:
    found = looked_up(by_hand, "2")
    assert (found.ratio, found.worth.value, found.worth.low) == (None, None, None)
    assert "lags by 2 updates on average, and at 3.75 the target was not" in found.worth.reason


def test_the_worth_at_the_end_of_an_interval_without_end_is_interpolated(tmp_path: Path) -> None:
    row = "resnet,momentum,none,8,4,1,live,1.75,1.0,1.0,inf,3,by hand"
    measured = Measurements.read(written(tmp_path / "own.csv", row))
    found = looked_up(measured, "7/16", "resnet20", optimizer="momentum").worth
    assert found.value == found.high == 1.0
    # From 1 at a lag of 0 to 0 at 7/4, a quarter of the way.
    assert found.low == pytest.approx(0.75)


def test_a_family_that_was_measured_is_not_told_from_others(by_hand: Measurements) -> None:
    found = looked_up(by_hand, "7/4", "vgg11", optimizer="momentum")
    assert found.worth.value is None
    assert "nothing is measured for momentum with recipe none of this model" in found.worth.reason
    # Of a family that was not measured at all, others are the nearest thing.
    assert looked_up(by_hand, "7/4", "lenet", optimizer="momentum").ratio == Fraction(3, 2)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_the_lags_are_those_of_every_micro_batch_in_steady_state(name: str) -> None:
    schedule = schedule_named(name)
    for devices, micro_batches, lead, replicas in ((1, 3, 1, 1), (5, 2, 1, 1), (4, 3, 2, 2)):
        stages = devices * schedule.chunks
        options = PlanOptions(
            schedule=name, micro_batches=micro_batches, lead=lead, replicas=replicas
        )
        lags = [
            [
                n // micro_batches
                - schedule.version(n, stage, stages, micro_batches, lead, replicas=replicas)
                for n in range(10 * micro_batches, 11 * micro_batches)
            ]
            for stage in range(stages)
        ]
        found = Lag.of(schedule, stages, options)
        assert found.mean == Fraction(sum(map(sum, lags)), stages * micro_batches)
        assert found.first_stage == Fraction(sum(lags[0]), micro_batches)
        assert found.largest == max(map(max, lags))
        if schedule.flushes:
            assert found == Lag(Fraction(0), 0, Fraction(0))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((), "has no row below its columns"),
        (("gpt,adamw,none,8,4,1,live,1.75,2,,,1",), "12 values in line 2, accepted are 13"),
        (("gpt,adamw,none,8,4,1,live,1.75,0,,,1,me",), "line 2, steps_ratio: "),
        (("gpt,adamw,none,8,4,1,live,1.75,-2,,,1,me",), "line 2, steps_ratio: "),
        (("gpt,adamw,none,8,4,1,live,1.75,1e-300,,,1,me",), "0.001 to 1000, .*found 1e-300"),
        (("gpt,adamw,none,8,4,1,live,1.75,1001,,,1,me",), "accepted are 0.001 to 1000, .*1001"),
        (("gpt,adamw,none,8,4,1,live,1.75,2,1e-9,3,1,me",), "line 2, low: .*found 1e-09"),
        (("gpt,adamw,none,8,4,1,live,1.75,2,1,1e9,1,me",), "line 2, high: .*found 1e.09"),
        (("gpt,adamw,none,99999,4,1,live,1.75,2,,,1,me",), "line 2, stages: "),
        (("gpt,adamw,none,8,999999,1,live,1.75,2,,,1,me",), "line 2, micro_batches: "),
        (("gpt,adamw,none,8,4,999999,live,1.75,2,,,1,me",), "line 2, lead: "),
        (("gpt,adamw,none,8,4,1,live,1.75,nan,,,1,me",), "line 2, steps_ratio: "),
        (("gpt,adamw,none,8,4,1,live,1.75,two,,,1,me",), "line 2, steps_ratio: "),
        (("gpt,adamw,none,8,4,1,live,1.75,2,0,3,1,me",), "line 2, low: "),
        (("gpt,adamw,none,8,4,1,live,1.75,2,3,1.5,1,me",), "low is 3, above high, which is 1.5"),
        (("gpt,adamw,none,8,4,1,live,1.75,2,1,,1,me",), "low and high are one given and one empty"),
        (("gpt,adamw,none,8,4,1,live,1.75,4,2,3,1,me",), "steps_ratio is 4, outside low to high"),
        (("gpt,adamw,none,8,4,1,old,1.75,2,,,1,me",), "line 2, weights: accepted is"),
        (("gpt,adamw,none,8,4,1,live,2,2,,,1,me",), "first_stage_lag is 2, but .* lags by 1.75"),
        (("gpt,adamw,none,1,4,1,live,0,2,,,1,me",), "steps_ratio is 2 where nothing lags"),
        (("gpt,adamw,none,8,4,1,live,1.75,2,,,0,me",), "line 2, seeds: "),
        ((*BY_HAND, ",adamw,none,8,4,1,live,1.75,2,,,1,me"), "line 11, model_family: "),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence_that_names_the_line(
    rows: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "own.csv", *rows)
    with pytest.raises(InputError, match=sentence) as refused:
        Measurements.read(path)
    assert str(refused.value).startswith(f"efficiency file {path} ")


def test_columns_are_all_there_once_and_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    row, header = (",".join(text.split(",")[::-1]) for text in (BY_HAND[0], HEADER))
    turned = written(path, row, header=header)
    assert Measurements.read(turned).rows[0].source == "by hand"
    for header in (HEADER.replace("low,", ""), f"{HEADER},low", "steps"):
        with pytest.raises(InputError, match=r"has the columns .*, accepted are model_family, "):
            Measurements.read(written(path, header=header))
    with pytest.raises(InputError, match="does not exist: name an existing file"):
        Measurements.read(tmp_path / "none.csv")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        Measurements.read(path)
    with pytest.raises(InputError, match="cannot be read as CSV"):
        Measurements.read(tmp_path)


def test_rows_of_shrunk_gradients_count_for_them_alone(tmp_path: Path) -> None:
    plain = "gpt,adamw,none,8,4,2,stash,3.5,2,,,1,me,1"
    half = "gpt,adamw,none,8,4,2,stash,3.5,3,,,1,me,0.5"
    header = f"{HEADER},gradient_shrink"
    path = written(tmp_path / "own.csv", plain, half, header=header)
    measured = Measurements.read(path)
    assert looked_up(measured, "7/2").ratio == 2
    shrunk = replace(measured, gradient_shrink=0.5)
    assert looked_up(shrunk, "7/2").ratio == 3
    assert looked_up(shrunk, "7/4").ratio == 2
    unknown = looked_up(replace(measured, gradient_shrink=0.25), "7/2").worth
    assert unknown.value is None
    assert unknown.reason.startswith("nothing is measured for adamw with recipe none and gradients")
    with pytest.raises(InputError, match="line 2, gradient_shrink: "):
        Measurements.read(written(path, f"{plain}.5", header=header))


def test_double_buffered_weights_lag_by_one_update_and_count_for_themselves(tmp_path: Path) -> None:
    for devices, micro_batches in ((2, 2), (8, 16)):
        options = PlanOptions(micro_batches=micro_batches, weights="double-buffer")
        found = Lag.of(schedule_named("fbp"), devices, options)
        assert found == Lag(Fraction(1), 1, Fraction(1))
    live = "gpt,adamw,none,8,8,1,live,0.875,2,,,1,me"
    buffered = "gpt,adamw,none,8,8,1,double-buffer,1,3,,,1,me"
    measured = Measurements.read(written(tmp_path / "own.csv", live, buffered))
    assert looked_up(measured, "1", weights="double-buffer").ratio == 3
    assert looked_up(measured, "7/8", weights="live").ratio == 2
    alone = Measurements.read(written(tmp_path / "own.csv", live))
    assert looked_up(alone, "1/2", weights="double-buffer").worth.value is None
    with pytest.raises(
        InputError, match=r"first_stage_lag is 0.875, but .* double-buffer lags by 1"
    ):
        Measurements.read(
            written(
                tmp_path / "own.csv", buffered.replace("double-buffer,1,", "double-buffer,0.875,")
            )
        )


def test_between_two_lags_without_an_upper_end_a_step_may_be_worth_nothing(tmp_path: Path) -> None:
    rows = (
        "gpt,adamw,none,4,4,1,live,0.75,1.5,1.0,inf,3,by hand",
        "gpt,adamw,none,8,4,1,live,1.75,2.5,2.0,inf,3,by hand",
    )
    found = looked_up(Measurements.read(written(tmp_path / "own.csv", *rows)), "5/4")
    assert found.ratio == 2
    assert (found.worth.low, found.worth.high) == (0.0, pytest.approx(1 / 1.5))


@pytest.mark.parametrize(
    ("strategy", "own", "ratio"),
    [
        ("fbp", {}, 1.5),
        ("fbp", {"weights": "stash"}, 2.0),
        ("pipedream", {}, 2.0),
        ("ddg", {}, 2.0),
        ("fr", {}, 2.5),
        ("pipedream-2bw", {}, 3.0),
        ("fdg", {}, 4.0),
        ("fdg", {"gradient_shrink": 0.7}, None),
        ("1f1b", {}, 1.0),
    ],
)
def test_a_method_is_worth_what_is_measured_for_its_own_rules(
    strategy: str,
    own: dict[str, object],
    ratio: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = (
        "gpt,adamw,none,8,8,1,live,0.875,1.5,,,1,me,1",
        "gpt,adamw,none,8,8,1,stash,0.875,2,,,1,me,1",
        "gpt,adamw,none,8,8,1,replay,0.875,2.5,,,1,me,1",
        "gpt,adamw,none,8,8,1,double-buffer,1,3,,,1,me,1",
        "gpt,adamw,none,8,8,2,stash,1.75,4,,,1,me,0.5",
    )
    path = written(tmp_path / "own.csv", *rows, header=f"{HEADER},gradient_shrink")
    monkeypatch.setattr(
        "hpc_lpm.engine.strategies.scheduled.packaged_measurements", lambda: Measurements.read(path)
    )
    settings = TrainSettings.model_validate(
        {
            "model": "gpt",
            "dataset": "text",
            "strategy": strategy,
            "optimizer": {"name": "adamw"},
            "steps": 9,
            "micro_batches": 8,
            **own,
        }
    )
    assert strategy_named(strategy).expected_steps_ratio(settings, 8, "gpt") == ratio


def test_a_lag_may_be_rounded_in_a_file_and_still_counts_exactly(tmp_path: Path) -> None:
    rounded = "gpt,adamw,none,8,12,1,live,0.583,1.5,,,1,me"
    measured = Measurements.read(written(tmp_path / "own.csv", rounded))
    assert looked_up(measured, "7/12").ratio == Fraction(3, 2)


def test_the_packaged_measurements_are_those_of_the_delay_benchmark() -> None:
    assert packaged_measurements().rows
    assert PACKAGED.read_bytes() == BENCHMARK.read_bytes()


def measured_by(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Have what a step is worth come from a file instead of what is packaged."""
    monkeypatch.setattr(
        "hpc_lpm.engine.strategies.scheduled.packaged_measurements", lambda: Measurements.read(path)
    )


def gpt_by_fbp(**own: object) -> TrainSettings:
    return TrainSettings.model_validate(
        {
            "model": "gpt",
            "dataset": "text",
            "strategy": "fbp",
            "optimizer": {"name": "adamw"},
            "steps": 9,
            "micro_batches": 8,
            **own,
        }
    )


def test_replicas_lag_as_their_stages_do_and_one_micro_batch_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "own.csv", "gpt,adamw,none,8,8,1,live,0.875,1.875,,,1,me")
    measured_by(monkeypatch, path)
    settings = gpt_by_fbp()
    strategy = strategy_named("fbp")
    assert strategy.expected_steps_ratio(settings, 8, "gpt") == 1.875
    # The first of four stages lags by three micro-batches, and by one that the average takes.
    assert strategy.expected_steps_ratio(settings, 8, "gpt", replicas=2) == 1.5


@pytest.mark.parametrize(
    ("own", "ratio"),
    [
        ({}, 1.5),
        ({"recipe": "auto"}, 1.25),
        # The rule that a recipe would choose here too, which is what `auto` was measured with.
        ({"prediction": True}, 1.25),
        ({"prediction": True, "prediction_rule": "second-order"}, 1.25),
        ({"prediction": True, "prediction_rule": "last-update"}, 1.375),
        ({"recipe": "auto", "prediction_rule": "last-update"}, 1.375),
        ({"prediction": True, "prediction_rule": "balanced"}, None),
        ({"recipe": "auto", "prediction": False}, 1.5),
    ],
)
def test_a_run_is_worth_what_its_own_corrections_were_measured_to_be_worth(
    own: dict[str, object],
    ratio: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = (
        "gpt,adamw,none,8,8,1,live,0.875,1.5,,,1,me",
        "gpt,adamw,auto,8,8,1,live,0.875,1.25,,,1,me",
        "gpt,adamw,last-update,8,8,1,live,0.875,1.375,,,1,me",
    )
    path = written(tmp_path / "own.csv", *rows)
    measured_by(monkeypatch, path)
    settings = gpt_by_fbp(**own)
    assert strategy_named("fbp").expected_steps_ratio(settings, 8, "gpt") == ratio
