"""Faults of a cluster while a campaign trains on it: each costs at most the work since a save."""

import random
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from tests.faults.outcomes import Outcome
from tests.slurm.campaigns import PATIENCE_SECONDS, ClusterCampaign, wait_for
from tests.slurm.test_campaign_on_cluster import long_campaign
from tests.slurm.testbed import REPOSITORY, Shell

sys.path.insert(0, str(REPOSITORY / "slurm" / "testbed"))

from lpm_testbed import cluster as testbed
from lpm_testbed import processes
from lpm_testbed.layout import Layout, Node, read_layout

pytestmark = [pytest.mark.slurm, pytest.mark.workflow, pytest.mark.timeout(2400)]

SEED = 18
EPOCHS = 18
CUT_SECONDS = 5.0


class Cluster:
    """The cluster of the tests, parts of which are taken away and brought back."""

    def __init__(self, name: str) -> None:
        layout = read_layout(name)
        assert layout is not None
        self.layout: Layout = layout
        (self.node,) = (node for node in layout.nodes() if node.name == "n2")

    def kill(self, daemon: str) -> None:
        """Kill a daemon; that of a node is killed inside its node, whose processes end with it."""
        pid = processes.running(daemon, self.layout.folder)
        assert pid is not None
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        name = "slurmctld" if daemon == "slurmctld" else "slurmd"
        victim = next(process for process in family if _name_of(process) == name)
        victim.kill()
        ending = [victim] if name == "slurmctld" else family
        wait_for(lambda: not any(map(_name_of, ending)), f"the end of {name}")

    def start_controller(self) -> None:
        """Start slurmctld again, which remembers its jobs."""
        command = ["slurmctld", "-D", "-f", str(self.layout.configuration)]
        processes.start("slurmctld", command, self.layout.folder, testbed._environment())

    def start_node(self, node: Node) -> None:
        """Start a node again."""
        testbed._start_node(node, self.layout)

    def link(self, state: str) -> None:
        """Set the cable of the node up or down."""
        command = ["ip", "link", "set", self.node.interface, state]
        subprocess.run(command, check=True)

    def mend(self) -> None:
        """Bring back what is not there."""
        self.link("up")
        if processes.running("slurmctld", self.layout.folder) is None:
            self.start_controller()
        if processes.running(self.node.name, self.layout.folder) is None:
            self.start_node(self.node)
        wait_for(
            lambda: testbed.node_states(self.layout).get(self.node.name) in {"idle", "allocated"},
            "the node",
        )


def _name_of(process: psutil.Process) -> str | None:
    """Return the name of a process, None if it has ended."""
    try:
        is_there = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return process.name() if is_there else None
    except psutil.NoSuchProcess:
        return None


def test_a_campaign_outlives_its_links_its_controller_and_its_node(
    shell: Shell, cluster_name: str
) -> None:
    draw, cluster = random.Random(SEED), Cluster(cluster_name)
    campaign = long_campaign(shell, epochs=EPOCHS)
    driver = campaign.start()

    def steps() -> int:
        return campaign.steps_done("fbp")

    def train_on(least: int) -> float:
        """Wait for so many more steps than there are; return the seconds until the first."""
        began, before = time.monotonic(), steps()
        wait_for(lambda: steps() > before or driver.poll() is not None, "a step")
        first = time.monotonic() - began
        campaign.wait_for_steps("fbp", before + least)
        return first

    def attempts() -> int:
        return len(campaign.exit_codes("fbp"))

    try:
        campaign.wait_for_steps("fbp", 30 + draw.randrange(20))
        cluster.link("down")
        time.sleep(CUT_SECONDS)
        cluster.link("up")
        resumed = train_on(10 + draw.randrange(20))
        outcome = "the ranks wait, and go on once it is back"
        Outcome(
            f"a link between nodes is cut for {CUT_SECONDS:g} s", outcome, None, resumed
        ).record()
        assert attempts() == 1

        cluster.kill("slurmctld")
        train_on(10 + draw.randrange(20))
        cluster.start_controller()
        train_on(10)
        outcome = "the job goes on; the driver asks again once it is back"
        Outcome("kill -9 of slurmctld", outcome).record()
        assert attempts() == 1

        for fault, happen, outcome in (
            (
                "kill -9 of slurmd, and its node with it",
                lambda: cluster.kill("n2"),
                "the job ends and is queued again",
            ),
            (
                "a link between nodes is cut for good",
                lambda: cluster.link("down"),
                "Slurm takes the node for down, and queues the job again",
            ),
        ):
            _lose_the_job(campaign, cluster, fault, happen, outcome)
        assert driver.wait(timeout=PATIENCE_SECONDS) == 0
    finally:
        driver.kill()
        cluster.mend()
    result = campaign.read("fbp", "result.json")
    # Where it was stopped, and whether that was at the end of an epoch, is chance.
    undisturbed = campaign.weights_without_interruption("fbp", drained=False)
    assert result["weights_sha256"] == undisturbed
    assert (campaign.root / "report.html").exists()


def _lose_the_job(
    campaign: ClusterCampaign,
    cluster: Cluster,
    fault: str,
    happen: Callable[[], None],
    outcome: str,
) -> None:
    """Take away what a job needs, wait for its end, mend it and wait until training goes on."""
    jobs, attempts = set(campaign.jobs()), len(campaign.exit_codes("fbp"))
    began = time.monotonic()
    happen()
    wait_for(lambda: not set(campaign.jobs()) & jobs, "the end of the job")
    ended = time.monotonic() - began
    cluster.mend()
    began = time.monotonic()
    campaign.wait_for_resumption("fbp", attempts)
    Outcome(fault, outcome, ended, time.monotonic() - began).record()
    campaign.wait_for_steps("fbp", campaign.steps_done("fbp") + 20)
