"""The benchmark of large pipelines: rates by formulas where these are known, table and figure."""

import pandas as pd
import pytest

from benchmarks import scale
from hpc_lpm.schedules.registry import SCHEDULES


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return scale.rates(stages=(2, 8), micro_batches=(4, 16))


def share(rows: pd.DataFrame, contestant: str, stages: int, micro_batches: int, jitter: str):
    found = rows[
        (rows["contestant"] == contestant)
        & (rows["stages"] == stages)
        & (rows["micro_batches"] == micro_batches)
        & (rows["jitter"] == jitter)
    ]
    return float(found["share"].iloc[0])


def test_without_jitter_the_rates_are_those_of_formulas(rows: pd.DataFrame) -> None:
    for stages in (2, 8):
        messages = 2 * scale.MESSAGE * (stages - 1)
        passes = scale.FORWARD + scale.BACKWARD
        for m in (4, 16):
            # A lead of 2 hides messages that are shorter than a pass.
            assert share(rows, "fbp, lead 2", stages, m, "none") == pytest.approx(1.0)
            # GPipe fills and empties the pipeline once a step, messages included.
            step = (m + stages - 1) * passes + messages
            expected = m * passes / step
            assert share(rows, "gpipe", stages, m, "none") == pytest.approx(expected)
            alone = passes / (stages * passes + messages)
            assert share(rows, "naive", stages, m, "none") == pytest.approx(alone)


def test_schedules_without_a_bubble_wait_for_messages_alone(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {contestant.name: contestant for contestant in scale.CONTESTANTS}
    without_bubble = [named["zb-h2"], named["zb-v"]]
    for contestant in without_bubble:
        assert share(rows, contestant.name, 8, 16, "none") < 1.0
    monkeypatch.setattr(scale, "MESSAGE", 0.0)
    monkeypatch.setattr(scale, "CONTESTANTS", without_bubble)
    found = scale.rates(stages=(8,), micro_batches=(16,))
    assert found[found["jitter"] == "none"]["share"].tolist() == pytest.approx([1.0, 1.0])


def test_only_lists_of_passes_that_are_too_long_are_left_out() -> None:
    large = scale.STAGES[-1], scale.MICRO_BATCHES[-1]
    assert scale.is_feasible(SCHEDULES.named("fbp"), *large)
    assert not scale.is_feasible(SCHEDULES.named("zb-h1"), *large)
    assert scale.is_feasible(SCHEDULES.named("zb-h1"), 1024, 1024)
    assert not scale.is_feasible(SCHEDULES.named("zb-v"), 1024, 1024)
    # What is left out is a dash in the table, beside what is there.
    found = pd.DataFrame(
        [
            ("fbp", 8, 4, "none", 0.5, 1),
            ("fbp", 8, 16, "none", 0.75, 1),
            ("zb-v", 8, 4, "none", 1, 1),
        ],
        columns=["contestant", "stages", "micro_batches", "jitter", "share", "most_in_flight"],
    )
    spent = pd.DataFrame([], columns=["what", "seconds", "peak_gibibytes"])
    table = scale.report(found, spent)
    assert "| fbp | 8 | none | 0.500 | 0.750 |" in table
    assert "| zb-v | 8 | none | 1.000 | - |" in table


def test_jitter_costs_every_schedule_something(rows: pd.DataFrame) -> None:
    for contestant in scale.CONTESTANTS:
        for stages in (2, 8):
            jittered, steady = (
                share(rows, contestant.name, stages, 16, jitter) for jitter in ("jitter", "none")
            )
            assert jittered < steady


def test_table_and_figure_show_every_contestant(rows: pd.DataFrame) -> None:
    spent = pd.DataFrame([("a plan", 1.25, 0.5)], columns=["what", "seconds", "peak_gibibytes"])
    table = scale.report(rows, spent)
    assert "| a plan | 1.2 | 0.50 |" in table
    figure = scale.draw(rows)
    for contestant in scale.CONTESTANTS:
        assert f"| {contestant.name} | 8 | none |" in table
        assert contestant.name in figure
