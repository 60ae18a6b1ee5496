"""Text of any file or folder: every byte in order, the next byte as target."""

from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import dataset_shape, load_dataset
from hpc_lpm.errors import InputError


def test_samples_are_the_bytes_and_targets_the_next_ones(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    dataset = load_dataset(f"text:{path},sequence=10")
    train_bytes = 512 - 51
    assert len(dataset.train) == (train_bytes - 1) // 10
    assert len(dataset.test) == (51 - 1) // 10
    indices = torch.arange(len(dataset.train))
    inputs, targets = dataset.train.inputs(indices), dataset.train.targets(indices)
    assert inputs.dtype == targets.dtype == torch.int64
    assert bytes(inputs.flatten().tolist()) == content[: inputs.numel()]
    assert bytes(targets.flatten().tolist()) == content[1 : inputs.numel() + 1]
    first_test = dataset.test.inputs(torch.tensor([0]))
    assert bytes(first_test[0].tolist()) == content[train_bytes : train_bytes + 10]


def test_shape_is_known_without_loading(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 400)
    identifier = f"text:{path},sequence=20"
    assert dataset_shape(identifier) == load_dataset(identifier).shape
    assert dataset_shape(identifier).input_shape == (20,)
    assert dataset_shape(identifier).classes == 256


def test_folder_is_its_regular_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_bytes(b"z" * 1000)
    dataset = load_dataset(f"text:{tmp_path},sequence=9")
    indices = torch.arange(len(dataset.train))
    read = bytes(dataset.train.inputs(indices).flatten().tolist())
    assert read == (b"a" * 100 + b"b" * 100 + b"c" * 100)[: len(read)]


def test_paths_may_hold_commas(tmp_path: Path) -> None:
    path = tmp_path / "a,b.txt"
    path.write_bytes(b"x" * 400)
    assert load_dataset(f"text:{path},sequence=8").shape.input_shape == (8,)


def test_too_small_a_text_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1289)
    with pytest.raises(
        InputError, match=r"holds 1289 bytes, .* test part 128, accepted are at least 129"
    ):
        load_dataset(f"text:{path}")
    path.write_bytes(b"x" * 1290)
    assert len(load_dataset(f"text:{path}").test) == 1


def test_missing_path_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing cannot be read \(No such file"):
        load_dataset(f"text:{tmp_path / 'nothing'}")


def test_sequence_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'sequence' of text is 0"):
        load_dataset(f"text:{tmp_path},sequence=0")
