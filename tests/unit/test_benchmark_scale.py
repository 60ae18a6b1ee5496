"""The benchmark of large pipelines: rates by formulas where these are known, table and figure."""

import pandas as pd
import pytest

from benchmarks import scale


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
