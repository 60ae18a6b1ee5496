"""Every source tells the files that it is loaded from, without reading what is in them."""

from pathlib import Path

import pytest

from hpc_lpm.data.registry import DATASETS, dataset_files


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_packaged_sets_name_the_file_that_the_package_ships(name: str) -> None:
    files = dataset_files(f"{name},size=32")
    assert files is not None
    assert [path.suffix for path in files] == [".gz"]
    assert files[0].is_file()


def test_made_up_samples_are_read_from_no_file() -> None:
    assert dataset_files("synthetic,samples=9") == []


def test_files_of_a_text_are_listed_in_the_order_in_which_they_are_read(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
    assert dataset_files(f"text:{tmp_path},sequence=3") == [tmp_path / "a", tmp_path / "b"]


def test_every_set_of_the_toolkit_knows_its_files() -> None:
    assert all(entry.files for name, entry in DATASETS.items() if DATASETS.comes_with_toolkit(name))


def test_files_of_a_users_own_set_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_unread.py").write_text("def data(data_dir): raise ValueError")
    assert dataset_files("own_unread:data") is None
