"""The benchmark over a network: who is compared with whom, and what is kept of a campaign."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import cluster

ROUNDS = 6
DRIFT = [1.0, 0.9, 0.5, 0.8, 0.6, 1.1]
"""How fast the machine is in each round."""


def runs(strategy: str, speed: float, drift: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": "mlp",
            "dataset": "digits",
            "strategy": strategy,
            "contestant": strategy,
            "planner": "lpm" if strategy == "fbp" else "",
            "seed": 0,
            "repeat": range(len(drift)),
            "samples_per_second": [speed * factor for factor in drift],
            "bytes_sent": 12 * 2**20,
            "steps": 6,
            "idle_share": 0.25,
        }
    )


@pytest.fixture
def rows() -> dict[str, dict[str, str]]:
    summary = pd.concat([runs("sequential", 50, DRIFT), runs("fbp", 97, DRIFT)])
    found = cluster.rows_of("1gbit", summary, runs("fbp", 100, DRIFT))
    return {row[2]: dict(zip(cluster.COLUMNS, row, strict=True)) for row in found}


def test_ratios_are_over_pairs_of_one_round_so_that_drift_is_in_none(
    rows: dict[str, dict[str, str]],
) -> None:
    assert rows["fbp"]["over shared memory"] == "0.97 (95 % interval 0.97 to 0.97, n = 6)"
    assert rows["sequential"]["speed of FBP over it"] == "1.94 (95 % interval 1.94 to 1.94, n = 6)"


def test_fbp_is_compared_with_rivals_and_with_itself_only_on_shared_memory(
    rows: dict[str, dict[str, str]],
) -> None:
    assert rows["fbp"]["speed of FBP over it"] == ""
    assert rows["sequential"]["over shared memory"] == ""


def test_bytes_and_idle_time_are_those_of_a_step_and_a_run(rows: dict[str, dict[str, str]]) -> None:
    assert rows["fbp"]["MiB sent a step"] == "2.0"
    assert rows["fbp"]["idle"] == "25 %"


def test_a_campaign_is_kept_without_paths_of_this_machine_and_without_what_was_kept_before(
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "campaign", tmp_path / "kept"
    (folder / "provenance").mkdir(parents=True)
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "old.svg").touch()
    runs("fbp", 97, DRIFT).to_csv(folder / "summary.csv", index=False)
    (folder / "statistics.csv").write_text("metric\n")
    (folder / "figures").mkdir()
    for name in ("new.svg", ".snakemake_timestamp"):
        (folder / "figures" / name).touch()
    program, file = Path(sys.executable).with_name("mpirun"), cluster.REPOSITORY / "results" / "x"
    (folder / "provenance" / "launches.json").write_text(f'["{program}", "{file}"]')

    cluster.collect(folder, out)

    assert len(cluster.read_summary(out)) == ROUNDS
    assert (out / "provenance" / "launches.json").read_text() == '["mpirun", "results/x"]'
    assert [path.name for path in (out / "figures").iterdir()] == ["new.svg"]


def test_contestants_of_a_summary_without_labels_are_called_by_their_strategies() -> None:
    kept = cluster.read_summary(cluster.REPOSITORY / "results" / "reference" / "cluster" / "1gbit")

    assert set(kept["contestant"]) == {"sequential", "fbp", "deepspeed-1f1b", "horovod"}
