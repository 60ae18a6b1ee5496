"""`hpc-lpm init`: what it writes, what it keeps, and what it says of an older folder."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpc_lpm.campaign.validation import read_checked_campaign
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded

register(["init"])

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "hpc_lpm" / "study" / "template"
FILES = {
    *(".gitignore", ".hpc-lpm.json", "README.md", "Snakefile", "config/campaign.yaml"),
    *("my_data.py", "my_model.py", "profiles/default/config.yaml"),
    *("slurm/campaign.sbatch", "slurm/config.v8+.yaml", "slurm/job.sh", "slurm/site.yaml"),
}


def init(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    found = run_guarded(app, ["init", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    assert found == code, captured.out + captured.err
    if code == 2:
        assert captured.out == ""
        assert captured.err.count("\n") == 1
    return captured.out + captured.err


def files_of(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


@pytest.fixture
def study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "my study"
    init(capsys, folder)
    return folder


@pytest.mark.parametrize("name", ["my-study", "a/b/c", "été 1, [x]", "-", "x" * 200])
def test_a_new_folder_of_any_name_holds_a_valid_campaign_and_its_version(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    said = init(capsys, "--", name)
    assert set(files_of(tmp_path / name)) == FILES
    assert "snakemake --cores 2" in said
    monkeypatch.chdir(tmp_path / name)
    assert read_checked_campaign(Path("config/campaign.yaml")).name == "campaign"
    record = json.loads(Path(".hpc-lpm.json").read_text())
    assert {made["version"] for made in record["files"].values()} == {"0.1.0"}


def test_a_folder_that_holds_a_repository_alone_counts_as_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".git").mkdir()
    init(capsys, tmp_path)
    assert set(files_of(tmp_path)) == FILES


def test_a_folder_with_files_is_refused_and_here_adds_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"README.md": "mine\n", "Snakefile": "# mine\n", "thesis.tex": "mine\n"}
    for name, text in own.items():
        (tmp_path / name).write_text(text)
    assert "is not empty (it holds README.md)" in init(capsys, tmp_path, code=2)
    assert files_of(tmp_path) == own
    monkeypatch.chdir(tmp_path)
    said = init(capsys, "--here")
    assert "Kept as they were: README.md, Snakefile." in said
    found = files_of(tmp_path)
    assert set(found) == {*FILES, "thesis.tex"}
    assert {name: found[name] for name in own} == own
    assert "Nothing is missing" in init(capsys, "--here")
    assert files_of(tmp_path) == found


@pytest.mark.parametrize(
    ("in_the_way", "is_folder"), [("slurm", False), ("config", False), ("my_model.py", True)]
)
def test_what_is_in_the_way_is_named_before_anything_is_written(
    in_the_way: str,
    is_folder: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / in_the_way
    path.mkdir() if is_folder else path.touch()
    assert f"{in_the_way} is a f" in init(capsys, "--here", code=2)
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_hold_a_study_are_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert "is a file" in init(capsys, tmp_path / "file", code=2)
    assert "cannot be used" in init(capsys, tmp_path / "file" / "study", code=2)
    assert "cannot be used" in init(capsys, "/proc/study", code=2)  # nobody may write there
    assert "was given no folder" in init(capsys, code=2)
    assert "leave one out" in init(capsys, "--here", tmp_path / "x", code=2)
    assert "leave one out" in init(capsys, "--here", "--diff", code=2)
    assert "holds no study" in init(capsys, "--diff", tmp_path, code=2)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_the_owners_edits_are_no_difference_of_the_toolkit(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "would write nothing differently" in init(capsys, "--diff", study)
    for name in ("my_model.py", "slurm/config.v8+.yaml"):
        (study / name).write_text("mine\n")
    said = init(capsys, "--diff", study)
    assert "would write nothing differently" in said
    assert said.endswith("Edited since they were made: my_model.py, slurm/config.v8+.yaml.\n")
    # Nothing is known of what was written where there is no record.
    (study / ".hpc-lpm.json").unlink()
    said = init(capsys, "--diff", study, code=1)
    assert "+++ b/my_model.py" in said
    assert "+++ b/slurm/config.v8+.yaml" in said


def test_a_newer_release_says_what_it_would_change_and_git_takes_it(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_older(study)
    before = files_of(study)
    monkeypatch.chdir(study)
    patch = init(capsys, "--diff", code=1)
    assert patch.startswith("Made by hpc-lpm 0.1.0, 0.0.9; hpc-lpm 0.1.0 would write 4 files")
    assert "Edited since they were made: my_data.py." in patch
    assert files_of(study) == before
    document = json.loads(init(capsys, "--diff", "--json", code=1))
    assert set(document["differences"]) == {
        *("Snakefile", "my_data.py", "slurm/job.sh", "slurm/old.sh")
    }
    (study / "patch").write_text(patch)
    subprocess.run(["git", "apply", "-p1", "patch"], check=True, cwd=study)
    init(capsys, "--diff")
    assert not (study / "slurm" / "old.sh").exists()


def make_older(study: Path) -> None:
    """Make a study one that an earlier release has made: four files are otherwise."""
    record: dict[str, Any] = json.loads((study / ".hpc-lpm.json").read_text())
    (study / "Snakefile").write_text("include: 'rules.smk'\n# without an end of line")
    (study / "my_data.py").write_text("# an older starting point\n")
    (study / "slurm" / "job.sh").unlink()
    (study / "slurm" / "old.sh").write_text("# no longer made\n")
    for name in ("Snakefile", "my_data.py", "slurm/old.sh"):
        made = (study / name).read_bytes()
        record["files"][name] = {"version": "0.0.9", "sha256": hashlib.sha256(made).hexdigest()}
    (study / "my_data.py").write_text("# edited since\n")
    (study / ".hpc-lpm.json").write_text(json.dumps(record))


def test_a_damaged_record_is_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / ".hpc-lpm.json").write_text("{")
    assert ".hpc-lpm.json is not JSON" in init(capsys, "--diff", study, code=2)


@pytest.mark.parametrize(
    "name",
    [
        *("slurm/job.sh", "slurm/config.v8+.yaml", "slurm/campaign.sbatch"),
        "profiles/default/config.yaml",
    ],
)
def test_the_checkouts_files_are_the_very_same(name: str) -> None:
    up = "../" * name.count("/")
    mend = f"ln -sf {up}hpc_lpm/study/template/{name} {name}"
    assert (ROOT / name).read_text() == (TEMPLATE / name).read_text(), f"to mend it: {mend}"
