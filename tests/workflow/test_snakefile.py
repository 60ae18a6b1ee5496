"""The Snakefile without training: what it would run, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
CAMPAIGN = """
name: tiny
models: [mlp]
datasets: [digits]
strategies: [sequential, fbp]
epochs: 1
repeats: 2
"""


def snakemake(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SNAKEMAKE, "--snakefile", str(REPOSITORY / "Snakefile"), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def write_campaign(folder: Path, addition: str = "") -> Path:
    folder.mkdir()
    path = folder / "tiny campaign.yaml"
    path.write_text(CAMPAIGN + addition)
    return path


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_campaign(tmp_path_factory.mktemp("workflow") / "a folder")
    done = snakemake(path.parent, "-n", "-p", "--cores", "2", "--configfile", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_dry_run_from_any_folder_lists_every_step(dry_run: str) -> None:
    counts = dict(
        line.split()
        for line in dry_run.splitlines()
        if len(line.split()) == 2 and line[-1:].isdigit()
    )
    expected = {
        "environment": "1",
        "profile": "1",
        "plan": "1",
        "train_alone": "2",
        "train_ranks": "2",
        "summary": "1",
        "report": "1",
        "expectations": "1",
    }
    assert {rule: counts.get(rule) for rule in expected} == expected


def test_steps_of_several_ranks_ask_a_cluster_for_them(dry_run: str) -> None:
    blocks = dry_run.split("\n\n") if "\n\nrule" in dry_run else dry_run.split("rule ")
    for rule, has_ranks in (("profile:", True), ("train_ranks:", True), ("train_alone:", False)):
        (first, *_) = [
            block for block in blocks if block.strip().startswith((rule, f"rule {rule}"))
        ]
        assert ("mpi=mpirun" in first) is has_ranks
        assert ("tasks=2" in first) is has_ranks
        assert "cpus_per_task=1" in first


def test_commands_are_quoted_and_hold_no_path_of_this_machine(dry_run: str) -> None:
    commands = [line.strip() for line in dry_run.splitlines() if "-m hpc_lpm" in line]
    assert len(commands) >= 9
    assert not [line for line in commands if str(REPOSITORY) in line]


def test_a_faulty_campaign_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "faulty", "bacth_size: 32\n")
    done = snakemake(path.parent, "-n", "--cores", "2", "--configfile", str(path))
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "unknown key 'bacth_size', did you mean 'batch_size'?" in said
    assert "Traceback" not in said


def test_a_resolved_campaign_runs_again_under_another_name(tmp_path: Path) -> None:
    from hpc_lpm.campaign.config import read_campaign

    path = write_campaign(tmp_path / "again")
    resolved = path.with_name("again.json")
    resolved.write_text(read_campaign(path).model_dump_json())
    options = ["-n", "--cores", "2", "--configfile", str(resolved), "--config", "name=tiny-again"]
    done = snakemake(path.parent, *options)
    assert done.returncode == 0, done.stderr
    assert "results/tiny-again/report.html" in done.stdout + done.stderr


def test_values_of_files_and_of_config_mean_what_was_typed(tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "typed", "resources: {runtime_minutes: 1:30:00}\n")
    options = ["-n", "--cores", "2", "--configfile", str(path), "--config"]
    done = snakemake(path.parent, *options, "name=2024-01-15", "batch_size=020")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "results/2024-01-15/report.html" in said
    assert "runtime=90" in said
    done = snakemake(path.parent, *options, "name=007")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "--config name=... is read by Snakemake as 7" in said
    assert "Traceback" not in said


def test_the_slurm_profile_is_accepted(tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "cluster")
    profile = str(REPOSITORY / "slurm")
    done = snakemake(path.parent, "-n", "--profile", profile, "--configfile", str(path))
    assert done.returncode == 0, done.stderr
    assert "train_ranks" in done.stdout + done.stderr


def test_lint_finds_nothing(tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "lint")
    done = snakemake(path.parent, "--lint", "--configfile", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
