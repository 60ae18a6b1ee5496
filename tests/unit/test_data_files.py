"""Every source tells the files that it is loaded from, without reading what is in them."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpc_lpm.data.registry import DATASETS, dataset_files, load_dataset
from tests.unit.cifar_copies import write_binary, write_python
from tests.unit.test_data_idx import write_fashion_mnist


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


opened: set[Path] = set()


@pytest.fixture(scope="module")
def _watch_files() -> None:
    """Note every file that Python opens from here on; such a hook cannot be taken away again."""

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            opened.add(Path(arguments[0]))

    sys.addaudithook(note)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with something for every source, each with a test part of its own."""
    folder = tmp_path_factory.mktemp("data")
    write_python(folder / "cifar-10-batches-py")
    write_binary(folder / "bin" / "cifar-10-batches-bin")
    write_fashion_mnist(folder)
    arrays = {"x": np.arange(6.0).reshape(3, 2), "y": np.array([0, 1, 0])}
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]
        (folder / f"{name}.csv").write_text("a,t\n1,0\n2,1\n3,0\n")
        (folder / "texts" / name).mkdir(parents=True)
        (folder / "texts" / name / "some.txt").write_text("text " * 20)
        (folder / f"{name} arrays").mkdir()
        for part, array in arrays.items():
            np.save(folder / f"{name} arrays" / f"{part}.npy", array)
        for number in range(4):
            path = folder / "images" / name / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), number).save(path)
    return folder


@pytest.mark.usefixtures("_watch_files")
@pytest.mark.parametrize(
    ("identifier", "data_dir"),
    [
        ("cifar10", "."),
        ("cifar10", "bin"),
        ("fashion-mnist", "."),
        ("idx:.", None),
        ("images:images", None),
        ("images:images/train,test=images/test", None),
        ("npz:train.npz", None),
        ("npz:train.npz,test=test.npz", None),
        ("npy:train arrays", None),
        ("npy:train arrays,test=test arrays", None),
        ("npy:train arrays/x.npy,targets=y.npy", None),
        ("table:train.csv,target=t", None),
        ("table:train.csv,target=t,test=test.csv", None),
        ("text:texts,pattern=train/*,sequence=4,test=texts/test/some.txt", None),
        ("text:texts/train,sequence=4", None),
    ],
)
def test_the_files_that_are_told_are_those_that_are_opened(
    data: Path, monkeypatch: pytest.MonkeyPatch, identifier: str, data_dir: str | None
) -> None:
    monkeypatch.chdir(data)
    folder = None if data_dir is None else Path(data_dir)
    opened.clear()
    told = dataset_files(identifier, folder)
    found = {path for path in tuple(opened) if path.is_file()}
    assert not {path for path in found if data in path.absolute().parents}
    load_dataset(identifier, folder)
    read = {path.absolute() for path in tuple(opened) if path.is_file()}
    assert told is not None
    assert {path.absolute() for path in told} == {path for path in read if data in path.parents}
