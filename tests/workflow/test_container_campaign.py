"""A site whose ranks run in a container, with a stand-in for apptainer that runs what it is given.

It takes apptainer's command line, refuses an image that it cannot read by apptainer's words, and
starts the rank; what it cannot show is that the MPI of an image understands the launcher outside.
"""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_lpm.doctor.site import check_site
from hpc_lpm.doctor.situation import Finding
from tests.unit.doctor_situations import situation

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
APPTAINER = """#!/bin/sh
echo "$*" >> "$STAND_IN_RECORD"
[ "$1" = exec ] || exit 64
shift
while :; do
    case "$1" in
    --bind) shift 2 ;;
    -*) shift ;;
    *) break ;;
    esac
done
if [ ! -r "$1" ]; then
    echo "FATAL:   could not open image $1: no such file or directory" >&2
    exit 255
fi
shift
exec $STAND_IN_START "$@"
"""
CAMPAIGN = """
name: tiny
models: [mlp]
datasets: [digits]
strategies: [sequential, fbp]
steps: 4
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with an image, and the stand-in on the search path."""
    folder = tmp_path / "a study"
    template = REPOSITORY / "hpc_lpm" / "study" / "template"
    (folder / "slurm").mkdir(parents=True)
    (folder / "Snakefile").write_text((template / "Snakefile").read_text())
    (folder / "tiny.yaml").write_text(CAMPAIGN)
    (folder / "an image.sif").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "apptainer").write_text(APPTAINER)
    (programs / "apptainer").chmod(0o755)
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("STAND_IN_RECORD", str(folder / "record"))
    monkeypatch.setenv("STAND_IN_START", "")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(folder)
    return folder


def name_container(study: Path, **changes: object) -> None:
    named = {"runtime": "apptainer", "image": "an image.sif", "binds": ["/tmp"]}
    document = {"container": {**named, "python": sys.executable, **changes}}
    (study / "slurm" / "site.yaml").write_text(json.dumps(document))


def test_profiles_and_trials_run_in_it_the_driver_outside_and_files_follow_the_umask(
    study: Path,
) -> None:
    name_container(study)
    done = subprocess.run(
        [SNAKEMAKE, "--cores", "2", "--configfile", "tiny.yaml"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        umask=0o027,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    root = study / "results" / "tiny"
    started = f"exec --bind /tmp an image.sif {sys.executable} -m "
    record = (study / "record").read_text().splitlines()
    assert all(line.startswith(started) for line in record)
    what = sorted(
        line.removeprefix(started).removeprefix("mpi4py -m ").split()[1] for line in record
    )
    # Two ranks measure, two train fbp, one trains alone.
    assert what == ["profile", "profile", "train", "train", "train"]
    for strategy, ranks in (("sequential", 1), ("fbp", 2)):
        (launch,) = (
            json.loads(p.read_text()) for p in root.glob(f"runs/*-{strategy}-*/launch.json")
        )
        command = launch["command"]
        inside = command.index("apptainer")
        assert command[inside : inside + 2] == ["apptainer", "exec"]
        assert ("-n" in command[:inside]) is (ranks > 1)
    modes = {str(p): stat.S_IMODE(p.stat().st_mode) for p in root.rglob("*")}
    usual = {str(p): 0o750 if p.is_dir() else 0o640 for p in root.rglob("*")}
    assert modes == usual


@pytest.fixture
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("site", "container"):
        monkeypatch.setattr(f"hpc_lpm.doctor.{module}.installed", lambda program: False)


def examined(study: Path) -> Finding:
    return check_site(situation(folder=study))


@pytest.mark.usefixtures("_no_slurm")
def test_the_doctor_starts_two_ranks_in_it(study: Path) -> None:
    name_container(study)
    finding = examined(study)
    assert finding.verdict == "ok", finding
    assert finding.found.endswith("; ranks start in the container an image.sif (tried)")
    assert (study / "record").read_text().count("-m mpi4py -c") == 2


@pytest.mark.usefixtures("_no_slurm")
@pytest.mark.parametrize(
    ("changes", "start", "found"),
    [
        ({"image": "none.sif"}, "", "none.sif cannot be started (FATAL: could not open image none"),
        ({"runtime": "singularity"}, "", "cannot be started ("),
        ({"python": "{other}"}, "", "an image.sif holds hpc-lpm 9.9 with Open MPI v"),
        ({"python": "{lacking}"}, "", "an image.sif lacks a package (No module named mpi4py)"),
        ({}, "lonely", "an image.sif do not find each other: its MPI"),
    ],
    ids=["image", "program", "version", "package", "alone"],
)
def test_the_doctor_says_in_a_sentence_why_ranks_do_not_start_in_it(
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    start: str,
    found: str,
) -> None:
    package = study / "hpc_lpm of another version" / "hpc_lpm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '9.9'\n")
    for name, program in (
        ("other", f'PYTHONPATH="{package.parent}" exec {sys.executable} "$@"'),
        ("lacking", f'exec {sys.executable} -S "$@"'),
    ):
        (study / f"{name}-python").write_text(f"#!/bin/sh\n{program}\n")
        (study / f"{name}-python").chmod(0o755)
    places = {name: str(study / f"{name}-python") for name in ("other", "lacking")}
    # What each rank says where the MPI of an image does not understand the launcher.
    lonely = study.parent / "programs" / "lonely"
    lonely.write_text('#!/bin/sh\necho \'in the container [["0.1.0"], "Open MPI v4"]\'\n')
    lonely.chmod(0o755)
    monkeypatch.setenv("STAND_IN_START", start)
    name_container(study, **{key: value.format(**places) for key, value in changes.items()})
    finding = examined(study)
    assert finding.verdict == "failed"
    assert found in finding.found, finding
    assert "slurm/site.yaml" in finding.remedy or "in the image as here" in finding.remedy
