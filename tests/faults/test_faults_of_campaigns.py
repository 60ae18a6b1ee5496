"""A campaign on this machine whose supervisor, then whose driver, is killed at a random moment."""

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from hpc_lpm.campaign.orphans import processes_of
from tests.faults.outcomes import Outcome
from tests.faults.tiny_run import SEED
from tests.slurm.campaigns import PATIENCE_SECONDS, SNAKEMAKE, ClusterCampaign, wait_for
from tests.slurm.test_campaign_on_cluster import long_campaign
from tests.slurm.testbed import REPOSITORY, Shell

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]

ENDED_WITHIN_SECONDS = 60.0


class LocalCampaign(ClusterCampaign):
    """A campaign on the cores of this machine."""

    @property
    def command(self) -> list[str]:
        """What a user types."""
        snakefile = ("--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", "tiny.yaml")
        return [*SNAKEMAKE, *snakefile, "--cores", "2", "--rerun-incomplete", "--nolock"]


def training(campaign: LocalCampaign, words: str) -> list[psutil.Process]:
    """Return the processes of the campaign whose commands have these words."""
    found = []
    for process in processes_of(campaign.root):
        try:
            if words in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_campaign_goes_on_whoever_of_its_programs_was_killed(tmp_path: Path) -> None:
    draw = random.Random(SEED)
    shell = Shell(os.environ, tmp_path)
    long_campaign(shell, epochs=60)  # longer than the next driver takes to start
    campaign = LocalCampaign(shell, (tmp_path / "tiny.yaml").read_text())
    driver = campaign.start()
    try:
        campaign.wait_for_steps("fbp", 20 + draw.randrange(20))
        (supervisor,) = [
            each for each in training(campaign, "campaign launch") if "python" in each.name()
        ]
        began = time.monotonic()
        os.kill(supervisor.pid, signal.SIGKILL)
        wait_for(lambda: not training(campaign, "hpc_lpm train"), "the end of the ranks")
        ended = time.monotonic() - began
        assert ended < ENDED_WITHIN_SECONDS
        assert driver.wait(timeout=PATIENCE_SECONDS) != 0
        began, attempts = time.monotonic(), len(campaign.exit_codes("fbp"))
        driver = campaign.start()
        campaign.wait_for_resumption("fbp", attempts)
        seconds = time.monotonic() - began
        outcome = "its ranks end, the trial fails; the next call of snakemake goes on"
        Outcome("kill -9 of the supervisor of a trial", outcome, ended, seconds).record()

        campaign.wait_for_steps("fbp", campaign.steps_done("fbp") + 20 + draw.randrange(20))
        driver.kill()
        driver.wait()
        assert training(campaign, "hpc_lpm train")
        began, attempts = time.monotonic(), len(campaign.exit_codes("fbp"))
        driver = campaign.start()
        campaign.wait_for_resumption("fbp", attempts)
        seconds = time.monotonic() - began
        outcome = "the trial goes on; the next call of snakemake has it save, ends it and goes on"
        Outcome("kill -9 of the driver of a campaign", outcome, None, seconds).record()
        # What the driver that was killed had left running has saved its progress.
        assert campaign.exit_codes("fbp")[-2:] == [75, None]
    finally:
        driver.kill()
        for process in processes_of(campaign.root):
            process.kill()
