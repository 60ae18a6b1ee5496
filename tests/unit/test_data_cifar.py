"""CIFAR in both published formats and their archives: the same images, and nothing else is run."""

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hpc_lpm.data.array_pickle import read_array_pickle
from hpc_lpm.data.registry import dataset_files, dataset_shape, load_dataset
from hpc_lpm.errors import InputError
from tests.unit.cifar_copies import (
    IMAGES_A_BATCH,
    NAMES,
    as_python_2_wrote,
    images,
    write_binary,
    write_python,
)

FORMS = {
    "cifar-10-batches-py": (write_python, "cifar-10-python.tar.gz"),
    "cifar-10-batches-bin": (write_binary, "cifar-10-binary.tar.gz"),
}


def in_its_folder(root: Path, form: str) -> Path:
    FORMS[form][0](root / form)
    return root


def the_folder_itself(root: Path, form: str) -> Path:
    FORMS[form][0](root / "elsewhere")
    return root / "elsewhere"


def in_its_archive(root: Path, form: str) -> Path:
    FORMS[form][0](root / "unpacked")
    (root / "data").mkdir()
    with tarfile.open(root / "data" / FORMS[form][1], "w:gz") as archive:
        archive.add(root / "unpacked", form)
    return root / "data"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("placed", [in_its_folder, the_folder_itself, in_its_archive])
def test_every_published_form_holds_the_same_images(
    tmp_path: Path, form: str, placed: Callable[[Path, str], Path]
) -> None:
    data_dir = placed(tmp_path, form)
    dataset = load_dataset("cifar10", data_dir)
    assert dataset.shape == dataset_shape("cifar10", data_dir)
    assert list(dataset.class_names) == NAMES
    expected = np.concatenate([images(batch) for batch in range(1, 6)]).reshape(-1, 3, 32, 32)
    mean, std = (expected / 255).mean(), (expected / 255).std()
    found = dataset.train.inputs(torch.arange(5 * IMAGES_A_BATCH)).double().numpy()
    np.testing.assert_allclose(found * std + mean, expected / 255, atol=1e-6)
    assert (
        dataset.train.targets(torch.arange(5 * IMAGES_A_BATCH)).tolist()
        == list(range(IMAGES_A_BATCH)) * 5
    )
    assert len(dataset.test) == IMAGES_A_BATCH
    files = dataset_files("cifar10", data_dir)
    assert files
    assert all(path.is_file() for path in files)


def test_cifar100_has_fine_and_coarse_labels_in_both_formats(tmp_path: Path) -> None:
    python, binary = tmp_path / "cifar-100-python", tmp_path / "bin" / "cifar-100-binary"
    for folder in (python, binary):
        folder.mkdir(parents=True)
    fine, coarse = [99, 0, 50], [19, 0, 7]
    for part in ("train", "test"):
        batch = {"data": images(1, 3), "fine_labels": fine, "coarse_labels": coarse}
        (python / part).write_bytes(pickle.dumps(batch, protocol=2))
        records = [
            bytes([c, f]) + row.tobytes()
            for c, f, row in zip(coarse, fine, images(1, 3), strict=True)
        ]
        (binary / f"{part}.bin").write_bytes(b"".join(records))
    for labels, expected, classes in (("fine", fine, 100), ("coarse", coarse, 20)):
        for data_dir in (tmp_path, tmp_path / "bin"):
            dataset = load_dataset(f"cifar100,labels={labels}", data_dir)
            assert dataset.shape.classes == classes
            assert dataset.train.targets(torch.arange(3)).tolist() == expected
    with pytest.raises(InputError, match=r"'labels' .* is 'rough', accepted is fine or coarse"):
        load_dataset("cifar100,labels=rough", tmp_path)


def test_a_copy_that_is_missing_or_incomplete_is_said_with_what_was_looked_for(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=r"fetch cifar-10-python\.tar\.gz or .*--data-dir"):
        load_dataset("cifar10")
    with pytest.raises(InputError, match=rf"{tmp_path} holds no cifar10: .*cifar-10-batches-bin"):
        load_dataset("cifar10", tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    write_binary(folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"lacks data_batch_3\.bin"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds 0 bytes, accepted are whole records of 3073"),
        (bytes(3072), "holds 3072 bytes"),
        (bytes([10]) + bytes(3072), "holds label 10, accepted are 0 to 9"),
    ],
)
def test_broken_records_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    write_binary(folder)
    (folder / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset("cifar10", tmp_path)
    assert "data_batch_2.bin" in str(caught.value)


class Runs:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        function, *arguments = self.call
        return function, tuple(arguments)


@pytest.mark.parametrize(
    "harmful",
    [
        Runs(print, "run"),
        Runs(np.load, "any.npy"),
        Runs(np.dtype, "O"),
        Runs(np.dtype, "V8"),
        np.array([print], dtype=object),
        np.array([(1, 2)], dtype="i4,i4"),
        Runs(getattr, np.ndarray, "tofile"),
    ],
    ids=["print", "load", "objects", "void", "array of objects", "records", "getattr"],
)
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_anything_is_refused(
    harmful: object, protocol: int, capsys: pytest.CaptureFixture[str]
) -> None:
    content = pickle.dumps({"data": harmful, "labels": [1]}, protocol=protocol)
    with pytest.raises(InputError, match=r"pickle any (refers to|cannot be read)"):
        read_array_pickle(content, "any")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_pickle_is_one_sentence(seed: int) -> None:
    chances = np.random.default_rng(seed)
    content = bytearray(as_python_2_wrote(images(1, 2))[:200])
    for position in chances.integers(0, len(content), 3):
        content[position] = chances.integers(256)
    with pytest.raises(InputError, match=r"^pickle any "):
        read_array_pickle(bytes(content), "any")


@pytest.mark.parametrize("order", ["<i4", ">i4"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_arrays_of_any_order_are_read_as_numpy_reads_them(order: str, layout: str) -> None:
    array = np.asarray(np.arange(6).reshape(2, 3), order, order=layout)
    for protocol in (2, 3, 4):
        found = read_array_pickle(pickle.dumps({"a": array}, protocol=protocol), "any")["a"]
        np.testing.assert_array_equal(found, array)
