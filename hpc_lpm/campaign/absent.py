"""Contestants whose packages are not installed here: they are left out of a campaign and named."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import Contestant
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.errors import InputError


@dataclass(frozen=True)
class AbsentContestant:
    """A contestant that cannot be trained here: its label, why, and what would bring it."""

    contestant: str
    reason: str
    remedy: str

    def sentence(self) -> str:
        """Return that it is left out, why, and what to do, without a full stop."""
        return f"{self.contestant} is left out, {self.reason}: {self.remedy}"


def absent_contestants(campaign: Campaign) -> list[AbsentContestant]:
    """Return the contestants of a campaign whose packages are not installed, in its order."""
    return [_describe(who) for who in campaign.contestants if not who.entry.available()]


def without_absent(campaign: Campaign, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials whose strategies are installed, numbered from 1."""
    absent = {entry.contestant for entry in absent_contestants(campaign)}
    present = [trial for trial in trials if trial.contestant not in absent]
    return [replace(trial, number=number) for number, trial in enumerate(present, start=1)]


def check_installed(campaign: Campaign, where: str) -> None:
    """Check that at least one contestant can be trained; `where` names the campaign file.

    Raises:
        InputError: if the packages of all of them are missing.
    """
    absent = absent_contestants(campaign)
    if len(absent) == len(campaign.contestants):
        said = "; ".join(dict.fromkeys(f"{entry.reason}: {entry.remedy}" for entry in absent))
        raise InputError(f"campaign file {where} races nothing that is installed, {said}.")


def _describe(contestant: Contestant) -> AbsentContestant:
    package = contestant.entry.package
    reason, remedy = f"its package {package} is not installed", "install it or run `make setup`"
    # Set-up leaves a note of why it could not build a package, and of what would help.
    note = Path(sys.prefix) / f"{package}-missing.txt"
    try:
        why, help_with_it = note.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return AbsentContestant(contestant.label, reason, remedy)
    return AbsentContestant(
        contestant.label, f"{reason} ({why})", f"{help_with_it} and run `make setup`"
    )
