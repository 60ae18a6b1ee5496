"""Which files a user's module is made of, and when they count as changed."""

import os
import time
from pathlib import Path

import pytest

from hpc_lpm.campaign import fingerprints
from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.identities import _paths_in
from hpc_lpm.sources import module_named_in, source_files

MODULES = {
    "net.py": "import json, torch, missing\nimport parts.layers\nfrom helper import *\n",
    "helper.py": "def late():\n    from parts import late_part\n",
    "parts/__init__.py": "",
    "parts/layers.py": "from . import norm\nfrom .deep.block import Block as B\n",
    "parts/norm.py": "from hpc_lpm.models.layered import LayeredModel\n",
    "parts/late_part.py": "def broken(:\n",
    "parts/deep/block.py": "from .. import norm\nfrom ..top import x\n",
    "parts/top.py": "x = 1\n",
    "unused.py": "",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_module_is_made_of_all_local_modules_that_it_imports(here: Path) -> None:
    found = source_files("net")
    expected = set(MODULES) - {"unused.py"}
    assert {str(path.relative_to(here)) for path in found.values()} == expected
    assert found["parts.deep.block"] == here / "parts/deep/block.py"


def test_nothing_is_imported_to_find_out(here: Path) -> None:
    (here / "net.py").write_text("import helper\nraise SystemExit\n")
    assert set(source_files("net")) >= {"net", "helper"}


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("my.models:net,width=8", "my.models"),
        ("my_models:net", "my_models"),
        ("sgd", None),
        ("C:/folder", None),
        ("no-module:net", None),
        ("a:b:c", None),
    ],
)
def test_modules_are_told_from_other_texts(text: str, module: str | None) -> None:
    assert module_named_in(text) == module


def test_installed_packages_are_no_sources_of_the_users() -> None:
    assert source_files("torch") == {}
    assert source_files("json") == {}
    assert source_files("hpc_lpm.models") == {}


def test_a_folder_keeps_its_fingerprint_when_it_moves_and_loses_it_when_it_changes(
    here: Path,
) -> None:
    folder = here / "parts"
    before = Fingerprints().of([folder])
    moved = folder.rename(here / "elsewhere")
    assert Fingerprints().of([moved]) == before
    (moved / ".hidden").touch()
    assert Fingerprints().of([moved]) == before
    (moved / "norm.py").rename(moved / "norms.py")
    assert Fingerprints().of([moved]) != before


def test_files_behind_links_to_folders_count_and_links_that_lead_back_end(here: Path) -> None:
    data, elsewhere = here / "data", here / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    file = elsewhere / "a.csv"
    file.write_text("1")
    for name in ("again", "train"):
        (data / name).symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data)
    (elsewhere / "itself").symlink_to(elsewhere)
    found = [path.relative_to(data) for path in fingerprints._files(data)]
    assert found == [Path("again", "a.csv"), Path("train", "a.csv")]
    before = Fingerprints().of([data]), Fingerprints().of_listing([data])
    file.write_text("1, 2")
    assert Fingerprints().of([data]) != before[0]
    assert Fingerprints().of_listing([data]) != before[1]


def test_a_setting_that_begins_with_the_home_of_nobody_names_no_file() -> None:
    assert _paths_in("text:~nobody-of-this-name/book.txt") == []


def test_large_data_are_read_once_and_again_when_they_change(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, data = here / "memory.json", here / "data.bin"

    def write(content: bytes) -> None:
        data.write_bytes(content * 2**20)
        long_ago = time.time() - 100 + content[0]
        os.utime(data, (long_ago, long_ago))

    def fingerprint() -> str:
        hashing = Fingerprints(memory)
        found = hashing.of([data])
        hashing.save()
        return found

    write(b"ab")
    first = fingerprint()
    read: list[object] = []
    hash_all = fingerprints._hash_all
    monkeypatch.setattr(
        fingerprints, "_hash_all", lambda files: (read.append(files), hash_all(files))[1]
    )
    assert fingerprint() == first
    assert not read
    write(b"ba")
    assert fingerprint() != first
    write(b"ab")
    assert fingerprint() == first
    assert len(read) == 2
    memory.write_text("damaged")
    assert fingerprint() == first


def test_data_that_have_just_been_written_are_not_trusted_by_their_time(here: Path) -> None:
    memory, data = here / "memory.json", here / "data.bin"
    hashing = Fingerprints(memory)
    data.write_bytes(b"a" * 2**21)
    before = data.stat()
    first = hashing.of([data])
    data.write_bytes(b"b" * 2**21)
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hashing.of([data]) != first
