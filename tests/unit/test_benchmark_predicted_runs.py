import pandas as pd

from benchmarks.predicted_runs import report


def runs(kind: str, *errors: float) -> pd.DataFrame:
    """Return the rows of one race, numbered from 0 as those of every race are."""
    return pd.DataFrame(
        {
            "label": [f"{kind} {number}" for number in range(len(errors))],
            "kind": kind,
            "predicted_samples_per_second": [100.0 * (1.0 + error) for error in errors],
            "measured_samples_per_second": 100.0,
            "error": errors,
        }
    )


def test_races_are_reported_together_with_the_worst_of_all() -> None:
    text = report(pd.concat([runs("real", 0.01, -0.3, 0.02), runs("emulated", 0.1, 0.0, 0.04)]))
    of_kinds, of_worst = (part.splitlines()[2:] for part in text.split("\n\n"))
    assert of_kinds == [
        "| real | 3 | 2.0 | 24.4 | 30.0 | +1.0 |",
        "| emulated | 3 | 4.0 | 8.8 | 10.0 | +4.0 |",
        "| all | 6 | 3.0 | 20.0 | 30.0 | +1.5 |",
    ]
    assert of_worst == [
        "| real 1 | 70.00 | 100.00 | -30.0 |",
        "| emulated 0 | 110.00 | 100.00 | +10.0 |",
        "| emulated 2 | 104.00 | 100.00 | +4.0 |",
        "| real 2 | 102.00 | 100.00 | +2.0 |",
        "| real 0 | 101.00 | 100.00 | +1.0 |",
    ]
