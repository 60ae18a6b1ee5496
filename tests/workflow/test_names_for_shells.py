"""Names that reach a shell or a path: each is accepted and works, or refused by a sentence."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.trials import file_name
from hpc_lpm.campaign.workflow import check_names_for_shells
from hpc_lpm.cluster.site import Site
from hpc_lpm.errors import InputError

pytestmark = pytest.mark.workflow

REPOSITORY = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
TEMPLATE = REPOSITORY / "hpc_lpm" / "study" / "template"
EXECUTED = "executed"
"""The file that a name makes if a shell reads it."""
READ_BY_SHELLS = [
    f"$(touch {EXECUTED})",
    f"`touch {EXECUTED}`",
    "a\\b",
    "a\nb",
    "'\"",
    "a\tb",
    "100%s",
]
ODD = f"-it's; touch {EXECUTED} & (é) #*?[x],y:z=1 {{run}} ~ <a> | !"
"""Every sign that means something to a shell, to Snakemake or to a pattern, but those above."""

signs = st.sampled_from("ab1 .,-_/\\'\"$`;&|<>(){}[]*?!#~%=:@^é\n\t\0")
names = st.one_of(st.text(signs, max_size=30), st.text(max_size=20))


@settings(deadline=None, derandomize=True)
@given(name=names)
def test_the_name_of_a_campaign_is_a_folder_in_results_or_is_refused(name: str) -> None:
    document = {"models": ["mlp"], "datasets": ["digits"], "strategies": ["fbp"], "epochs": 1}
    try:
        campaign = Campaign.model_validate({**document, "name": name})
    except ValidationError:
        return
    root = CampaignFolder(Path("results") / campaign.name).root
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", campaign.name)
    assert root.parent == Path("results")


@settings(deadline=None, derandomize=True)
@given(parts=st.lists(names, min_size=2, max_size=4), other=names)
def test_what_is_made_of_names_is_one_file_of_plain_signs_and_differs_if_they_do(
    parts: list[str], other: str
) -> None:
    name = file_name(*parts)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    assert Path("folder", name).parent == Path("folder")
    assert len(name) < 200
    if other != parts[-1]:
        assert file_name(*parts[:-1], other) != name


@settings(deadline=None, derandomize=True)
@given(key=st.sampled_from(["account", "partition", "qos", "reservation", "interface"]), name=names)
def test_what_a_site_names_is_a_word_without_signs_of_shells_or_is_refused(
    key: str, name: str
) -> None:
    try:
        site = Site.model_validate({key: name, "modules": [name]})
    except ValidationError:
        return
    environment: dict[str, str] = {}
    site.prepare(environment)
    # job.sh takes the words of this variable apart.
    assert environment["HPC_LPM_MODULES"].split() == [name]
    asked = site.resources()
    if "slurm_extra" in asked:
        assert shlex.split(asked.pop("slurm_extra")) == [f"--reservation={name}"]
    for value in asked.values():
        assert not set("$`;&|<>\\'\"\n") & set(value)


@pytest.mark.parametrize("name", READ_BY_SHELLS)
def test_what_shells_would_read_is_refused_by_a_sentence(name: str) -> None:
    with pytest.raises(InputError, match=r"^folder .* which shells and Slurm do not take"):
        check_names_for_shells(("folder", name))
    check_names_for_shells(("folder", ODD), ("file", "it's"), ("file", 'say "x"'))


def study(folder: Path) -> Path:
    """Make a study by hand, as it is where its owner has renamed the folder since."""
    for path in TEMPLATE.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(TEMPLATE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return folder


def call(*command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def executed(folder: Path) -> list[Path]:
    return list(folder.rglob(EXECUTED))


def test_a_study_whose_names_have_every_other_sign_runs_to_its_report(tmp_path: Path) -> None:
    folder = study(tmp_path / ODD)
    (folder / "my_model.py").rename(folder / "größe.py")
    corpus = folder / f"corpus {ODD}.txt"
    corpus.write_text("a text of some length, which is read byte by byte " * 400)
    campaign = {
        "name": "odd",
        "models": ["größe:network,width=8"],
        "datasets": ["my_data:stripes"],
        "strategies": [
            {"sequential": {"name": f"{ODD} $(touch {EXECUTED}) `touch {EXECUTED}`"}},
            {"sequential": {"name": "../../../outside", "micro_batches": 2}},
        ],
        "batch_size": 64,
        "steps": 2,
    }
    file = folder / f"{ODD}.yaml"
    file.write_text(yaml.safe_dump(campaign, allow_unicode=True))
    done = call(SNAKEMAKE, "--cores", "2", "--configfile", f"./{file.name}", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    root = folder / "results" / "odd"
    assert len(list(root.glob("runs/*/result.json"))) == 2
    assert (root / "report.html").exists()
    assert not executed(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {folder.name}
    # A path of data is an argument of what the rules run.
    text = dict(
        campaign, name="text", models=["gpt,width=16,layers=1"], datasets=[f"text:{corpus}"]
    )
    text["strategies"], text["batch_size"], text["micro_batches"] = ["fbp"], 8, 2
    file.write_text(yaml.safe_dump(text, allow_unicode=True))
    done = call(
        SNAKEMAKE, "--cores", "2", "-n", "-p", "--configfile", f"./{file.name}", folder=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not executed(tmp_path)


def test_what_a_shell_would_read_is_refused_before_anything_runs(tmp_path: Path) -> None:
    folder = study(tmp_path / f"a $(touch {EXECUTED})")
    sentence = "which shells and Slurm do not take as it is: accepted are all signs"
    good = study(tmp_path / "good")
    bad_file = good / f"`touch {EXECUTED}`.yaml"
    bad_file.write_text((good / "config" / "campaign.yaml").read_text())
    profile = str(good / "slurm")
    for where, options in (
        (folder, ("--cores", "1")),
        (good, ("--profile", profile, "--configfile", bad_file.name)),
        (good, ("--profile", profile, "--config", f'models=["$(touch {EXECUTED})"]')),
    ):
        done = call(SNAKEMAKE, *options, folder=where)
        assert done.returncode == 1
        assert sentence in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    done = call(sys.executable, "-m", "hpc_lpm", "init", str(folder / "new"), folder=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not executed(tmp_path)
    assert not (folder / "new").exists()
    assert not list(tmp_path.rglob("results"))
