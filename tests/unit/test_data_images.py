"""Image sets: identical on every load, honest splits, normalised by the training part."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from hpc_lpm.data.dataset import Dataset, Split
from hpc_lpm.data.fashion_mnist import DEBIAN_FOLDER
from hpc_lpm.data.images import packaged_table, pad_to_size, split_by_class
from hpc_lpm.data.registry import dataset_files, dataset_shape, load_dataset
from hpc_lpm.errors import InputError
from tests.unit.test_data_idx import write_fashion_mnist

IMAGE_SETS = ["digits", "mnist5k"]


@pytest.fixture(scope="module", params=IMAGE_SETS)
def loaded(request: pytest.FixtureRequest) -> Dataset:
    return load_dataset(request.param)


def everything(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    indices = torch.arange(len(split))
    return split.inputs(indices), split.targets(indices)


def test_two_loads_are_identical(loaded: Dataset) -> None:
    torch.manual_seed(1)
    again = load_dataset(loaded.name)
    for one, other in ((loaded.train, again.train), (loaded.test, again.test)):
        assert all(map(torch.equal, everything(one), everything(other)))


def test_loading_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    load_dataset("digits")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_images_have_mean_0_and_deviation_1(loaded: Dataset) -> None:
    images, _ = everything(loaded.train)
    assert images.dtype == torch.float32
    assert images.double().mean().item() == pytest.approx(0, abs=1e-5)
    assert images.double().std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_shape_is_known_without_loading(loaded: Dataset) -> None:
    images, _ = everything(loaded.test)
    assert dataset_shape(loaded.name) == loaded.shape
    assert tuple(images.shape[1:]) == loaded.shape.input_shape == (1, 32, 32)


def test_parts_have_the_documented_sizes_and_all_classes_in_proportion(loaded: Dataset) -> None:
    train, test = {"digits": (1437, 360), "mnist5k": (4000, 1000)}[loaded.name]
    assert (len(loaded.train), len(loaded.test)) == (train, test)
    in_train = torch.bincount(everything(loaded.train)[1])
    in_test = torch.bincount(everything(loaded.test)[1])
    share = in_test / (in_train + in_test)
    assert (share - test / (train + test)).abs().max() < 0.01


def test_digits_are_those_of_scikit_learn() -> None:
    dataset = load_dataset("digits,size=8")
    images = torch.cat([everything(dataset.train)[0], everything(dataset.test)[0]])
    targets = torch.cat([everything(dataset.train)[1], everything(dataset.test)[1]])
    original = load_digits()
    # The images are normalised, which keeps the rank of the pixels' sums within a class.
    low, high = images.min(), images.max()
    restored = ((images - low) / (high - low) * 16).round()
    for digit in range(10):
        mine = restored[targets == digit].sum((1, 2, 3)).sort().values
        theirs = torch.from_numpy(original.images[original.target == digit].sum((1, 2)))
        torch.testing.assert_close(mine.double(), theirs.sort().values)


def test_split_covers_every_sample_once() -> None:
    targets = torch.arange(100) % 7
    train, test = split_by_class(targets, 30)
    assert len(test) == 30
    assert torch.cat([train, test]).sort().values.tolist() == list(range(100))


def test_order_of_the_parts_is_not_by_class() -> None:
    train, _ = split_by_class(torch.arange(1000) // 100, 200)
    assert len(set((train[:50] // 100).tolist())) > 5


def test_padding_never_shrinks() -> None:
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    with pytest.raises(InputError, match="'size' of any is 20, accepted are sizes from 28"):
        pad_to_size(images, 20, "any")


def test_padding_is_centred_zeros() -> None:
    padded = pad_to_size(torch.full((1, 1, 2, 3), 7, dtype=torch.uint8), 5, "any")
    assert padded.shape == (1, 1, 5, 5)
    assert padded[0, 0].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 7, 7, 7, 0],
        [0, 7, 7, 7, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("digts", "data set 'digts' is unknown, did you mean 'digits'"),
        (
            "Images:here",
            r"'Images' is unknown, did you mean 'images'\?, and there is no module 'Im",
        ),
        ("my_module:data", "module 'my_module' .* cannot be imported"),
        ("digits,size=4", "'size' of digits is 4, accepted are sizes from 8"),
        ("digits,sequence=4", "unknown option 'sequence'"),
        ("digits:here", "accepted is digits without a path"),
        ("text", "accepted is text:PATH"),
    ],
)
def test_wrong_identifiers_are_explained(identifier: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(identifier)


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_the_debian_package_has_the_published_split() -> None:
    dataset = load_dataset("fashion-mnist")
    assert torch.bincount(everything(dataset.test)[1]).tolist() == [1000] * 10
    assert torch.bincount(dataset.train.targets(torch.arange(60000))).tolist() == [6000] * 10


def test_missing_fashion_mnist_says_where_it_looked_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "debian"
    monkeypatch.setattr("hpc_lpm.data.fashion_mnist.DEBIAN_FOLDER", nowhere)
    with pytest.raises(InputError) as caught:
        load_dataset("fashion-mnist")
    for part in (str(nowhere), "--data-dir", "dataset-fashion-mnist"):
        assert part in str(caught.value)


def test_a_data_folder_without_fashion_mnist_is_never_replaced_by_debians_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "debian"
    package.mkdir()
    write_fashion_mnist(package)
    monkeypatch.setattr("hpc_lpm.data.fashion_mnist.DEBIAN_FOLDER", package)
    assert len(load_dataset("fashion-mnist").train) == 2
    for folder in (tmp_path, tmp_path / "missing"):
        for ask in (load_dataset, dataset_files):
            with pytest.raises(InputError, match=f"--data-dir {folder} holds no .* looked for are"):
                ask("fashion-mnist", folder)


@pytest.mark.parametrize("package", ["hpc_lpm", "no_such_package"])
def test_a_table_that_a_package_does_not_have_is_one_sentence(package: str) -> None:
    with pytest.raises(InputError, match=rf"^lost\.csv of the package {package} cannot be found"):
        packaged_table(package, "lost.csv")


def test_loading_imports_no_package_that_a_rank_would_wait_for() -> None:
    program = "import sys\n" + "\n".join(
        (
            "from hpc_lpm.data.registry import load_dataset",
            *(f"load_dataset({name!r})" for name in IMAGE_SETS),
            "print(*{'sklearn', 'mlxtend', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("\n", "")
