"""Runs the campaigns of config/bench and writes one report over all of them.

    python -m benchmarks.bench [--full] [--only devices-8 ...] [--set steps=4] [--out DIR]

Each campaign goes on where it was stopped: trials that have finished are not run again. Those in
config/bench/nodes run on two nodes of the testbed, which needs root, and are left out without. With
`--full` all contestants of config/bench/full race in every campaign. One that cannot train a cell
is a row of the report that says why.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_lpm.campaign.config import campaign_from_document, read_campaign_document
from hpc_lpm.campaign.contestants import contestant_of
from hpc_lpm.campaign.joint_report import write_joint_report
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.errors import InputError
from hpc_lpm.options import merged_documents

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "config" / "bench"
FULL = FOLDER / "full" / "contestants.yaml"
CLUSTER = REPOSITORY / "slurm" / "testbed" / "cluster"
UP = ("up", "--nodes", "2", "--cores-per-node", "1", "--rate", "1gbit")


def documents(full: bool) -> dict[Path, dict[str, Any]]:
    """Return the campaigns by their files, those that run on nodes last."""
    found: dict[Path, dict[str, Any]] = {}
    for path in [*sorted(FOLDER.glob("*.yaml")), *sorted((FOLDER / "nodes").glob("*.yaml"))]:
        document = read_campaign_document(path)
        if full:
            document = merged_documents(document, read_campaign_document(FULL))
            document["name"] += "-full"
        found[path] = document
    return found


def split(document: dict[str, Any], where: str) -> tuple[list[Any], dict[str, str]]:
    """Return the contestants that can train the cells of a campaign, and why others cannot."""
    accepted: list[Any] = []
    refused: dict[str, str] = {}
    for entry in document["strategies"]:
        alone = {**document, "strategies": [entry]}
        own = {"lead", "weights"} & alone.keys()
        try:
            campaign = campaign_from_document(alone, where)
            # What others are set to do is not asked of this one.
            taken = campaign.contestants[0].entry.options.model_fields
            left = {k: v for k, v in alone.items() if k not in own or k in taken}
            check_names(campaign_from_document(left, where), where)
            accepted.append(entry)
        except InputError as error:
            label = contestant_of(entry).label
            refused[label] = str(error).removeprefix(f"campaign file {where}: ").rstrip(".")
    return accepted, refused


def run(document: dict[str, Any], settings: Sequence[str], *, on_nodes: bool, work: Path) -> Path:
    """Run one campaign, whatever becomes of single contestants, and return its folder."""
    file = work / f"{document['name']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    program = str(Path(sys.executable).with_name("snakemake"))
    where = ["--profile", "slurm"] if on_nodes else ["--cores", "2"]
    command = [program, *where, "--configfile", str(file), "--keep-going", "--rerun-incomplete"]
    command += ["--nolock", *(["--config", *settings] if settings else [])]
    if on_nodes:
        subprocess.run([str(CLUSTER), *UP], check=True)
    try:
        subprocess.run(command, cwd=REPOSITORY, check=False)
    finally:
        if on_nodes:
            subprocess.run([str(CLUSTER), "down"], check=True)
    return REPOSITORY / "results" / str(document["name"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of files in config/bench")
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE of the campaigns")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    options = parser.parse_args(arguments)
    roots: list[Path] = []
    refusals: dict[str, dict[str, str]] = {}
    lines: list[str] = []
    for path, document in documents(options.full).items():
        on_nodes = path.parent.name == "nodes"
        if options.only is not None and path.stem not in options.only:
            continue
        if on_nodes and os.geteuid() != 0:
            lines.append(f"{document['name']}: its nodes are started by root alone.")
            continue
        accepted, refused = split(document, str(path))
        refusals[document["name"]] = refused
        chosen = {**document, "strategies": accepted}
        root = run(chosen, options.set, on_nodes=on_nodes, work=options.out / "campaigns")
        if (root / "provenance" / "campaign.json").exists():
            roots.append(root)
        else:
            lines.append(f"{document['name']} did not run.")
    outcome = write_joint_report(roots, options.out, refusals)
    print(f"Report in {outcome.path}.")
    for line in lines:
        print(line)


if __name__ == "__main__":
    main()
