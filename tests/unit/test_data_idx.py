"""The IDX reader and Fashion-MNIST's files: read right or refused with the file's name."""

import gzip
import struct
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.idx import read_idx
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.errors import InputError


def idx(*sizes: int, values: bytes, magic: bytes | None = None) -> bytes:
    head = bytes([0, 0, 8, len(sizes)]) if magic is None else magic
    return gzip.compress(head + struct.pack(f">{len(sizes)}I", *sizes) + values, mtime=0)


def write_fashion_mnist(folder: Path, labels: bytes = bytes([3, 9])) -> None:
    images = bytes([0] * 784 + [255] * 784)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(2, 28, 28, values=images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(len(labels), values=labels))


def test_values_are_read_in_row_order(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(idx(2, 1, 3, values=bytes([1, 2, 3, 253, 254, 255])))
    assert read_idx(path, dimensions=3).tolist() == [[[1, 2, 3]], [[253, 254, 255]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain text", "cannot be read as gzip"),
        (gzip.compress(b"", mtime=0), "begins with nothing, accepted is 00000801"),
        (idx(3, values=b"abc", magic=b"\0\0\x0d\1"), "begins with 00000d01"),
        (idx(1, 3, values=b"abc"), "begins with 00000802"),
        (gzip.compress(b"\0\0\x08\1\0\0", mtime=0), "ends within its header"),
        (idx(4, values=b"abc"), "holds 3 values where its header says 4"),
        (idx(2, values=b"abc"), "holds 3 values where its header says 2"),
        (idx(300, values=bytes(range(250)) + bytes(50))[:-20], "is truncated"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken-idx1-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_idx(path, dimensions=1)
    assert str(path) in str(caught.value)


def test_corrupt_compression_is_refused_by_name(tmp_path: Path) -> None:
    whole = bytearray(
        idx(1000, values=torch.randint(256, (1000,)).to(torch.uint8).numpy().tobytes())
    )
    whole[200:240] = bytes(40)
    path = tmp_path / "corrupt.gz"
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"corrupt\.gz"):
        read_idx(path, dimensions=1)


def test_fashion_mnist_comes_from_the_data_folder(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    dataset = load_dataset("fashion-mnist", tmp_path)
    images = dataset.train.inputs(torch.arange(2))
    assert images.shape == (2, 1, 32, 32)
    assert torch.equal(images[1, 0, 2:30, 2:30], images.max().expand(28, 28))
    assert torch.equal(images[0], images.min().expand(1, 32, 32))
    assert dataset.test.targets(torch.arange(2)).tolist() == [3, 9]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (b"\1\2\3", "holds 3 labels for 2 images"),
        (b"\1\x0a", "holds label 10, accepted are 0 to 9"),
    ],
)
def test_labels_that_do_not_suit_are_refused(tmp_path: Path, labels: bytes, message: str) -> None:
    write_fashion_mnist(tmp_path, labels)
    with pytest.raises(InputError, match=message):
        load_dataset("fashion-mnist", tmp_path)
