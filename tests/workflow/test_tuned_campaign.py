"""A campaign that tunes its contestants before it trains them, run by Snakemake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identity import IDENTITY, Identity
from hpc_lpm.campaign.provenance import CampaignProvenance
from hpc_lpm.campaign.trials import trials_of
from hpc_lpm.campaign.tuning.tuned import Tuned
from hpc_lpm.engine.result import RunResult

REPOSITORY = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
COMMAND = [SNAKEMAKE, "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "2"]
CAMPAIGN = """
name: tiny
models: [mlp]
datasets: [digits]
strategies: [{fbp: {tune: {budget_seconds: 4}, weights: live, lead: 1}}]
optimizer: {name: momentum, lr: 0.05}
steps: 3
"""

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]


def snakemake(folder: Path) -> str:
    done = subprocess.run(
        [*COMMAND, "--configfile", "tiny.yaml"],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_tuned_campaign_ends_in_a_report_that_tells_what_was_chosen(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CAMPAIGN)
    snakemake(tmp_path)
    root = tmp_path / "results" / "tiny"
    folder = CampaignFolder.at(root)
    (trial,) = trials_of(folder.read_campaign())
    tuned = Tuned.read(folder.tuned(trial))
    assert tuned.choice.steps > 0
    assert tuned.candidates[0].options == {}

    page = (root / "report.html").read_text()
    assert "<h2>Tuning</h2>" in page
    assert tuned.choice.described() in page
    provenance = CampaignProvenance.read(folder.provenance)
    assert list(provenance.tunings.values()) == [tuned]

    # What was chosen is what was trained, and what the record of the run says.
    chosen = tuned.choice.options.get("micro_batches", 4)
    run = folder.run(trial)
    assert RunResult.read(run / "result.json").settings["micro_batches"] == chosen
    assert Identity.read(run / IDENTITY).settings["micro_batches"] == chosen
    assert "Nothing to be done" in snakemake(tmp_path)
