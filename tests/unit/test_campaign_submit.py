"""`hpc-lpm campaign submit`: the driver's own job gets what slurm/site.yaml names for all jobs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_lpm.campaign.submission import submit_driver
from hpc_lpm.errors import InputError

TEMPLATE = Path(__file__).parents[2] / "hpc_lpm" / "study" / "template"
SBATCH = f"""#!{sys.executable}
import json, os, sys
with open("submitted", "w") as file:
    json.dump([sys.argv[1:], os.environ.get("HPC_LPM_MODULES")], file)
if "--account=wrong" in sys.argv:
    sys.exit("sbatch: error: Invalid account")
print("Submitted batch job 7")
"""
SITE = """
account: p1
qos: high
reservation: course
constraint: "avx512&ib"
gpus_per_task: 4
modules: [gcc/13]
options: ["--nice=100", "--wckey 'two words'"]
"""
ASKED = [
    *("--account=p1", "--qos=high", "--reservation=course", "--constraint=avx512&ib"),
    *("--nice=100", "--wckey", "two words"),
]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose folder has a space in its name, and a stand-in for sbatch."""
    folder = tmp_path / "a study"
    shutil.copytree(TEMPLATE, folder)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH)
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    (folder / "slurm" / "site.yaml").write_text(SITE)
    return folder


def submitted(folder: Path) -> list[str]:
    words, modules = json.loads((folder / "submitted").read_text())
    assert modules == "gcc/13"
    return list(words)


def test_what_the_site_needs_but_gpus_precedes_the_script_and_its_arguments(study: Path) -> None:
    said = submit_driver(Path(), ["my campaign.yaml", "--forceall"])
    assert said == "Submitted batch job 7"
    assert submitted(study) == [*ASKED, "slurm/campaign.sbatch", "my campaign.yaml", "--forceall"]


def test_where_jobs_must_not_ask_for_memory_neither_does_the_driver(study: Path) -> None:
    (study / "slurm" / "site.yaml").write_text(f"{SITE}memory: false\n")
    submit_driver(Path(), ["my $(touch executed) campaign.yaml"])
    *words, wrapped = submitted(study)
    assert not [word for word in words if word.startswith("--mem")]
    # What the script asks for besides, also where its owner has changed it.
    assert words == [
        *("--job-name=hpc-lpm-campaign", "--ntasks=1", "--cpus-per-task=1", "--time=24:00:00"),
        *("--signal=B:TERM@120", *ASKED),
    ]
    assert wrapped.startswith("--wrap=exec bash slurm/campaign.sbatch ")
    # The script complains about the file, whose name the shell leaves as it is.
    done = subprocess.run(
        ["/bin/sh", "-c", wrapped.removeprefix("--wrap=")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "campaign file my $(touch executed) campaign.yaml does not exist" in done.stderr
    assert not (study / "executed").exists()


def test_of_a_request_for_memory_in_two_words_neither_is_left(study: Path) -> None:
    script = study / "slurm" / "campaign.sbatch"
    before = script.read_text()
    script.write_text(before.replace("--mem=2G", "--mem 2G"))
    assert script.read_text() != before
    (study / "slurm" / "site.yaml").write_text(f"{SITE}memory: false\n")
    submit_driver(Path(), [])
    words = submitted(study)
    assert "--time=24:00:00" in words
    assert not {"--mem", "2G"} & set(words)


def test_the_driver_loads_the_modules_before_it_looks_for_snakemake(study: Path) -> None:
    modules = study / "modules" / "init" / "sh"
    modules.parent.mkdir(parents=True)
    programs = study / "of the module"
    programs.mkdir()
    (programs / "snakemake").write_text('#!/bin/sh\necho "driven: $*"\n')
    (programs / "snakemake").chmod(0o755)
    # As those of clusters, it uses variables that are not set, and commands that fail.
    modules.write_text(f'module() {{ false; echo "$UNSET" >&2; PATH="{programs}:$PATH"; }}\n')
    environment = {
        "PATH": "/usr/bin:/bin",
        "HPC_LPM_MODULES": "gcc/13",
        "LMOD_PKG": "/none",
        "MODULESHOME": str(study / "modules"),
        "SLURM_SUBMIT_DIR": str(study),
        "SLURM_JOB_ID": "7",
    }
    done = subprocess.run(
        ["bash", "slurm/campaign.sbatch"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "driven: --profile slurm\n"), done.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda study: (study / "Snakefile").unlink(), "holds no Snakefile beside slurm/campaign"),
        (lambda study: (study / "slurm" / "site.yaml").write_text("acount: a"), "wrong at acount"),
        (
            lambda study: (study / "slurm" / "site.yaml").write_text("account: wrong"),
            r"^Slurm refuses the driver's job \(sbatch: error: Invalid account\): correct slurm/",
        ),
        (lambda study: os.environ.update(PATH="/nowhere"), "^sbatch is not installed here: "),
    ],
    ids=["no Snakefile", "wrong site", "refused", "no Slurm"],
)
def test_what_is_wrong_is_said_in_a_sentence(
    study: Path, monkeypatch: pytest.MonkeyPatch, change: object, sentence: str
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])  # which the test changes
    assert callable(change)
    change(study)
    with pytest.raises(InputError, match=sentence):
        submit_driver(Path(), [])


def test_the_command_takes_a_file_that_looks_like_an_option(study: Path) -> None:
    (study / "-x.yaml").touch()

    def submit(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "hpc_lpm", "campaign", "submit", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert submit("--", "-x.yaml", "--dry-run").stdout == "Submitted batch job 7\n"
    assert submitted(study)[-3:] == ["slurm/campaign.sbatch", "./-x.yaml", "--dry-run"]
    submit("--", "--forceall")
    assert submitted(study)[-2:] == ["slurm/campaign.sbatch", "--forceall"]
    done = submit("none.yaml")
    assert done.returncode == 2
    assert done.stderr == "hpc-lpm: campaign file none.yaml does not exist: name one that does.\n"
