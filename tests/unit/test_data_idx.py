"""The IDX reader and Fashion-MNIST's files: read right or refused with the file's name."""

import gzip
import struct
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.idx import read_idx
from hpc_lpm.data.registry import dataset_files, dataset_shape, load_dataset
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
        (b"plain text", "begins with 706c6169"),
        (b"\x1f\x8bplain text", "cannot be read as gzip"),
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


def write_part(folder: Path, name: str, labels: bytes) -> None:
    """Images of 2x3 pixels that begin with their number; `name` has {} for what the file holds."""
    folder.mkdir(parents=True, exist_ok=True)
    values = b"".join(bytes([n, 1, 2, 3, 4, 255]) for n in range(len(labels)))
    for what, content in (
        ("images-idx3", idx(len(labels), 2, 3, values=values)),
        ("labels-idx1", idx(len(labels), values=labels)),
    ):
        path = folder / name.format(what)
        path.write_bytes(content if path.suffix.lower() == ".gz" else gzip.decompress(content))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train-{}-ubyte", "t10k-{}-ubyte"),
        ("train-{}-ubyte.gz", "t10k-{}-ubyte.gz"),
        ("train-{}-ubyte", "test-{}-ubyte.gz"),
        ("Train-{}-ubyte.GZ", "T10K-{}-UBYTE"),
        ("qmnist-train-{}-ubyte", "qmnist-test-{}-ubyte"),
    ],
)
@pytest.mark.parametrize("dots", [False, True])
@pytest.mark.parametrize("inside", ["", "raw"])
def test_files_are_found_under_every_published_spelling(
    tmp_path: Path, train: str, test: str, inside: str, dots: bool
) -> None:
    for name, labels in ((train, bytes([0, 1, 2, 1])), (test, bytes([1, 2]))):
        dotted = name.replace("{}-", "{}.") if dots else name
        write_part(tmp_path / inside, dotted, labels)
    if dots:
        for path in list((tmp_path / inside).iterdir()):
            path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    identifier = f"idx:{tmp_path}"
    dataset = load_dataset(identifier)
    assert dataset.shape == dataset_shape(identifier)
    assert dataset.shape.input_shape == (1, 32, 32)
    assert dataset.train.targets(torch.arange(4)).tolist() == [0, 1, 2, 1]
    assert dataset.test.targets(torch.arange(2)).tolist() == [1, 2]
    assert len(dataset_files(identifier) or []) == 4


def test_emnist_has_splits_turned_images_and_classes_that_begin_at_one(tmp_path: Path) -> None:
    write_part(tmp_path, "emnist-letters-train-{}-ubyte.gz", bytes([1, 26, 3]))
    write_part(tmp_path, "emnist-letters-test-{}-ubyte.gz", bytes([26]))
    write_part(tmp_path, "emnist-digits-train-{}-ubyte.gz", bytes([0, 1]))
    dataset = load_dataset(f"idx:{tmp_path},split=letters,size=3")
    assert dataset.class_names == ("1", "3", "26")
    assert dataset.train.targets(torch.arange(3)).tolist() == [0, 2, 1]
    assert dataset.test.targets(torch.arange(1)).tolist() == [2]
    turned = dataset.train.inputs(torch.tensor([0]))[0, 0]
    straight = load_dataset(f"idx:{tmp_path},split=letters,size=3,transpose=false")
    assert divmod(int(turned.argmax()), 3) == (2, 1)
    assert divmod(int(straight.train.inputs(torch.tensor([0]))[0, 0].argmax()), 3) == (1, 2)
    with pytest.raises(InputError, match="holds the splits digits, letters, option 'split' is not"):
        load_dataset(f"idx:{tmp_path}")
    with pytest.raises(InputError, match="'split' is letter, did you mean 'letters'"):
        dataset_shape(f"idx:{tmp_path},split=letter")


def test_without_test_images_a_share_of_every_class_is_held_out(tmp_path: Path) -> None:
    write_part(tmp_path / "one", "train-{}-ubyte", bytes([4, 7] * 10))
    write_part(tmp_path / "other", "train-{}-ubyte", bytes([7, 4, 7]))
    dataset = load_dataset(f"idx:{tmp_path / 'one'}")
    assert dataset.test.targets(torch.arange(4)).sort().values.tolist() == [0, 0, 1, 1]
    assert len(load_dataset(f"idx:{tmp_path / 'one'},test=0.5").test) == 10
    separate = load_dataset(f"idx:{tmp_path / 'one'},test={tmp_path / 'other'}")
    assert separate.test.targets(torch.arange(3)).tolist() == [1, 0, 1]
    with pytest.raises(InputError, match=r"'test' .* is 2, accepted are a share between 0 and 1"):
        load_dataset(f"idx:{tmp_path / 'one'},test=2")


def test_a_folder_without_idx_files_says_which_names_are_looked_for(tmp_path: Path) -> None:
    for ask in (load_dataset, dataset_shape, dataset_files):
        with pytest.raises(
            InputError, match=r"no training images with labels, .* train-images-idx3"
        ):
            ask(f"idx:{tmp_path}")
