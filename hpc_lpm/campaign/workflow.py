"""Gives the rules of Snakemake the steps of the campaign that Snakemake was asked to run."""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_lpm.campaign.absent import check_installed
from hpc_lpm.campaign.calls import Call, call_of_this_job
from hpc_lpm.campaign.command_line import typed_values
from hpc_lpm.campaign.config import campaign_from_document, read_campaign_document
from hpc_lpm.campaign.fingerprints import MEMORY, Fingerprints
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.documents import parse_yaml
from hpc_lpm.errors import InputError
from hpc_lpm.files import read_text
from hpc_lpm.options import merged_documents

RULES = str(Path(__file__).resolve().parent / "rules" / "campaign.smk")
"""The rules of a campaign, which a Snakefile includes as a module."""

JOB_SCRIPT = "HPC_LPM_JOB_SCRIPT"
"""The environment variable that tells the jobs of a cluster what they run first; the profile in
slurm/ names it as `precommand`."""


def put_first(variable: str, folder: Path) -> None:
    """Put a folder first on a search path of this process and of those that it starts."""
    paths = [str(folder), *os.environ.get(variable, "").split(os.pathsep)]
    os.environ[variable] = os.pathsep.join(dict.fromkeys(filter(None, paths)))


def prepare_jobs(folder: Path) -> None:
    """Have the rules use this Python and the scripts in `slurm/`, whatever directory they run in.

    Args:
        folder: the folder of the Snakefile.
    """
    put_first("PATH", Path(sys.executable).parent)
    os.environ[JOB_SCRIPT] = str(folder / "slurm" / "job.sh")


_READ_BY_SHELLS, _READ_BY_SLURM = "$`\\", "%"


def check_names_for_shells(*names: tuple[str, object]) -> None:
    """Refuse names that Snakemake would hand to a shell in such a way that the shell reads them.

    What the rules run is quoted. But Snakemake's executors write the paths of the Snakefile and of
    campaign files, and what `--config` holds, between quotation marks of their own into the command
    that starts a job, where `$(...)` would be run by whoever submits it.

    Args:
        names: what each is, for the sentence, and the name.

    Raises:
        InputError: if a shell would not take one as it is.
    """
    signs = _READ_BY_SHELLS + _READ_BY_SLURM
    for what, name in names:
        text = str(name)
        read = next((s for s in text if s in signs or not s.isprintable()), None)
        if read is None and {"'", '"'} <= set(text):
            read = "'\""
        if read is not None:
            raise InputError(
                f"{what} {text!r} holds {read!r}, which shells and Slurm do not take as it is: "
                "accepted are all signs that can be printed but $, `, \\, % and both kinds of "
                "quotation marks at once; give it another name."
            )


def load_call(
    given: Mapping[str, Any],
    files: Sequence[str | Path],
    default: Path,
    results: Path,
    *,
    is_job: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Call:
    """Return the call of Snakemake that this process is part of.

    The files are read again, because Snakemake reads them by another version of YAML.

    Args:
        given: the keys of Snakemake's `--config`, which change those of the files.
        files: the campaign files of `--configfile`, of which later ones change earlier ones.
        default: the campaign file if none was given.
        results: the folder in which the campaign's folder is made.
        is_job: whether this process is a job of a call that has begun, which has decided already.
        say: called with a line for the user before large data are read.

    Raises:
        InputError: if the campaign is not valid, or none of its strategies is installed.
    """
    if is_job and (call := call_of_this_job()) is not None:
        return call
    # Imported here, because they import torch, for which each job of a campaign would wait.
    from hpc_lpm.campaign.identities import identities_of
    from hpc_lpm.campaign.validation import check_names

    document: dict[str, Any] = {}
    for file in files or [default]:
        document = merged_documents(document, read_campaign_document(Path(file)))
    document = merged_documents(document, typed_values(given, document))
    where = ", ".join(str(file) for file in files or [default])
    campaign = campaign_from_document(document, where)
    check_names(campaign, where)
    check_installed(campaign, where)
    root = results / campaign.name
    fingerprints = Fingerprints(root / MEMORY, say)
    identities = identities_of(Steps(campaign, CampaignFolder(root)), fingerprints)
    fingerprints.save()
    return Call.of(campaign, identities)


def options_of_profile(settings: Any) -> str:
    """Return the further options of sbatch that the profile has for all rules, `slurm_extra`.

    Args:
        settings: Snakemake's settings of resources.
    """
    return _slurm_extra(settings.default_resources or {})


def options_of_profile_in(folder: Path) -> str:
    """Return the same of the profile in `slurm/`, empty where there is none that can be read."""
    try:
        document = parse_yaml(read_text(folder / "slurm" / "config.v8+.yaml"))
    except (OSError, ValueError):  # Snakemake says what is wrong
        return ""
    resources = document.get("default-resources") if isinstance(document, dict) else None
    return _slurm_extra(resources) if isinstance(resources, dict) else ""


def _slurm_extra(resources: Any) -> str:
    value = resources.get("slurm_extra")
    value = getattr(value, "raw", value)  # as it stands in the profile
    if not isinstance(value, str):
        return ""
    # A text in a profile is an expression of Python.
    if value[:1] not in {"'", '"'}:
        return value
    try:
        return str(ast.literal_eval(value))
    except (SyntaxError, ValueError):
        return ""


def any_of(names: Iterable[str]) -> str:
    """Return the pattern of a wildcard that matches these names, or nothing without names."""
    return "|".join(re.escape(name) for name in names) or "(?!)"
