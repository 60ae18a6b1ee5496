"""What is submitted to Slurm, word for word: a stand-in for sbatch writes down what it is given."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.workflow import load_call
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

REPOSITORY = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
TEMPLATE = REPOSITORY / "hpc_lpm" / "study" / "template"
GOLDEN = Path(__file__).with_name("golden")
CAMPAIGN = """
name: tiny
models: [mlp]
datasets: [digits]
strategies: [sequential, fbp]
epochs: 2
resources: {nodes: 2}
"""
# It refuses every job, so that Snakemake ends as soon as it has submitted what it can.
SBATCH = f"""#!{sys.executable}
import json, sys
with open("submitted", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit("sbatch: error: this is a stand-in")
"""
OTHERS = {
    "sinfo": "echo 'PARTITION compute*'",
    "scontrol": "echo 'MaxArraySize = 1001'; echo 'MinJobAge = 300 sec'",
    "sacctmgr": "echo p1",
    "squeue": "true",
    "scancel": "true",
}
# Once a job was submitted the controller is away, until the executor has asked sacct for it, which
# knows nothing without a database.
AWAY = {
    "sbatch": "echo $$ >> submitted; echo $$",
    "scontrol": f"[ ! -e submitted ] || [ -e asked ] || exit 1; {OTHERS['scontrol']}",
    "sacct": "touch asked; exit 1",
    "squeue": "[ -e asked ] || exit 1; sed 's/$/|FAILED/' submitted",
}


OF_THE_CHECKOUT = (
    *("--snakefile", str(REPOSITORY / "Snakefile")),
    *("--profile", str(REPOSITORY / "slurm"), "--configfile", "tiny.yaml"),
)


def called(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the campaign of a folder, by default with the checkout's rules and profile."""
    path = f"{folder / 'programs'}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    return subprocess.run(
        [SNAKEMAKE, *(options or OF_THE_CHECKOUT), "--retries", "0"],
        cwd=folder,
        env=environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def snakemake(folder: Path, *options: str) -> list[list[str]]:
    """Run the campaign of a folder and return what was submitted."""
    done = called(folder, *options)
    assert "this is a stand-in" in done.stdout + done.stderr, done.stdout + done.stderr
    lines = (folder / "submitted").read_text().splitlines()
    (folder / "submitted").unlink()
    return [json.loads(line) for line in lines]


def described(command: list[str], folder: Path) -> str:
    """Write a command with an option a line, without what differs from run to run."""
    options = [option for option in command if not option.startswith("--wrap")]
    (wrapped,) = (option.removeprefix("--wrap=") for option in command if option not in options)
    # What Snakemake runs within the job is its own affair.
    lines = ["sbatch", *_by_option(options), f"--wrap {wrapped.partition(' -m snakemake ')[0]} ..."]
    text = "\n    ".join(lines)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "RUN-ID", text)
    text = re.sub(r"(?<=[a-z0-9])-[0-9a-f]{10}\b", "-HASH", text)
    for path, name in ((sys.executable, "PYTHON"), (folder, "FOLDER"), (REPOSITORY, "CHECKOUT")):
        text = text.replace(str(path), name)
    return text + "\n"


def _by_option(words: list[str]) -> list[str]:
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines


def scripts(commands: dict[str, str]) -> dict[str, str]:
    return {name: f"#!/bin/sh\n{text}\n" for name, text in commands.items()}


def install(folder: Path, programs: dict[str, str]) -> None:
    for name, text in programs.items():
        (folder / "programs" / name).write_text(text)
        (folder / "programs" / name).chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a campaign that has been begun, and stand-ins for Slurm's programs."""
    folder = tmp_path / "a folder"
    (folder / "programs").mkdir(parents=True)
    install(folder, {"sbatch": SBATCH} | scripts(OTHERS))
    (folder / "tiny.yaml").write_text(CAMPAIGN)
    provenance = folder / "results" / "tiny" / "provenance"
    provenance.mkdir(parents=True)
    for name in ("campaign.json", "environment.json"):
        (provenance / name).write_text("{}")
    return folder


def write_profile_and_plan(folder: Path, campaign: Path | None = None) -> None:
    steps = steps_of(campaign or folder / "tiny.yaml", folder / "results")
    write_profile(steps)
    (plan,) = steps.plans.values()
    stage = StagePlan(start=0, stop=1, compute_seconds=1.5, send_bytes=2**20, memory_bytes=2**30)
    Plan(
        planner="lpm",
        model="mlp",
        stages=(stage, stage.model_copy(update={"start": 1, "stop": 2})),
        period_seconds=1.5,
        boundary_bytes=2**20,
        profile_sha256="0" * 64,
    ).write(Path(plan.output))


def steps_of(campaign: Path, results: Path) -> Steps:
    return load_call({}, [], campaign, results).steps(results)


def write_profile(steps: Steps) -> None:
    layer = LayerProfile(
        name="layer",
        forward_seconds=0.5,
        backward_seconds=1.0,
        output_bytes=2**20,
        parameter_bytes=2**28,
        activation_bytes=2**20,
    )
    (profile,) = steps.profiles.values()
    Profile(
        model="mlp",
        micro_batch=16,
        device="cpu",
        dtype="float32",
        layers=(layer, layer),
        link=LinkProfile(latency_seconds=1e-4, bandwidth_bytes_per_second=1e8),
        train_samples=1600,
        test_samples=160,
    ).write(Path(profile.output))


SITE = """
account: p1
partition: gpu
qos: high
reservation: course
constraint: "avx512&ib"
gpus_per_task: 1
memory: false
options: ["--nice=100"]
"""


def test_what_the_site_needs_is_asked_for_beside_what_the_profile_and_the_campaign_need(
    folder: Path,
) -> None:
    (folder / "Snakefile").write_text((TEMPLATE / "Snakefile").read_text())
    (folder / "config").mkdir()
    (folder / "tiny.yaml").rename(folder / "config" / "campaign.yaml")
    (folder / "slurm").mkdir()
    for path in (TEMPLATE / "slurm").iterdir():
        (folder / "slurm" / path.name).write_text(path.read_text())
    profile = folder / "slurm" / "config.v8+.yaml"
    before = profile.read_text()
    profile.write_text(before.replace("@120'", "@120 --mail-type=FAIL'"))
    assert profile.read_text() != before
    (folder / "slurm" / "site.yaml").write_text(SITE)
    write_profile_and_plan(folder, folder / "config" / "campaign.yaml")
    for command in snakemake(folder, "--profile", "slurm"):
        text = " ".join(command)
        for words in (
            *("-A p1 -p gpu", "-C avx512&ib --qos=high", "--reservation=course"),
            *("--gpus-per-task=1", "--nice=100", "--signal=B:USR2@120 --mail-type=FAIL"),
            "--dependency=singleton",
        ):
            assert words in text
        assert "--mem" not in text


def test_a_wrong_site_is_refused_before_anything_is_submitted(folder: Path) -> None:
    (folder / "Snakefile").write_text((TEMPLATE / "Snakefile").read_text())
    (folder / "slurm").mkdir()
    (folder / "slurm" / "site.yaml").write_text("partitions: gpu")
    done = subprocess.run(
        [SNAKEMAKE, "--cores", "1", "--configfile", "tiny.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "slurm/site.yaml is wrong at partitions: " in done.stderr
    assert "Traceback" not in done.stderr


def test_profiling_is_submitted_before_anything_is_known(folder: Path) -> None:
    (command,) = snakemake(folder)
    assert described(command, folder) == (GOLDEN / "profile.txt").read_text()


def test_trials_ask_for_what_their_plan_and_profile_say(folder: Path) -> None:
    write_profile_and_plan(folder)
    commands = {}
    for command in snakemake(folder):
        (comment,) = (word for word in command if word.startswith("rule_"))
        commands["fbp" if "fbp" in comment else "sequential"] = described(command, folder)
    assert commands == {
        name: (GOLDEN / f"{name}.txt").read_text() for name in ("sequential", "fbp")
    }


def test_tunings_take_turns_with_each_other_and_with_trials(folder: Path) -> None:
    tuned = ", ".join(f"{{{name}: {{tune: true, micro_batches: 4}}}}" for name in ("fbp", "gpipe"))
    (folder / "tiny.yaml").write_text(CAMPAIGN.replace("sequential, fbp", tuned))
    write_profile(steps_of(folder / "tiny.yaml", folder / "results"))
    commands = snakemake(folder)
    assert len(commands) == 2
    for command in commands:
        assert any(word.startswith("rule_tune_ranks") for word in command)
        assert "--dependency=singleton" in " ".join(command)


@pytest.mark.parametrize("shared", [False, True])
def test_where_trials_run_at_once_those_that_share_ranks_still_wait(
    folder: Path, shared: bool
) -> None:
    (folder / "Snakefile").write_text((TEMPLATE / "Snakefile").read_text())
    (folder / "config").mkdir()
    campaign = folder / "config" / "campaign.yaml"
    campaign.write_text(f"{CAMPAIGN}share_launch: {str(shared).lower()}\n")
    shutil.copytree(TEMPLATE / "slurm", folder / "slurm")
    profile = folder / "slurm" / "config.v8+.yaml"
    before = profile.read_text()
    profile.write_text(before.replace("resources:\n  - turns=2\n", ""))
    assert profile.read_text() != before
    write_profile_and_plan(folder, campaign)
    commands = snakemake(folder, "--profile", "slurm")
    assert len(commands) == 2
    for command in commands:
        assert ("--dependency=singleton" in " ".join(command)) == shared


def test_a_driver_goes_on_once_a_controller_that_was_away_answers(folder: Path) -> None:
    write_profile_and_plan(folder)
    install(folder, scripts(AWAY))
    done = called(folder)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert (folder / "asked").exists()
    jobs = (folder / "submitted").read_text().split()
    assert len(jobs) == 2
    for job in jobs:
        assert f"SLURM-job '{job}' failed, SLURM status is: 'FAILED'" in said
