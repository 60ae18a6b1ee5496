"""Compares the planner's predictions with FBP's times, for its own plan and for two worse ones.

    python -m benchmarks.prediction [--repeats 6] [--only resnet110 gpt] [--out FOLDER]

`--only` keeps the rows of the other models in the folder's table.

The worse plans cut where the predicted period is nearest to 1.2 and to 1.5 times the least. Every
training, on two ranks with policy `live` and lead 2, is compared with its own prediction from a
profile that the same ranks have just taken. The measured time is the median step of steady state
over its micro-batches, because the profile's times are medians; `mean of steps` takes the mean
instead, in which the machine's hiccups count.
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.engine import MICRO_BATCHES, RACES, RANKS, plan
from benchmarks.race import Contestant, markdown, median, race, ratio, shown
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profile_file import Profile

WORSE = (1.2, 1.5)
PERIOD = "period_milliseconds"
MEAN = "mean_milliseconds"


def worse_plan(profile: Profile, best: Plan, times: float) -> Plan:
    """Return the two-stage plan whose predicted period is nearest to `times` that of `best`."""
    options = PlanOptions(micro_batches=MICRO_BATCHES, weights="live")
    model = CostModel(profile, RANKS, options)
    plans = [
        price_plan(model, (0, cut, model.layers), f"{times} times the least", best.profile_sha256)
        for cut in range(1, model.layers)
    ]
    return min(plans, key=lambda made: abs(made.period_seconds / best.period_seconds - times))


def run(name: str, folder: Path, repeats: int) -> pd.DataFrame:
    """Plan and race one model, and return one row per training."""
    entered = RACES[name]
    best = plan(name, entered, "live", folder)
    plans = {"planner's": best}
    for times in WORSE:
        made = worse_plan(Profile.read(folder / f"profile-{name}.json"), Plan.read(best), times)
        plans[f"{times} x"] = folder / f"plan-{name}-worse-{times}.json"
        made.write(plans[f"{times} x"])
    contestants = []
    for label, path in plans.items():
        settings = {
            "model": entered.model,
            "dataset": entered.dataset,
            "strategy": "fbp",
            "plan": str(path),
            "batch_size": entered.batch_size,
            "micro_batches": MICRO_BATCHES,
            "steps": entered.steps,
            "weights": "live",
            "lead": 2,
            "optimizer": {"name": "momentum", "lr": 0.005},
        }
        # With fewer repeats a small model's profile would be over in a blink, and machines drift.
        profiling = settings | {"profile_repeats": max(5, entered.steps // 2)}
        contestants.append(Contestant(f"{label} predicted", profiling, "predicted"))
        contestants.append(Contestant(f"{label} measured", settings))
    rows = race(contestants, RANKS, repeats)
    micro_batch = entered.batch_size / MICRO_BATCHES
    rows[MEAN] = 1e3 * micro_batch / rows["samples_per_second"]
    steps = 1e3 * rows["median_step_seconds"] / MICRO_BATCHES
    rows[PERIOD] = steps.fillna(rows[MEAN])
    cuts = {label: "-".join(map(str, Plan.read(path).cuts)) for label, path in plans.items()}
    of_plan = rows["label"].str.rsplit(" ", n=1).str[0]
    return rows.assign(model=name, plan=of_plan, cuts=of_plan.map(cuts))


def report(rows: pd.DataFrame) -> str:
    """Return the table in Markdown."""
    lines = []
    for name, of_model in rows.groupby("model", sort=False):
        measured = {
            str(label): median(of_model, f"{label} measured", PERIOD).median
            for label in of_model["plan"].unique()
        }
        agrees = list(measured.values()) == sorted(measured.values())
        for label in measured:
            group = of_model[of_model["plan"] == label]
            predicted = median(group, f"{label} predicted", PERIOD)
            taken = median(group, f"{label} measured", PERIOD)
            of_median, of_mean = (
                ratio(group, f"{label} predicted", f"{label} measured", column)
                for column in (PERIOD, MEAN)
            )
            lines.append(
                [
                    *(str(name), label, str(group["cuts"].iloc[0])),
                    *(shown(predicted, 1), shown(taken, 1), shown(of_median), shown(of_mean)),
                    *("agrees" if agrees else "differs", str(taken.n)),
                ]
            )
    columns = ["model", "plan", "cuts", "predicted, ms", "measured, ms", "predicted / measured"]
    columns += ["predicted / mean of steps", "order of the three", "n"]
    text = "Milliseconds a micro-batch, median (95 % interval).\n\n"
    return text + markdown(columns, lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--only", nargs="*", choices=list(RACES), default=list(RACES))
    parser.add_argument("--out", type=Path, default=Path("results/reference/planner"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([run(name, arguments.out, arguments.repeats) for name in arguments.only])
    table = arguments.out / "prediction.csv"
    if table.exists():
        before = pd.read_csv(table)
        rows = pd.concat([before[~before["model"].isin(arguments.only)], rows])
    rows.drop(columns="milliseconds_by_kind", errors="ignore").to_csv(table, index=False)
    text = report(rows)
    (arguments.out / "prediction.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
