"""A call of Snakemake: what it was asked to run, decided once for all of its jobs.

A job reads the campaign that its call has decided on instead of the user's file, which may have
been edited since. Runs of one call are compared with each other: a machine's speed drifts.
"""

import hashlib
import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from hpc_lpm.campaign.absent import absent_contestants
from hpc_lpm.campaign.config import Campaign, campaign_from_document
from hpc_lpm.campaign.fingerprints import MEMORY, Fingerprints
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identity import DIGITS, Identities
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile, write_text_atomically

CALL = "HPC_LPM_CALL"
"""The environment variable that tells jobs the file of the call that they belong to."""


class Call(VersionedFile):
    """`calls/ID.json`: the campaign as one call of Snakemake found it, and what it is made from."""

    kind: ClassVar[str] = "record of a call of snakemake"

    identifier: str
    started: datetime
    campaign: dict[str, Any]
    absent: tuple[str, ...]
    identities: Identities

    @classmethod
    def of(cls, campaign: Campaign, identities: Identities) -> Self:
        """Return a call that starts now, without the contestants that are not installed."""
        return cls(
            identifier=uuid.uuid4().hex[:8],
            started=datetime.now(UTC),
            campaign=campaign.model_dump(mode="json"),
            absent=tuple(absent.contestant for absent in absent_contestants(campaign)),
            identities=identities,
        )

    @property
    def name(self) -> str:
        """The name of the campaign."""
        return str(self.campaign["name"])

    def steps(self, results: Path) -> Steps:
        """Return the steps of the call; `results` is the folder of the campaigns' folders."""
        campaign = campaign_from_document(self.campaign, "of this call of snakemake")
        return Steps(campaign, CampaignFolder(results / self.name, self.identities.hashes()))

    def file(self, root: Path) -> Path:
        """Return the file in which the call is kept in the folder of its campaign."""
        return root / "provenance" / "calls" / f"{self.identifier}.json"

    def digest(self) -> str:
        """Return the hash of what was asked for: the campaign and all that it is made from."""
        asked = [self.campaign, self.absent, self.identities.hashes().model_dump(mode="json")]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:DIGITS]

    def asked(self, root: Path) -> Path:
        """Return a file that is there once the campaign's records are complete for this call.

        Its name tells what was asked for, so that nothing is summarised under an earlier campaign.
        """
        return root / "provenance" / f"asked-{self.digest()}"

    def begin(self, root: Path) -> None:
        """Make the folder's records of the campaign and its hashes those of this call."""
        self.write(self.file(root))
        for other in root.glob("provenance/asked-*"):
            if other != self.asked(root):
                other.unlink()
        steps = self.steps(root.parent)
        write_text_atomically(
            steps.folder.campaign, steps.campaign.model_dump_json(indent=2) + "\n"
        )
        steps.folder.hashes.write(steps.folder.hashes_file)

    def check_unchanged(self, trial: str, root: Path) -> None:
        """Check that the files that a trial is computed from are still what they were.

        Those of which times are all that is known are left out: other nodes may see other times.

        Raises:
            InputError: if a module, a file or the data have changed since Snakemake was called.
        """
        fingerprints, files = Fingerprints(root / MEMORY), self.identities.files
        for label in self.identities.runs[trial].files:
            known = files.get(label)
            if known is not None and not known.listed and known.changed(fingerprints):
                raise InputError(
                    f"{label} of trial {trial} has changed since snakemake was called, so that the "
                    "trial would not be what its name says: call snakemake again."
                )


def call_of_this_job() -> Call | None:
    """Return the call that a job belongs to, None if this process is part of none.

    Raises:
        InputError: if the file of the call is damaged or gone.
    """
    named = os.environ.get(CALL)
    return Call.read(Path(named)) if named else None
