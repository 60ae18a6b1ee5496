"""Sends the driver of a campaign to the cluster as a job, with what slurm/site.yaml asks for."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc_lpm.cluster.site import FILE, MODULES, Site
from hpc_lpm.errors import InputError
from hpc_lpm.programs import ask, installed

SCRIPT = Path("slurm") / "campaign.sbatch"
"""The script of the driver's job, beside the Snakefile."""

_ANSWER_SECONDS = 60.0


def submit_driver(folder: Path, arguments: Sequence[str]) -> str:
    """Submit the driver and return what sbatch says, which names the job.

    Args:
        folder: the folder of the Snakefile.
        arguments: of the script: a campaign file, then options of Snakemake.

    Raises:
        InputError: if there is no Snakefile or no Slurm, site.yaml is wrong, or Slurm refuses.
    """
    if not (folder / "Snakefile").is_file() or not (folder / SCRIPT).is_file():
        raise InputError(
            f"{folder.resolve()} holds no Snakefile beside {SCRIPT}: submit from the folder that "
            "does, as `hpc-lpm init` makes one."
        )
    site = Site.read(folder)
    if not installed("sbatch"):
        raise InputError(
            "sbatch is not installed here: submit from a node of a Slurm cluster, or run the "
            "campaign on this machine (snakemake --cores 2)."
        )
    command = driver_command((folder / SCRIPT).read_text(encoding="utf-8"), site, arguments)
    answer = ask(command, environment=_environment(site), seconds=_ANSWER_SECONDS)
    if not answer.done:
        raise InputError(
            f"Slurm refuses the driver's job ({answer.complaint()}): correct {FILE}, which "
            f"`hpc-lpm doctor` tries, or the lines #SBATCH of {SCRIPT}."
        )
    return answer.output.strip()


def driver_command(script: str, site: Site, arguments: Sequence[str]) -> list[str]:
    """Return the command that submits the driver.

    Args:
        script: the text of the script, whose lines `#SBATCH` hold what the driver needs itself.
        site: what the cluster needs; the driver uses no GPU.
        arguments: of the script.
    """
    named = site.as_command()
    asked = [word for key in named if key not in _OF_TRAINING for word in named[key]]
    if site.memory:
        return ["sbatch", *asked, str(SCRIPT), *arguments]
    # No option takes back what a line of the script asks for, so that these become options.
    lines = [line.removeprefix("#SBATCH") for line in script.splitlines() if _is_request(line)]
    words = [word for line in lines for word in shlex.split(line, comments=True)]
    run = shlex.join(["exec", "bash", str(SCRIPT), *arguments])
    return ["sbatch", *_without_memory(words), *asked, f"--wrap={run}"]


_OF_TRAINING = ("gpus_per_task", "memory")


def _is_request(line: str) -> bool:
    return line.startswith("#SBATCH ")


def _without_memory(words: Sequence[str]) -> list[str]:
    """Return options of sbatch without those that ask for memory, all of which have a value."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--mem"):
            kept.append(word)
        elif "=" not in word:
            next(rest, None)  # its value, which sbatch would take for the script
    return kept


def _environment(site: Site) -> Mapping[str, str]:
    loaded = {MODULES: " ".join(site.modules)} if site.modules else {}
    return {**os.environ, **loaded}
