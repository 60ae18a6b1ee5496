"""Finds the runs of a trial at other settings, which stay in the folder of its campaign."""

import re
from pathlib import Path

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identity import DIGITS
from hpc_lpm.engine.result import RESULT


def earlier_runs(folder: CampaignFolder, trial: str) -> list[Path]:
    """Return the folders in which a trial was trained from something else, the last one first."""
    pattern = re.compile(rf"{re.escape(trial)}(-[0-9a-f]{{{DIGITS}}})?")
    runs = folder.root / "runs"
    here = folder.run(trial)
    found = [
        path
        for path in runs.glob(f"{trial}*")
        if path != here and pattern.fullmatch(path.name) and (path / RESULT).exists()
    ]
    return sorted(found, key=lambda path: (path / RESULT).stat().st_mtime, reverse=True)
