"""The documents say nothing that the repository does not bear out."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.validation import check_names
from tests.unit.documents import (
    DOCUMENTS,
    ROOT,
    anchors,
    code_blocks,
    commands,
    inline_code,
    links,
    name_of,
)

sys.path.append(str(ROOT / "docs" / "_extensions"))

from command_pages import application

EVERY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
FOLDERS = ("benchmarks", "config", "docs", "hpc_lpm", "slurm", "tests")
WIDTH = 100


@EVERY_DOCUMENT
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: there is no {target}"
        assert ROOT in target.parents, f"{link} leads out of the repository"
        if anchor:
            assert anchor in anchors(target), f"{link}: {sorted(anchors(target))}"


@EVERY_DOCUMENT
def test_paths_set_as_code_exist(document: Path) -> None:
    for code in inline_code(document):
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]+", code) and "_build" not in code:
            roots = (ROOT, ROOT / "hpc_lpm" / "study" / "template")  # that of a reader's study
            assert any((root / code).exists() for root in roots), f"{code} does not exist"


@EVERY_DOCUMENT
def test_lines_wrap_at_100_columns(document: Path) -> None:
    in_code = False
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            in_code = not in_code
        cannot_wrap = in_code or line.startswith(("|", "    ", "![", "<!--"))
        assert cannot_wrap or len(line) <= WIDTH, f"line {number} has {len(line)} columns"


@EVERY_DOCUMENT
def test_commands_and_their_options_exist(document: Path) -> None:
    known = application().commands
    for name, *words in commands(document):
        if name == "COMMAND":
            continue
        assert name in known, f"there is no command {name}"
        command = known[name]
        if subcommands := getattr(command, "commands", None):
            command = subcommands[words[0]]
        accepted = {
            option
            for parameter in command.params
            for option in [*parameter.opts, *parameter.secondary_opts]
        } | {"--help", "--debug"}
        for word in words:
            option = word.strip("[]").partition("=")[0]
            assert not option.startswith("--") or option in accepted, f"{name} {option}"


@EVERY_DOCUMENT
def test_campaign_files_that_are_shown_are_valid(document: Path) -> None:
    for block in code_blocks(document):
        if block.language == "yaml":
            shown = yaml.safe_load(block.text)
            if "models" in shown:
                campaign = campaign_from_document(shown, name_of(document))
                # A module of the reader's own is not there to be looked into.
                if not re.search(r"\bmy_\w+:", block.text):
                    check_names(campaign, name_of(document))


@EVERY_DOCUMENT
def test_python_that_is_shown_compiles(document: Path) -> None:
    for block in code_blocks(document):
        if block.language == "python":
            compile(block.text, name_of(document), "exec")


def test_the_readme_fits_on_two_screens() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 100
    assert sum(line.startswith("![") for line in lines) == 1
    assert sum(line.startswith("|") for line in lines) <= 2 + 6


def test_figures_write_the_numbers_of_their_axes_out() -> None:
    # Without mathematics in texts, which names with dollar signs need, matplotlib's own numbers of
    # logarithmic axes would stand there as they are written for it.
    figures = list((ROOT / "results").rglob("reference/**/*.svg"))
    assert figures
    assert not [path for path in figures if "mathdefault" in path.read_text(encoding="utf-8")]
