"""Files of the user's that begin with a byte-order mark are read as those without."""

import ast
import json
from pathlib import Path

import pytest
from campaign_folders import campaign
from pipedream_files import RESIDUAL

import hpc_lpm
from hpc_lpm.campaign.config import read_campaign
from hpc_lpm.cluster.site import Site
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.settings import read_settings
from hpc_lpm.files import read_text
from hpc_lpm.planning.worth.measured import PACKAGED, Measurements
from hpc_lpm.profile_formats.read import read_profile

MARK = b"\xef\xbb\xbf"

PACKAGE = Path(hpc_lpm.__file__).parent

OWN_FILES = {
    *(
        "campaign/absent.py",
        "campaign/driver.py",
        "campaign/folder_lock.py",
        "campaign/restarts.py",
    ),
    *("campaign/submission.py", "cli/campaign.py", "cluster/machine.py", "control_groups.py"),
    *("doctor/cores.py", "doctor/shared_files.py", "engine/rank_meter.py", "files.py"),
    *("free_memory.py", "interfaces.py", "processor.py", "programs.py", "study/folder.py"),
}
"""Modules that read texts which the toolkit or the operating system has written."""


def marked(path: Path, text: str) -> Path:
    """Write a text behind a mark, with the ends of lines that spreadsheets write."""
    path.write_bytes(MARK + text.replace("\n", "\r\n").encode())
    return path


def test_the_mark_at_the_beginning_is_none_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(MARK + b"a" + MARK)
    assert read_text(tmp_path / "text") == "a\ufeff"
    (tmp_path / "text").write_bytes(MARK + b"a\xff")
    assert read_text(tmp_path / "text", errors="replace") == "a\ufffd"
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "text")


def test_marked_files_say_what_they_say_without(tmp_path: Path) -> None:
    measured = Measurements.read(marked(tmp_path / "measured.csv", PACKAGED.read_text()))
    assert measured.rows == Measurements.read(PACKAGED).rows
    settings = {"model": "mlp", "dataset": "digits"}
    assert read_settings(marked(tmp_path / "settings.json", json.dumps(settings))) == settings
    text = "name: a\nmodels: [mlp]\ndatasets: [digits]\nstrategies: [fbp]\nsteps: 1\n"
    assert read_campaign(marked(tmp_path / "campaign.yaml", text)).name == "a"
    document = campaign().model_dump_json()
    assert read_campaign(marked(tmp_path / "campaign.json", document)).name == "synthetic"
    (tmp_path / "plain.graph.txt").write_text(RESIDUAL)
    graph = read_profile(marked(tmp_path / "marked.graph.txt", RESIDUAL))
    assert graph.layers == read_profile(tmp_path / "plain.graph.txt").layers
    marked(tmp_path / "site.yaml", "")
    assert Site.read(tmp_path) == Site()


def test_a_table_of_data_may_be_marked(tmp_path: Path) -> None:
    lines = ["size;kind", *(f"{n};{n % 2}" for n in range(20))]
    path = marked(tmp_path / "table.csv", "\n".join(lines))
    dataset = load_dataset(f"table:{path},target=size")
    assert len(dataset.train) + len(dataset.test) == 20


def test_no_other_reader_of_texts_keeps_the_mark() -> None:
    """What a user has named is read by `hpc_lpm.files.read_text`."""
    reading = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "read_text"
    }
    assert reading <= OWN_FILES
