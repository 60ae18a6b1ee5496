"""Runs the campaigns of config/bench and writes one report over all of them.

    python -m benchmarks.bench [--full] [--only devices-8 ...] [--set steps=4] [--out DIR]

Each campaign goes on where it was stopped: trials that have finished are not run again. Those in
config/bench/nodes run on two nodes of the testbed, which needs root, and are left out without. With
`--full` all contestants of config/bench/full race in every campaign. One that cannot train a cell
is a row of the report that says why. A name or setting that does not exist ends it with exit code 2
before anything runs, a campaign that failed with 1 once the report is written.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_lpm.campaign.command_line import typed_values
from hpc_lpm.campaign.config import campaign_from_document, read_campaign_document
from hpc_lpm.campaign.contestants import contestant_of
from hpc_lpm.campaign.joint_report import write_joint_report
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE
from hpc_lpm.documents import DocumentError, parse_yaml
from hpc_lpm.errors import InputError, closest
from hpc_lpm.options import merged_documents

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "config" / "bench"
FULL = FOLDER / "full" / "contestants.yaml"
CLUSTER = REPOSITORY / "slurm" / "testbed" / "cluster"
EXIT_FAILED = 1
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


def chosen_documents(
    full: bool, only: Sequence[str] | None = None, settings: Sequence[str] | None = None
) -> dict[Path, dict[str, Any]]:
    """Return the campaigns that are asked for by their files, with what is set for all of them.

    Args:
        full: whether all contestants race.
        only: the names of their files, None for all.
        settings: `KEY=VALUE` of campaign files, None for nothing.

    Raises:
        InputError: if a name is none of a file, or a setting is none of a campaign or not accepted.
    """
    found = documents(full)
    names = [path.stem for path in found]
    accepted = f"accepted are {', '.join(names)}: name one or more, or leave --only out."
    if only is not None:
        if not only:
            raise InputError(f"--only names no campaign, {accepted}")
        for name in only:
            if name not in names:
                raise InputError(f"--only names {name!r}{closest(name, names)}, {accepted}")
        found = {path: document for path, document in found.items() if path.stem in only}
    given = _parsed(settings)
    for path, document in found.items():
        try:
            found[path] = merged_documents(document, typed_values(given, document))
            campaign_from_document(found[path], path.name)
        except InputError as error:
            reason = _without_place(error, path.name)
            where = f"--set {' '.join(settings)}" if settings else "it"
            raise InputError(f"campaign {path.stem} with {where}: {reason}.") from None
    return found


def _parsed(settings: Sequence[str] | None) -> dict[str, Any]:
    """Return the values of `--set` by their keys.

    Raises:
        InputError: if one is no `KEY=VALUE`, or would give all campaigns one folder.
    """
    accepted = "accepted are keys of campaign files with a value, such as repeats=1 steps=4"
    if settings is not None and not settings:
        raise InputError(f"--set has no setting, {accepted}: give one, or leave --set out.")
    given: dict[str, Any] = {}
    for setting in settings or ():
        key, equals, text = setting.partition("=")
        if not (key and equals and text):
            raise InputError(f"--set has {setting!r}, {accepted}: correct it.")
        if key == "name":
            raise InputError(
                f"--set has {setting!r}, but each campaign keeps its own name, after which its "
                "folder is called: leave it out."
            )
        try:
            given[key] = parse_yaml(text)
        except DocumentError as error:
            raise InputError(
                f"--set has {setting!r}, which is no YAML ({error}): correct it."
            ) from None
    return given


def _without_place(error: InputError, where: str) -> str:
    return str(error).removeprefix(f"campaign file {where}: ").rstrip(".")


def split(document: dict[str, Any], where: str) -> tuple[list[Any], dict[str, str]]:
    """Return the contestants that can train the cells of a campaign, and why others cannot.

    Those that are to be tuned can be, too.
    """
    accepted: list[Any] = []
    refused: dict[str, str] = {}
    for entry in document["strategies"]:
        alone = {**document, "strategies": [entry]}
        try:
            campaign = campaign_from_document(alone, where)
            # What others are set to do is not asked of this one.
            takes = campaign.contestants[0].entry.takes
            left = {k: v for k, v in alone.items() if k not in campaign.own or takes(k)}
            check_names(campaign_from_document(left, where), where)
            accepted.append(entry)
        except InputError as error:
            refused[contestant_of(entry).label] = _without_place(error, where)
    return accepted, refused


def run(document: dict[str, Any], *, on_nodes: bool, work: Path) -> tuple[Path, str | None]:
    """Run one campaign, whatever becomes of single contestants.

    Returns:
        Its folder, and what failed, None if nothing did.
    """
    name = document["name"]
    file = work / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    program = str(Path(sys.executable).with_name("snakemake"))
    where = ["--profile", "slurm"] if on_nodes else ["--cores", "2"]
    command = [program, *where, "--configfile", str(file), "--keep-going", "--rerun-incomplete"]
    command += ["--nolock"]
    root = REPOSITORY / "results" / str(name)
    if on_nodes and subprocess.run([str(CLUSTER), *UP], check=False).returncode:
        return root, f"{name} did not run: its nodes could not be started."
    try:
        code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    finally:
        if on_nodes:
            subprocess.run([str(CLUSTER), "down"], check=True)
    return root, f"{name} failed: snakemake ended with exit code {code}." if code else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code.

    It is 2 if something asked for does not exist, before anything runs, and 1 if a campaign failed.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="race all contestants")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="names of files in config/bench")
    parser.add_argument("--set", nargs="*", metavar="KEY=VALUE", help="settings of all campaigns")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    options = parser.parse_args(arguments)
    try:
        entered, left_out = _entered(chosen_documents(options.full, options.only, options.set))
        if left_out and not entered:
            raise InputError(" ".join(left_out))
    except InputError as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return _race(entered, left_out, options.out)


@dataclass(frozen=True)
class Entered:
    """A campaign whose contestants can train its cells.

    Attributes:
        document: its keys, with these contestants.
        refused: why others cannot, by their labels.
        on_nodes: whether it runs on nodes of the testbed.
    """

    document: dict[str, Any]
    refused: dict[str, str]
    on_nodes: bool


def _entered(chosen: dict[Path, dict[str, Any]]) -> tuple[list[Entered], list[str]]:
    """Return the campaigns that can run, and a sentence for each that is left out.

    Raises:
        InputError: if no contestant of a campaign can train its cells.
    """
    entered: list[Entered] = []
    left_out: list[str] = []
    for path, document in chosen.items():
        on_nodes = path.parent.name == "nodes"
        if on_nodes and os.geteuid() != 0:
            left_out.append(
                f"{document['name']} is left out, since root alone starts its nodes: run as root."
            )
            continue
        accepted, refused = split(document, str(path))
        if not accepted:
            raise InputError(
                f"no contestant of campaign {path.stem} can train its cells "
                f"({next(iter(refused.values()))}): correct what was set, or its file."
            )
        entered.append(Entered({**document, "strategies": accepted}, refused, on_nodes))
    return entered, left_out


def _race(entered: Sequence[Entered], left_out: Sequence[str], out: Path) -> int:
    """Run campaigns, write the report over all of them and return the exit code."""
    roots: list[Path] = []
    failures: list[str] = []
    for each in entered:
        root, failure = run(each.document, on_nodes=each.on_nodes, work=out / "campaigns")
        if (root / "provenance" / "campaign.json").exists():
            roots.append(root)
        elif failure is None:
            failure = f"{each.document['name']} did not run."
        failures += [failure] if failure else []
    refusals = {each.document["name"]: each.refused for each in entered}
    outcome = write_joint_report(roots, out, refusals)
    print(f"Report in {outcome.path}.")
    for line in [*left_out, *failures]:
        print(line)
    return EXIT_FAILED if failures else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
