"""Whole campaigns on real nodes: they end in their report, however they are stopped."""

import json
import shlex

import pytest

from tests.slurm.campaigns import PATIENCE_SECONDS, SNAKEMAKE, ClusterCampaign, wait_for
from tests.slurm.testbed import REPOSITORY, Shell

pytestmark = [pytest.mark.slurm, pytest.mark.workflow, pytest.mark.timeout(2400)]

WHOLE = """
name: tiny
models: [mlp, "breaking:model"]
datasets: [digits]
strategies: [sequential, fbp]
optimizer: {name: momentum, lr: 0.05}
epochs: 1
"""
# It can be built, profiled and planned, but not trained for long.
BREAKING = """
from torch import nn

class Breaking(nn.Module):
    calls = 0

    def forward(self, x):
        Breaking.calls += self.training
        if Breaking.calls > 40:
            raise RuntimeError("this layer breaks")
        return x

def model(shape):
    channels, height, width = shape.input_shape
    size = channels * height * width
    builders = [nn.Flatten, lambda: nn.Linear(size, 16), Breaking, nn.ReLU]
    return [*builders, lambda: nn.Linear(16, shape.classes)]
"""
# However fast or busy the machine: every step of training takes 80 ms and hardly any work. In a
# process that was there before the file SLOWLY was made, it takes 1 s from then on.
PACED = """
import os, time
from pathlib import Path
from torch import nn

PAUSE = float(os.environ.get("PACED_SECONDS", "0.02"))
SLOWLY, BEGAN = Path(__file__).with_name("slowly"), time.time()

class Pause(nn.Module):
    def forward(self, x):
        is_slow = SLOWLY.exists() and SLOWLY.stat().st_mtime > BEGAN
        time.sleep((0.25 if is_slow else PAUSE) if self.training else 0)
        return x

def model(shape):
    channels, height, width = shape.input_shape
    convolution = lambda: nn.Conv2d(channels, 4, 3, padding=1)
    builders = [convolution, lambda: nn.BatchNorm2d(4), nn.ReLU, nn.Flatten]
    return [*builders, Pause, lambda: nn.Linear(4 * height * width, shape.classes)]
"""
LONG = """
name: tiny
models: ["paced:model"]
datasets: ["digits,size=8"]
strategies: [fbp]
weights: live
optimizer: {name: momentum, lr: 0.05}
epochs: EPOCHS
launcher: {mpi: LAUNCHER}
"""


def own_model(shell: Shell, name: str, code: str) -> None:
    """Have the trials find a model of a user's own."""
    (shell.folder / f"{name}.py").write_text(code)
    shell.environment["PYTHONPATH"] = str(shell.folder)


def long_campaign(shell: Shell, launcher: str = "mpirun", epochs: int = 6) -> ClusterCampaign:
    """Return a campaign of one trial that takes long enough to be stopped, 2 s an epoch."""
    own_model(shell, "paced", PACED)
    text = LONG.replace("LAUNCHER", launcher).replace("EPOCHS", str(epochs))
    return ClusterCampaign(shell, text)


def train_slowly(shell: Shell) -> None:
    """Have the trial that trains now take minutes, and those that start from now on as before.

    However long it takes until somebody stops it, it has not ended by then.
    """
    (shell.folder / "slowly").touch()


def test_a_campaign_ends_in_its_report_and_says_what_is_missing_and_why(shell: Shell) -> None:
    own_model(shell, "breaking", BREAKING)
    campaign = ClusterCampaign(shell, WHOLE)
    done = campaign.run("--retries", "1")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    results = {path.parent.name for path in campaign.root.glob("runs/*/result.json")}
    assert len(results) == 2, said
    assert all(name.startswith("mlp-") for name in results)
    # The report comes all the same, and the end names what did not work out.
    page = (campaign.root / "report.html").read_text()
    assert "trials are missing" in page
    for folder in campaign.root.glob("runs/breaking*"):
        assert folder.name in page
        attempts = json.loads((folder / "attempts.json").read_text())["attempts"]
        # Once more in its own job, where it comes no further, and not again.
        assert [one["exit_code"] for one in attempts] == [1, 1]
    assert "it ended with exit code 1" in said
    # Ranks were where the cluster has its cores, in order.
    launch = json.loads(
        (campaign.root / "runs" / _named(results, "fbp") / "launch.json").read_text()
    )
    assert launch["nodes"] == ["n1", "n2"]
    assert launch["slurm"]["job_id"].isdigit()


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_a_cancelled_job_goes_on_and_ends_in_the_same_weights(shell: Shell, launcher: str) -> None:
    campaign = long_campaign(shell, launcher)
    driver = campaign.start()
    try:
        campaign.wait_for_steps("fbp", 30)
        train_slowly(shell)
        shell.output("scancel", *campaign.jobs())
        assert driver.wait(timeout=PATIENCE_SECONDS) == 0
    finally:
        driver.kill()
    assert campaign.exit_codes("fbp") == [75, 0]
    result = campaign.read("fbp", "result.json")
    assert result["interruptions"] == 1
    assert result["weights_sha256"] == campaign.weights_without_interruption("fbp")
    assert (campaign.root / "report.html").exists()


def test_a_driver_that_is_killed_is_followed_by_one_that_repeats_nothing(shell: Shell) -> None:
    campaign = long_campaign(shell)
    first = campaign.start()
    campaign.wait_for_steps("fbp", 30)
    train_slowly(shell)
    first.kill()
    first.wait()
    left = campaign.jobs()
    assert left
    finished = {path: path.stat().st_mtime for path in campaign.root.glob("plans/*.json")}
    assert finished
    done = campaign.run()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"of a driver that is gone: {left[0]}" in said
    assert campaign.exit_codes("fbp")[-2:] == [75, 0]
    assert {path: path.stat().st_mtime for path in finished} == finished
    again = campaign.run()
    assert "Nothing to be done" in again.stdout + again.stderr


def test_signal_before_the_limit_and_a_node_that_goes_down(shell: Shell) -> None:
    campaign = long_campaign(shell, epochs=12)
    driver = campaign.start()
    try:
        campaign.wait_for_steps("fbp", 25)
        # What Slurm does two minutes before the time limit.
        shell.output("scancel", "--batch", "--signal=USR2", *campaign.jobs())
        wait_for(lambda: campaign.exit_codes("fbp")[0] == 75, "the first attempt's end")
        campaign.wait_for_steps("fbp", campaign.steps_done("fbp") + 30)
        shell.output("scontrol", "update", "nodename=n2", "state=down", "reason=test")
        wait_for(lambda: not campaign.jobs(), "the end of the job on the node that is gone")
        # It may have come back by itself.
        shell.run("scontrol", "update", "nodename=n2", "state=resume")
        assert driver.wait(timeout=PATIENCE_SECONDS) == 0
    finally:
        driver.kill()
        shell.run("scontrol", "update", "nodename=n2", "state=resume")
    attempts = campaign.read("fbp", "attempts.json")["attempts"]
    assert attempts[0]["exit_code"] == 75
    assert attempts[-1]["exit_code"] == 0
    # If the node comes back at once, ranks may start again in the job before Slurm has ended it.
    assert [one["restart"] for one in attempts].count(0) == 3
    assert (campaign.root / "report.html").exists()


def test_a_driver_that_is_a_job_can_be_cancelled_and_submitted_again(shell: Shell) -> None:
    checkout = shell.folder / "checkout"
    checkout.mkdir()
    for name in ("Snakefile", "slurm", "hpc_lpm", "config", "pyproject.toml"):
        (checkout / name).symlink_to(REPOSITORY / name)
    (checkout / ".venv" / "bin").mkdir(parents=True)
    snakemake = checkout / ".venv" / "bin" / "snakemake"
    snakemake.write_text(f'#!/bin/sh\nexec {shlex.join(SNAKEMAKE)} "$@"\n')
    snakemake.chmod(0o755)
    shell = Shell(shell.environment, checkout)
    campaign = long_campaign(shell)
    driver = shell.output("sbatch", "--parsable", "slurm/campaign.sbatch", "tiny.yaml").strip()
    campaign.wait_for_steps("fbp", 30)
    train_slowly(shell)
    shell.output("scancel", driver)
    wait_for(lambda: not shell.output("squeue", "--noheader"), "the end of driver and job")
    assert campaign.exit_codes("fbp") == [75]
    shell.output("sbatch", "--wait", "slurm/campaign.sbatch", "tiny.yaml", seconds=PATIENCE_SECONDS)
    assert campaign.exit_codes("fbp") == [75, 0]
    assert (campaign.root / "report.html").exists()


def _named(names: set[str], part: str) -> str:
    (found,) = (name for name in names if part in name)
    return found
