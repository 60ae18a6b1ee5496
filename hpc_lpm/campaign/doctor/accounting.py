"""Whether Slurm keeps accounts, and whether the profile of the campaigns suits that."""

from pathlib import Path
from typing import Any

import yaml

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.programs import ask, installed

NAME = "accounting"

PROFILE = Path("slurm/config.v8+.yaml")


def check_accounting(situation: Situation) -> Finding:
    """Judge the answers of sacct and sacctmgr, and the Slurm profile in the current folder.

    sacct may be installed where nothing is accounted and then answers errors; who asks it for the
    state of jobs waits for ever.
    """
    if not installed("sacct"):
        return Finding(NAME, "ok", "not on this machine")
    settings = _profile_settings(situation.folder / PROFILE)
    answer = ask(["sacct", "--noheader", "--allocations", "--starttime=now", "--format=jobid"])
    if not answer.done:
        return _without_accounting(answer.complaint(), settings)
    accounts = _accounts()
    if accounts and settings.get("slurm-no-account"):
        return Finding(
            NAME,
            "ok",
            f"answers; accounts: {', '.join(accounts)}",
            f"where the site charges jobs to an account, set slurm_account in {PROFILE} and "
            "remove slurm-no-account",
        )
    return Finding(NAME, "ok", "answers")


def _without_accounting(complaint: str, settings: dict[str, Any]) -> Finding:
    found = f"none: sacct says: {complaint}"
    if settings.get("slurm-status-command") == "squeue" and settings.get("slurm-no-account"):
        return Finding(NAME, "ok", f"{found}; {PROFILE} asks squeue and for no account")
    return Finding(
        NAME,
        "warning",
        f"{found}; jobs would seem to run for ever",
        f"set slurm-status-command: squeue and slurm-no-account: true in {PROFILE}",
    )


def _accounts() -> list[str]:
    answer = ask(
        ["sacctmgr", "--noheader", "--parsable2", "show", "user", "withassoc", "format=account"]
    )
    return sorted(set(filter(None, answer.output.split()))) if answer.done else []


def _profile_settings(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return document if isinstance(document, dict) else {}
