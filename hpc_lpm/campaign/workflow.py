"""Gives the Snakefile the steps of the campaign that Snakemake was asked to run."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hpc_lpm.campaign.absent import check_installed
from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.validation import check_names


def load_steps(
    configuration: Mapping[str, Any], files: Sequence[str | Path], default: Path, results: Path
) -> Steps:
    """Return the steps of the campaign that Snakemake was asked to run.

    Args:
        configuration: the merged keys of Snakemake's `--configfile` and `--config`.
        files: the campaign files that were given.
        default: the campaign file that `--config` changes if none was given.
        results: the folder in which the campaign's folder is made.

    Raises:
        InputError: if the campaign is not valid, or none of its strategies is installed.
    """
    document = dict(configuration)
    where = ", ".join(str(file) for file in files)
    if not files:
        document = yaml.safe_load(default.read_text(encoding="utf-8")) | document
        where = str(default)
    campaign = campaign_from_document(document, where)
    check_names(campaign, where)
    check_installed(campaign, where)
    return Steps(campaign, CampaignFolder(results / campaign.name))


def any_of(names: Iterable[str]) -> str:
    """Return the pattern of a wildcard that matches these names, or nothing without names."""
    return "|".join(re.escape(name) for name in names) or "(?!)"
