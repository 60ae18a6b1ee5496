import hashlib
import subprocess
from pathlib import Path

import pytest
from campaign_folders import campaign

from hpc_lpm.campaign import environment
from hpc_lpm.campaign.environment import (
    campaign_sha256,
    compare_with_lock,
    describe_environment,
    describe_source,
    read_environment,
)


def git(repository: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(repository), *identity, *arguments], check=True)


def test_every_change_of_the_source_changes_its_hash(tmp_path: Path) -> None:
    assert describe_source(tmp_path)["revision"] is None
    git(tmp_path, "init", "-q")
    tracked = tmp_path / "tracked.txt"
    tracked.write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "--no-verify", "-m", "first")
    clean = describe_source(tmp_path)
    assert len(clean["revision"]) == 40
    assert (clean["dirty"], clean["diff_sha256"]) == (False, None)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "summary.csv").write_text("written by the campaign itself\n")
    assert describe_source(tmp_path) == clean
    hashes = []
    for name, text in (("tracked.txt", "two\n"), ("new.txt", "a\n"), ("new.txt", "b\n")):
        (tmp_path / name).write_text(text)
        state = describe_source(tmp_path)
        assert state["dirty"] is True
        assert state["revision"] == clean["revision"]
        hashes.append(state["diff_sha256"])
    assert len(set(hashes)) == 3


def test_of_large_files_that_git_does_not_know_the_size_is_looked_at(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--no-verify", "--allow-empty", "-m", "first")
    hashes = []
    for size in (2**34, 2**34, 2**35):  # holes, of which nothing is read
        with (tmp_path / "data").open("wb") as data:
            data.truncate(size)
        hashes.append(describe_source(tmp_path)["diff_sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("silent", ["diff", "ls-files"])
def test_changes_that_git_does_not_tell_of_are_not_recorded_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--no-verify", "--allow-empty", "-m", "first")
    run = environment._run
    monkeypatch.setattr(
        environment, "_run", lambda command: None if silent in command else run(command)
    )
    state = describe_source(tmp_path)
    assert len(state["revision"]) == 40
    assert (state["dirty"], state["diff_sha256"]) == (None, None)


def test_a_campaign_in_a_folder_of_ones_own_records_the_revision_of_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert describe_environment(campaign())["study"]["revision"] is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--no-verify", "--allow-empty", "-m", "first")
    described = describe_environment(campaign())
    assert len(described["study"]["revision"]) == 40
    assert described["study"]["revision"] != described["git"]["revision"]
    monkeypatch.chdir(Path(__file__).parent)
    assert describe_environment(campaign())["study"] is None


def test_the_campaign_hash_follows_the_meaning_of_the_file() -> None:
    assert campaign_sha256(campaign()) == campaign_sha256(campaign(seeds=[0]))
    assert campaign_sha256(campaign()) != campaign_sha256(campaign(seeds=[1]))


def test_the_environment_names_what_a_run_depends_on() -> None:
    described = describe_environment(campaign(seeds=[3, 4]))
    assert described["seeds"] == [3, 4]
    assert described["packages"]["torch"]
    assert described["memory_bytes"] > 2**28
    assert described["cores"] >= 1
    assert "--bind-to" in described["mpi"]["options"]
    assert described["kernel"].startswith("Linux")
    assert len(described["locked_packages"]["sha256"]) == 64
    assert described["slurm"]["plugins"]["snakemake-executor-plugin-slurm"]


def test_a_missing_or_broken_environment_is_none(tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    assert read_environment(path) is None
    path.write_text("{")
    assert read_environment(path) is None


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("torch==2.13.0\nPyYAML==6.0.3\ntyping_extensions==4.16.0\nnot-here==1\n")
    installed = {
        "torch": "2.13.0+cpu",
        "PyYAML": "6.0.2",
        "typing-extensions": "4.16.0",
        "pip": "26.0",
    }
    assert compare_with_lock(path, installed) == {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "differing": {"PyYAML": {"locked": "==6.0.3", "installed": "6.0.2"}},
        "not_locked": ["pip"],
    }


def test_without_a_lock_nothing_is_said(tmp_path: Path) -> None:
    assert compare_with_lock(tmp_path / "constraints.txt", {}) is None
