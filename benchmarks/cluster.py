"""FBP and its rivals on two nodes with a real network between them, and FBP without the network.

    python -m benchmarks.cluster [--rates 1gbit,200mbit] [--out FOLDER]

For each rate a cluster is started (slurm/testbed, which needs root) and config/cluster.yaml is run
on it through `snakemake --profile slurm`; FBP alone is run on this machine's shared memory in
between. Ratios to rivals are over pairs of runs of one campaign; that to shared memory is between
two campaigns, minutes apart.
"""

import argparse
import os
import shutil
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


def snakemake(*options: str, name: str) -> Path:
    """Run the campaign under a name and return its folder."""
    program = str(Path(sys.executable).with_name("snakemake"))
    command = [program, *options, "--configfile", CAMPAIGN, "--config", f"name={name}"]
    if "--cores" in options:
        command.append('strategies=["fbp"]')
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return REPOSITORY / "results" / name


def run_on_cluster(rate: str) -> Path:
    """Run the campaign on two nodes whose links have that rate."""
    start = [str(CLUSTER), "up", "--nodes", "2", "--cores-per-node", "1", "--rate", rate]
    subprocess.run(start, check=True)
    try:
        return snakemake("--profile", "slurm", name=f"cluster-{rate}")
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
    shutil.copy(REPOSITORY / CAMPAIGN, out / "campaign.yaml")
    return pd.read_csv(out / "summary.csv", keep_default_na=False)


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
    "FBP is faster by",
    "of its speed on shared memory",
    "MiB sent a step",
    "idle",
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything and write `cluster.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="1gbit,200mbit")
    parser.add_argument("--out", type=Path, default=Path("results/reference/cluster"))
    options = parser.parse_args(arguments)
    rates = options.rates.split(",")
    summaries = {rates[0]: collect(run_on_cluster(rates[0]), options.out / rates[0])}
    local = collect(snakemake("--cores", "2", name=LOCAL), options.out / "shared-memory")
    for rate in rates[1:]:
        summaries[rate] = collect(run_on_cluster(rate), options.out / rate)
    table = markdown(
        COLUMNS,
        [row for rate, summary in summaries.items() for row in rows_of(rate, summary, local)],
    )
    text = (
        "# Two nodes of one core with a network between them\n\n"
        f"`python -m benchmarks.cluster --rates {options.rates}`; settings in campaign.yaml, "
        "medians over interleaved runs. Shared memory is another campaign, minutes apart.\n\n"
    )
    (options.out / "cluster.md").write_text(text + table, encoding="utf-8")
    print(text + table)


if __name__ == "__main__":
    main()
