"""The tutorial's study on a cluster, as printed: nothing but the wheel, the folder and Slurm."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.installed import environment_of, install
from tests.slurm.campaigns import PATIENCE_SECONDS, wait_for
from tests.slurm.testbed import REPOSITORY, Shell
from tests.unit.documents import code_blocks

pytestmark = [pytest.mark.slurm, pytest.mark.workflow, pytest.mark.timeout(2400)]

TUTORIAL = REPOSITORY / "docs" / "tutorials" / "own-study.md"


def printed(part: str) -> str:
    (block,) = (b for b in code_blocks(TUTORIAL) if b.language == "sh" and part in b.text)
    return block.text


def test_a_study_of_ones_own_runs_on_the_cluster(shell: Shell, tmp_path: Path) -> None:
    programs = install(tmp_path / "installed")
    # Looks after its jobs every second, like those of the other tests.
    eager = REPOSITORY / "tests" / "slurm" / "eager_snakemake.py"
    snakemake = programs / "snakemake"
    snakemake.unlink()
    command = shlex.join([str(programs / "python"), "-P", str(eager)])
    snakemake.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    snakemake.chmod(0o755)
    shell.environment |= environment_of(programs)
    shell.environment.pop("PYTHONPATH", None)
    shell.output("bash", "-euc", printed("hpc-lpm init"))
    study = Shell(shell.environment, shell.folder / "my-study")
    campaign = study.folder / "config" / "campaign.yaml"
    # One short trial: what the others add is tried without a cluster (tests/workflow).
    kept = [line for line in campaign.read_text().splitlines() if not line.startswith("target:")]
    short = "\n".join(kept).replace("[sequential, gpipe, fbp]", "[fbp]").replace("1024", "64")
    campaign.write_text(short + "\n")
    said = study.run("bash", "-euc", printed("--profile slurm"), seconds=PATIENCE_SECONDS)
    assert said.returncode == 0, said.stdout + said.stderr
    root = study.folder / "results" / "campaign"
    assert "trials are missing" not in (root / "report.html").read_text()
    (launch,) = (json.loads(p.read_text()) for p in root.glob("runs/*-fbp-*/launch.json"))
    assert launch["nodes"] == ["n1", "n2"]
    assert str(programs / "python") in launch["command"]
    # The driver as a job finds the environment although the shell that submits it does not, and has
    # nothing left to do.
    paths = study.environment["PATH"].split(":")
    known = (str(programs), str(Path(sys.executable).parent))
    study.environment["PATH"] = ":".join(path for path in paths if path not in known)
    study.output("bash", "-euc", printed("sbatch"))
    wait_for(lambda: not study.output("squeue", "--noheader"), "the end of the driver")
    (log,) = study.folder.glob("slurm-*.out")
    assert "Nothing to be done" in log.read_text(), log.read_text()
