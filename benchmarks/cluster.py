"""Races FBP and its rivals on two nodes with a real network, and FBP without the network.

    python -m benchmarks.cluster [--rates 1gbit,200mbit] [--repeats 6] [--set steps=8] [--out DIR]

For each rate a cluster is started (slurm/testbed, which needs root), and config/cluster.yaml runs
on it through `snakemake --profile slurm`. A second campaign runs FBP alone on this machine's shared
memory. Because the speed of machines drifts within minutes, the two campaigns take turns: every
round adds one repeat to both, and ratios, to rivals and to shared memory, pair runs of one round.
Trials that have finished are not run again, and rates of an earlier call stay in the table. `--set`
changes keys of all campaigns.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import pandas as pd

from benchmarks.race import markdown
from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.statistics import entrants_in, estimate, paired_ratio, runs_of

REPOSITORY = Path(__file__).resolve().parents[1]
CLUSTER = REPOSITORY / "slurm" / "testbed" / "cluster"
CAMPAIGN = "config/cluster.yaml"
BESIDE = "shared-memory-beside-"
SPEED = "samples_per_second"


def campaign_name(name: str) -> str:
    """Return the name of the campaign whose small files are kept under `name`."""
    return f"cluster-{name}"


def snakemake(*options: str, name: str, settings: Sequence[str]) -> None:
    """Run the campaign that is kept under `name`, with some of its keys changed."""
    program = str(Path(sys.executable).with_name("snakemake"))
    changes = [f"name={campaign_name(name)}", *settings]
    command = [program, *options, "--configfile", CAMPAIGN, "--config", *changes]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def run_on_cluster(rate: str, settings: Sequence[str]) -> None:
    """Run the campaign on two nodes whose links have the given rate."""
    start = [str(CLUSTER), "up", "--nodes", "2", "--cores-per-node", "1", "--rate", rate]
    subprocess.run(start, check=True)
    try:
        snakemake("--profile", "slurm", name=rate, settings=settings)
    finally:
        subprocess.run([str(CLUSTER), "down"], check=True)


def run_on_shared_memory(rate: str, settings: Sequence[str]) -> None:
    """Run FBP's trials of the campaign of one rate on this machine, without a network."""
    settings = [*settings, 'strategies=["fbp"]']
    snakemake("--cores", "2", name=f"{BESIDE}{rate}", settings=settings)


def collect(folder: Path, out: Path) -> None:
    """Copy the small files of a campaign to `out`, without paths of this machine."""
    rmtree(out, ignore_errors=True)  # what an earlier call has copied
    out.mkdir(parents=True)
    kept = [folder / "summary.csv", folder / "statistics.csv"]
    for pattern in ("figures/[!.]*", "plans/*.json", "profiles/*.json", "provenance/*.json"):
        kept += sorted(folder.glob(pattern))
    for path in kept:
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        # Readers have no use for where this machine has its programs.
        for prefix in (f"{Path(sys.executable).parent}{os.sep}", f"{REPOSITORY}{os.sep}"):
            text = text.replace(prefix, "")
        target.write_text(text, encoding="utf-8")


def read_summary(folder: Path) -> pd.DataFrame:
    """Return the runs of a campaign from the files that were kept."""
    summary = pd.read_csv(folder / "summary.csv", keep_default_na=False)
    if "contestant" not in summary:  # kept before contestants had labels of their own
        summary.insert(0, "contestant", summary["strategy"])
    return summary


def rows_of(rate: str, summary: pd.DataFrame, local: pd.DataFrame) -> list[list[str]]:
    """Return one row of the table for each contestant of one rate."""
    rows = []
    entrants = entrants_in(summary)
    for who in entrants:
        ours = next(
            other for other in entrants if other.race == who.race and other.strategy == "fbp"
        )
        own = runs_of(summary, who)
        rows.append(
            [
                rate,
                who.model,
                who.strategy,
                estimate(own[SPEED].tolist()).text(1),
                _ratio(summary, ours, who) if who != ours else "",
                _ratio(*_beside(summary, local, ours)) if who == ours else "",
                f"{own['bytes_sent'].median() / own['steps'].median() / 2**20:.1f}",
                f"{100 * own['idle_share'].median():.0f} %",
            ]
        )
    return rows


def _ratio(summary: pd.DataFrame, first: Entrant, second: Entrant) -> str:
    ratio = paired_ratio(summary, first, second, SPEED)
    return ratio.text() if ratio is not None else ""


def _beside(
    summary: pd.DataFrame, local: pd.DataFrame, who: Entrant
) -> tuple[pd.DataFrame, Entrant, Entrant]:
    """Join a contestant's runs over the network and on shared memory, for a ratio of the two.

    Returns the joint table and both entrants in it.
    """
    without = replace(who, label=f"{who.label} on shared memory")
    runs = runs_of(local, who).assign(contestant=without.label)
    # They are two campaigns, called apart, but took turns round by round.
    return pd.concat([runs_of(summary, who), runs]).assign(calls=""), who, without


COLUMNS = [
    "link",
    "model",
    "strategy",
    "samples/s",
    "speed of FBP over it",
    "over shared memory",
    "MiB sent a step",
    "idle",
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all campaigns and write `cluster.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="1gbit,200mbit")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("results/reference/cluster"))
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE of the campaigns")
    options = parser.parse_args(arguments)
    rates = options.rates.split(",")
    for repeats in range(1, options.repeats + 1):
        settings = [*options.set, f"repeats={repeats}"]
        for rate in rates:
            run_on_cluster(rate, settings)
            run_on_shared_memory(rate, settings)
    for rate in rates:
        for name in (rate, f"{BESIDE}{rate}"):
            collect(REPOSITORY / "results" / campaign_name(name), options.out / name)
    rows = []
    for local in sorted(options.out.glob(f"{BESIDE}*")):
        rate = local.name.removeprefix(BESIDE)
        rows += rows_of(rate, read_summary(options.out / rate), read_summary(local))
    text = (
        "# Two nodes of one core with a network between them\n\n"
        "`python -m benchmarks.cluster`, settings of each rate in its provenance/campaign.json. "
        "Medians and ratios over runs that took turns, one of each a round.\n\n"
    )
    (options.out / "cluster.md").write_text(text + markdown(COLUMNS, rows), encoding="utf-8")
    print(text + markdown(COLUMNS, rows))


if __name__ == "__main__":
    main()
