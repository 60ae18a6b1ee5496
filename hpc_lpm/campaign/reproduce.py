"""The exact commands that repeat a campaign or one of its runs."""

import shlex
import sys
from pathlib import Path

from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.results import CampaignResults
from hpc_lpm.campaign.steps import Steps


def commands_of(results: CampaignResults, launches: dict[str, Launch]) -> list[tuple[str, str]]:
    """Return (what, command) of the whole campaign, then of profiles, plans and a run of each kind.

    A run that was launched shows the command that it was launched with, shortened to the names of
    programs where they lie in the environment that this report was made in.
    """
    folder = results.folder
    steps = Steps(results.campaign, folder)
    listed = [
        (
            "the whole campaign, beside the results that are there",
            f"cp {shlex.quote(str(folder.campaign))} again.json && snakemake --cores "
            f"{results.campaign.stages} --configfile again.json --config name="
            f"{results.campaign.name}-again",
        )
    ]
    for kind, group in (("profile", steps.profiles), ("plan", steps.plans)):
        for name, step in group.items():
            program = "python -m mpi4py -m hpc_lpm" if step.ranks > 1 else "hpc-lpm"
            launcher = f"mpirun -n {step.ranks} " if step.ranks > 1 else ""
            command = f"{launcher}{program} {shlex.join(step.arguments)}"
            listed.append((f"{kind} {name}", command))
    shown: set[object] = set()
    for trial in results.trials:
        who = (trial.model, trial.dataset, trial.strategy, trial.planner)
        if trial.name in launches and who not in shown:
            shown.add(who)
            listed.append((trial.name, _shorten(launches[trial.name].command)))
    return listed


def _shorten(command: list[str]) -> str:
    programs = Path(sys.executable).parent
    short = [
        Path(word).name if Path(word).is_absolute() and Path(word).parent == programs else word
        for word in command
    ]
    return shlex.join(short)
