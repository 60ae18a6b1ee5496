"""The tables of the delay benchmark: outcomes by depth, steps to the target, and time to it."""

import math
from collections.abc import Iterator

import pandas as pd

from benchmarks.delay.families import FAMILIES
from benchmarks.delay.methods import first_stage_lag, named, rules_of
from benchmarks.delay.ratios import StepsRatio, final_outcome, steps_ratio
from benchmarks.race import markdown

BY_CONTESTANT = ["family", "stages", "micro_batches", "corrections"]


def contestants(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, int, int, str], pd.DataFrame]]:
    """Yield the runs of each contestant on several stages, at its best rate at length 1."""
    piped = rows[rows["stages"] > 1]
    for key, group in piped.groupby(BY_CONTESTANT, sort=False):
        yield key, at_best_rate(group)


def at_best_rate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one rate: that with the most runs, and of those the best outcome."""
    lower = FAMILIES[str(rows["family"].iloc[0])].lower_is_better
    by_rate = [
        (len(group), -_mean_end(group) if lower else _mean_end(group), rate)
        for rate, group in rows.groupby("rate")
    ]
    return rows[rows["rate"] == max(by_rate)[2]]


def _mean_end(rows: pd.DataFrame) -> float:
    return float(rows[rows["length"] == 1.0]["outcome"].mean())


def baseline(rows: pd.DataFrame, family: str) -> pd.DataFrame:
    """Return the runs of one device, at its best rate."""
    return at_best_rate(rows[(rows["family"] == family) & (rows["stages"] == 1)])


def ratios(rows: pd.DataFrame) -> list[tuple[tuple[str, int, int, str], StepsRatio]]:
    """Return how many times one device's steps each contestant needs to its outcome."""
    found = []
    for key, group in contestants(rows):
        family = FAMILIES[key[0]]
        one = baseline(rows, key[0])
        ratio = steps_ratio(
            group, one, lower_is_better=family.lower_is_better, margin=family.margin
        )
        found.append((key, ratio))
    return found


def outcomes_table(rows: pd.DataFrame) -> str:
    """Return outcomes at the length of one device's training, and steps to its outcome."""
    lines = []
    known = dict(ratios(rows))
    for family in dict.fromkeys(rows["family"]):
        one = final_outcome(baseline(rows, family))
        metric = FAMILIES[family].metric
        digits = 3 if metric == "loss" else 2
        low, high = one.bounds()
        shown = f"{one.median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
        rate = baseline(rows, family)["rate"].iloc[0]
        lines.append([family, metric, "1", "", "", f"{rate:g}", shown, "1", str(one.n)])
        for key, group in contestants(rows[rows["family"] == family]):
            end = final_outcome(group)
            low, high = end.bounds()
            shown = f"{end.median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
            rate = f"{group['rate'].iloc[0]:g}"
            cells = [family, metric, str(key[1]), str(key[2]), named(key[3]), rate, shown]
            lines.append([*cells, str(known[key]), str(end.n)])
    columns = ["training", "test", "K", "M", "corrections", "rate", "at one device's steps"]
    text = markdown([*columns, "steps to one device's outcome", "seeds"], lines)
    margins = {f"{FAMILIES[name].margin:g}" for name in rows["family"] if FAMILIES[name].margin}
    if margins:
        text += (
            f"\nAn accuracy is reached within {' or '.join(sorted(margins))} points of it, by the "
            "mean over the seeds.\n"
        )
    if any(ratio.reached < ratio.seeds for ratio in known.values()):
        text += (
            "\n`0 of 3 within 1.5` means that none of 3 seeds reached the outcome in runs of up to "
            "1.5 times one device's steps.\n"
        )
    return text


def worth_rows(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return what the planner reads of the worth of a step.

    A target that was not reached, though it was tried for longer than one device takes, has an
    infinite ratio, which is at least what was tried.
    """
    worth = []
    for (family, stages, micro_batches, corrections), ratio in ratios(rows):
        if ratio.seeds < 2 or (math.isinf(ratio.mean) and ratio.longest <= 1.0):
            continue
        optimizer = FAMILIES[family].optimizer["name"]
        rules, recipe = rules_of(corrections)
        worth.append(
            {
                "model_family": FAMILIES[family].model.partition(",")[0],
                "optimizer": optimizer,
                "recipe": recipe,
                "stages": stages,
                "micro_batches": micro_batches,
                "lead": rules.lead,
                "weights": rules.weights,
                "first_stage_lag": first_stage_lag(corrections, stages, micro_batches),
                "steps_ratio": round(ratio.mean, 4),
                "low": round(min(ratio.low, ratio.longest), 4),
                "high": round(ratio.high, 4),
                "seeds": ratio.seeds,
                "source": source,
                "gradient_shrink": rules.gradient_shrink,
            }
        )
    return pd.DataFrame(worth)
