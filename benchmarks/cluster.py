"""FBP and its rivals on two nodes with a real network between them, and FBP without the network.

    python -m benchmarks.cluster [--rates 1gbit,200mbit] [--set steps=8 ...] [--out FOLDER]

For each rate a cluster is started (slurm/testbed, which needs root) and config/cluster.yaml is run
on it through `snakemake --profile slurm`; FBP alone is run on this machine's shared memory in
between, and what is there already is not run again. `--set` changes keys of the campaign on the
cluster. Ratios to rivals are over pairs of runs of one campaign; that to shared memory is between
two campaigns, minutes apart.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.race import markdown
from hpc_lpm.campaign.intervals import ratio_of_medians
from hpc_lpm.campaign.statistics import estimate, identities, paired_ratio, runs_of

REPOSITORY = Path(__file__).resolve().parents[1]
CLUSTER = REPOSITORY / "slurm" / "testbed" / "cluster"
CAMPAIGN = "config/cluster.yaml"
LOCAL = "cluster-local"
SPEED = "samples_per_second"


def snakemake(*options: str, name: str, settings: Sequence[str]) -> Path:
    """Run the campaign under a name, with some of its keys changed; return its folder."""
    program = str(Path(sys.executable).with_name("snakemake"))
    command = [program, *options, "--configfile", CAMPAIGN, "--config", f"name={name}"]
    subprocess.run([*command, *settings], cwd=REPOSITORY, check=True)
    return REPOSITORY / "results" / name


def run_on_cluster(rate: str, settings: Sequence[str]) -> Path:
    """Run the campaign on two nodes whose links have that rate."""
    start = [str(CLUSTER), "up", "--nodes", "2", "--cores-per-node", "1", "--rate", rate]
    subprocess.run(start, check=True)
    try:
        return snakemake("--profile", "slurm", name=f"cluster-{rate}", settings=settings)
    finally:
        subprocess.run([str(CLUSTER), "down"], check=True)


def collect(folder: Path, out: Path) -> pd.DataFrame:
    """Keep the small files of a campaign, without the paths of this machine; return its summary."""
    out.mkdir(parents=True, exist_ok=True)
    kept = [folder / "summary.csv", folder / "statistics.csv"]
    for pattern in ("figures/*", "plans/*.json", "profiles/*.json", "provenance/*.json"):
        kept += sorted(folder.glob(pattern))
    for path in kept:
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        # Where this machine has its programs is nobody's business.
        for prefix in (f"{Path(sys.executable).parent}{os.sep}", f"{REPOSITORY}{os.sep}"):
            text = text.replace(prefix, "")
        target.write_text(text, encoding="utf-8")
    return read_summary(out)


def read_summary(folder: Path) -> pd.DataFrame:
    """Return the runs of a campaign that was kept."""
    return pd.read_csv(folder / "summary.csv", keep_default_na=False)


def rows_of(rate: str, summary: pd.DataFrame, local: pd.DataFrame) -> list[list[str]]:
    """Return a row for each contestant of one rate."""
    rows = []
    for who in identities(summary):
        ours = next(
            other
            for other in identities(summary)
            if other["model"] == who["model"] and other["strategy"] == "fbp"
        )
        own = runs_of(summary, who)
        ratio = paired_ratio(summary, ours, who, SPEED)
        against_rival = ratio.text() if ratio is not None and who != ours else ""
        rows.append(
            [
                rate,
                who["model"],
                who["strategy"],
                estimate(own[SPEED].tolist()).text(1),
                against_rival,
                _of_shared_memory(own, runs_of(local, who)) if who == ours else "",
                f"{own['bytes_sent'].median() / own['steps'].median() / 2**20:.1f}",
                f"{100 * own['idle_share'].median():.0f} %",
            ]
        )
    return rows


def _of_shared_memory(own: pd.DataFrame, local: pd.DataFrame) -> str:
    if not len(local):
        return ""
    ratio = own[SPEED].median() / local[SPEED].median()
    low, high = ratio_of_medians(local[SPEED].tolist(), own[SPEED].tolist())
    return f"{ratio:.2f} (95 % interval {low:.2f} to {high:.2f})"


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
    """Run everything and write `cluster.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="1gbit,200mbit")
    parser.add_argument("--out", type=Path, default=Path("results/reference/cluster"))
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE of the campaign")
    options = parser.parse_args(arguments)
    first, *others = options.rates.split(",")
    folder = options.out / "shared-memory"
    collect(run_on_cluster(first, options.set), options.out / first)
    local = collect(snakemake("--cores", "2", name=LOCAL, settings=['strategies=["fbp"]']), folder)
    for rate in others:
        collect(run_on_cluster(rate, options.set), options.out / rate)
    # Those of an earlier call, too.
    rates = sorted(
        path.parent for path in options.out.glob("*/summary.csv") if path.parent != folder
    )
    summaries = {rate.name: read_summary(rate) for rate in rates}
    table = markdown(
        COLUMNS,
        [row for rate, summary in summaries.items() for row in rows_of(rate, summary, local)],
    )
    text = (
        "# Two nodes of one core with a network between them\n\n"
        "`python -m benchmarks.cluster`, settings of each rate in its provenance/campaign.json. "
        "Medians over interleaved runs; shared memory is another campaign, minutes apart.\n\n"
    )
    (options.out / "cluster.md").write_text(text + table, encoding="utf-8")
    print(text + table)


if __name__ == "__main__":
    main()
