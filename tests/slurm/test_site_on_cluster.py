"""A real cluster with a site of its own, and a study whose names have every sign that is accepted.

The driver is a job (`hpc-lpm campaign submit`), jobs must not ask for memory, ranks run in a
container (a stand-in for apptainer that starts what it is given), and an option of sbatch holds
what a shell would run.
"""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from tests.slurm.campaigns import SNAKEMAKE, wait_for
from tests.slurm.testbed import REPOSITORY, Shell
from tests.workflow.test_container_campaign import APPTAINER
from tests.workflow.test_names_for_shells import EXECUTED, ODD, study

pytestmark = [pytest.mark.slurm, pytest.mark.workflow, pytest.mark.timeout(1200)]

LOOK = """
from pathlib import Path
from hpc_lpm.doctor.site import check_site
from hpc_lpm.doctor.situation import Situation
finding = check_site(Situation(2, 2, (), Path()))
print(finding.verdict, finding.found)
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_odd_names_and_the_sites_particulars_reach_every_job_and_no_shell(shell: Shell) -> None:
    folder = study(shell.folder / ODD)
    inside = Shell(shell.environment, folder)
    programs = shell.folder / "programs"
    write_program(programs / "apptainer", APPTAINER)
    write_program(programs / "snakemake", f'#!/bin/sh\nexec {shlex.join(SNAKEMAKE)} "$@"\n')
    image = folder / f"image {ODD}.sif"
    image.touch()
    inside.environment |= {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{shell.environment['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "STAND_IN_RECORD": str(shell.folder / "record"),
        "STAND_IN_START": "",
    }
    site = {
        "memory": False,
        "options": ["--nice=1", f"--mail-user='$(touch {EXECUTED})'"],
        "container": {"runtime": "apptainer", "image": f"./{image.name}", "python": sys.executable},
    }
    (folder / "slurm" / "site.yaml").write_text(yaml.safe_dump(site, allow_unicode=True))
    said = inside.output(sys.executable, "-c", LOOK)
    assert said.startswith(
        "ok Slurm takes a job with what slurm/site.yaml says (options); ranks st"
    )
    record = shell.folder / "record"
    assert record.read_text().count(" -m mpi4py -c ") == 2
    campaign = {
        "name": "odd",
        "models": ["my_model:network,width=8"],
        "datasets": ["my_data:stripes"],
        "strategies": [{"fbp": {"name": f"{ODD} $(touch {EXECUTED})"}}],
        "batch_size": 64,
        "steps": 2,
    }
    (folder / f"{ODD}.yaml").write_text(yaml.safe_dump(campaign, allow_unicode=True))
    submit = [sys.executable, "-m", "hpc_lpm", "campaign", "submit", "--", f"{ODD}.yaml"]
    said = inside.output(*submit)
    job = re.fullmatch(r"Submitted batch job (\d+)\n", said)
    assert job is not None, said
    asked = inside.output("scontrol", "show", "job", job[1], "--oneliner")
    assert " Nice=1 " in asked
    wait_for(lambda: not inside.output("squeue", "--noheader"), "the end of the driver")
    (log,) = folder.glob("slurm-*.out")
    root = folder / "results" / "odd"
    assert (root / "report.html").exists(), log.read_text()
    (launch,) = (json.loads(path.read_text()) for path in root.glob("runs/*/launch.json"))
    assert launch["nodes"] == ["n1", "n2"]
    assert "apptainer" in launch["command"]
    lines = record.read_text().splitlines()
    what = [line.split(" -m hpc_lpm ")[1].split()[0] for line in lines if " -m hpc_lpm " in line]
    assert (what.count("profile"), what.count("train")) == (2, 2)
    assert not list(shell.folder.rglob(EXECUTED))
    assert "No job memory information" in log.read_text()
