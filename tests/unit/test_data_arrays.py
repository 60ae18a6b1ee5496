"""Arrays that numpy saved: told apart by name and type, never unpickled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpc_lpm.data.registry import dataset_files, dataset_shape, load_dataset
from hpc_lpm.errors import InputError

CHANCES = np.random.default_rng(0)
X, Y = CHANCES.normal(size=(20, 3)), np.arange(20) % 2
PARTS = ("x", "y", "x_test", "y_test")


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "data.npz", **arrays)
    return f"npz:{folder / 'data.npz'}"


def everything(samples: Any) -> tuple[torch.Tensor, torch.Tensor]:
    indices = torch.arange(len(samples))
    return samples.inputs(indices), samples.targets(indices)


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("inputs", "targets", "test-inputs", "test-targets"),
        ("data.training", "label.training", "data.testing", "label.testing"),
        ("x", "y", "x_val", "y_val"),
    ],
)
def test_names_tell_the_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = dict(zip(names, (X, Y, X[:4] + 1, 1 - Y[:4]), strict=True))
    dataset = load_dataset(saved(tmp_path, **arrays))
    inputs, targets = everything(dataset.train)
    np.testing.assert_array_equal(inputs, X.astype(np.float32))
    assert targets.tolist() == Y.tolist()
    inputs, targets = everything(dataset.test)
    np.testing.assert_array_equal(inputs, (X[:4] + 1).astype(np.float32))
    assert targets.tolist() == (1 - Y[:4]).tolist()


def test_a_validation_part_stays_one_beside_a_test_part(tmp_path: Path) -> None:
    identifier = saved(
        tmp_path, train_images=X, train_labels=Y, val_images=X[:3], val_labels=Y[:3],
        test_images=X[:2], test_labels=Y[:2],
    )  # fmt: skip
    assert {name: len(part) for name, part in load_dataset(identifier).parts.items()} == {
        "training": 20,
        "validation": 3,
        "test": 2,
    }


@pytest.mark.parametrize(
    ("arrays", "options"),
    [
        ({"x": X, "y": Y}, ""),
        ({"X": X, "y": Y}, ""),
        ({"arr_0": X, "arr_1": Y}, ""),
        ({"spectra": X, "kind": Y, "more": Y}, ",inputs=spectra,targets=kind"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y}, ",test=0.2"),
        ({"x": X, "y": Y, "x_test": X}, ",test=0.2"),
        ({"test_data": X, "kind": Y}, ",inputs=test_data,targets=kind"),
    ],
)
def test_a_share_is_held_out_once_of_every_class(
    tmp_path: Path, arrays: dict[str, Any], options: str
) -> None:
    dataset = load_dataset(saved(tmp_path, **arrays) + options)
    assert everything(dataset.test)[1].sort().values.tolist() == [0, 0, 1, 1]
    rows = torch.cat([everything(dataset.train)[0], everything(dataset.test)[0]])
    assert sorted(rows.tolist()) == sorted(X.astype(np.float32).tolist())


IMAGES = CHANCES.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("inputs", "options", "shape", "first"),
    [
        (IMAGES, "", (3, 8, 9), IMAGES[0].transpose(2, 0, 1)),
        (IMAGES.transpose(0, 3, 1, 2), "", (3, 8, 9), IMAGES[0].transpose(2, 0, 1)),
        (IMAGES[..., 0], "", (1, 8, 9), IMAGES[:1, ..., 0]),
        (IMAGES, ",layout=as-is", (8, 9, 3), IMAGES[0]),
        (IMAGES[:, 0, 0], "", (3,), IMAGES[0, 0, 0]),
    ],
    ids=["last", "first", "grey", "as it is", "flat"],
)
def test_bytes_are_normalised_images_with_channels_first(
    tmp_path: Path, inputs: Any, options: str, shape: tuple[int, ...], first: Any
) -> None:
    part = {"y_train": np.arange(6) % 2, "x_test": inputs, "y_test": np.arange(6) % 2}
    identifier = saved(tmp_path, x_train=inputs, **part) + options
    dataset = load_dataset(identifier)
    assert dataset.shape.input_shape == dataset_shape(identifier).input_shape == shape
    found = everything(dataset.train)[0][0].double().numpy()
    scaled = inputs / 255
    np.testing.assert_allclose(found, (first / 255 - scaled.mean()) / scaled.std(), atol=1e-5)


def test_other_whole_numbers_are_standardised_and_big_endian_is_no_matter(tmp_path: Path) -> None:
    whole = CHANCES.integers(-500, 9000, (20, 3)).astype(">i4")
    dataset = load_dataset(
        saved(tmp_path, x_train=whole, y_train=Y, x_test=whole[:5], y_test=Y[:5])
    )
    for samples, expected in ((dataset.train, whole), (dataset.test, whole[:5])):
        np.testing.assert_allclose(
            everything(samples)[0], (expected - whole.mean()) / whole.std(), atol=1e-5
        )


def test_tokens_with_tokens_as_targets_are_text(tmp_path: Path) -> None:
    tokens = CHANCES.integers(0, 50, (10, 6))
    tokens[0, 0] = 49
    dataset = load_dataset(
        saved(
            tmp_path,
            x=tokens[:, :-1],
            y=tokens[:, 1:],
        )
    )
    assert (dataset.shape.kind, dataset.shape.task) == ("text", "next-token")
    assert (dataset.shape.input_shape, dataset.shape.vocabulary) == ((5,), 50)


FLAGS = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]] * 4)
ONE_HOT = np.eye(3)[[0, 2, 1, 1] * 3]


@pytest.mark.parametrize(
    ("targets", "options", "task", "classes", "first", "names"),
    [
        (np.array([3, -1, 7] * 4), "", "classes", 3, [1, 0, 2], ("-1", "3", "7")),
        (np.array([[3], [4]] * 6), "", "classes", 2, [0, 1], ("3", "4")),
        (np.array(["cat", "ant"] * 6), "", "classes", 2, [1, 0], ("ant", "cat")),
        (np.array([True, False] * 6), "", "classes", 2, [1, 0], ("False", "True")),
        (ONE_HOT, "", "classes", 3, [0, 2, 1], ("0", "1", "2")),
        (np.array([0.5, 2.5] * 6), "", "regression", 1, [[0.5], [2.5]], ()),
        (np.array([1.0, 0.0] * 6), ",task=classes", "classes", 2, [1, 0], ("0.0", "1.0")),
        (np.arange(12), ",task=regression", "regression", 1, [[0.0], [1.0]], ()),
        (FLAGS, "", "multi-label", 3, [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]], ()),
        (ONE_HOT, ",task=multi-label", "multi-label", 3, [[1.0, 0.0, 0.0]], ()),
        (ONE_HOT + 0.5, "", "regression", 3, [[1.5, 0.5, 0.5]], ()),
    ],
)
def test_targets_tell_the_task(
    tmp_path: Path,
    targets: Any,
    options: str,
    task: str,
    classes: int,
    first: list[Any],
    names: tuple[str, ...],
) -> None:
    arrays = {"x": X[:12], "y": targets, "x_test": X[:12], "y_test": targets}
    dataset = load_dataset(saved(tmp_path, **arrays) + options)
    assert (dataset.shape.task, dataset.shape.classes) == (task, classes)
    assert dataset.train.targets(torch.arange(len(first))).tolist() == first
    assert dataset.class_names == names


def test_numbers_and_texts_of_the_same_spelling_are_one_class(tmp_path: Path) -> None:
    numbers, tests = Y + 9, np.array([10, 9, 9])
    for train, test in ((numbers, tests.astype(str)), (numbers.astype("S"), tests)):
        dataset = load_dataset(saved(tmp_path, x=X, y=train, x_test=X[:3], y_test=test))
        number = dataset.class_names.index("10")
        assert everything(dataset.train)[1].tolist() == [n if number else 1 - n for n in Y.tolist()]
        assert everything(dataset.test)[1].tolist() == [number, 1 - number, 1 - number]


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": X, "y": np.array([{}] * 20)}, "", "array y of .*data.npz holds Python objects"),
        ({"a": X, "b": Y}, "", "arrays a, b, which do not tell inputs and targets, understood are"),
        ({"x": X, "y": Y}, ",inputs=q", "'inputs' of .* is 'q', its arrays are x, y"),
        ({"x": X, "y": Y[:19]}, "", "training part of .* has 20 inputs and 19 targets"),
        (
            {"x": X, "y": Y, "x_test": X},
            "",
            r"holds x_test of a test part, accepted is one array of inputs .* with ,test=0.2",
        ),
        (
            {"x": X, "y": Y, "x_test": X, "test_images": X, "y_test": Y, "x_val": X, "y_val": Y},
            "",
            "holds x_test, test_images, y_test of a test part, accepted is one array of inputs",
        ),
        ({"x": X, "y": Y, "y_val": Y}, "", "holds y_val of a validation part, accepted is one"),
        ({"x": X * np.nan, "y": Y}, "", "inputs that are missing or infinite, from sample 0 on"),
        ({"x": X, "y": np.full(20, np.inf)}, "", "has 20 targets that are missing or infinite"),
        ({"x": X * 1e39, "y": Y}, "", r"infinite, from sample 0 on, in float32, .* to 3.4e\+38"),
        ({"x": X, "y": np.full(20, -1e39)}, "", r"has 20 targets .* infinite in float32, accepted"),
        (
            {"x": X, "y": np.array(["1.5", "nan"] * 10)},
            ",task=regression",
            "has 10 targets that are missing or infinite in float32",
        ),
        (
            {name: np.ones((4, 7 if "_" in name else 5), int) for name in PARTS},
            "",
            "the test part of .* has samples of 7 tokens, accepted are 5 as in the training part",
        ),
        ({"x": X, "y": np.arange(20.0) * 1j}, "", "targets of type complex128"),
        ({"x": X.astype(str), "y": Y}, "", "inputs of type <U"),
        ({"x": X[:0], "y": Y[:0]}, "", r"has the shape \(0, 3\), accepted is a sample a row"),
        ({"x": np.repeat(X, 2, 0), "y": np.arange(40)}, "", "40 different targets in 40 samples"),
        ({"x": X, "y": Y}, ",layout=grey", "'layout' of .* is grey, .* accepted are 3 dimensions"),
        ({"x": X, "y": Y}, ",layout=gray", r"is 'gray', did you mean 'grey'\?: accepted is chan"),
        ({"x": X, "y": Y}, ",task=multi-label,test=9", "'test' .* is 9, accepted are a share"),
        ({"x": X, "y": Y + 1}, ",task=multi-label", "targets other than 0 and 1"),
        (
            {"x": X, "y": Y, "x_test": X[:1], "y_test": Y[:1] + 5},
            "",
            "has the class '5' in a part other than the training part, whose classes are 0, 1",
        ),
        (
            {"x": X, "y": Y + 9, "x_test": X[:3], "y_test": np.array(["10", "9", "z"])},
            "",
            "has the class 'z' in a part other than the training part, whose classes are 9, 10",
        ),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, arrays: dict[str, Any], options: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(saved(tmp_path, **arrays) + options)


def test_broken_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = Path(saved(tmp_path, x=X, y=Y).removeprefix("npz:"))
    content = whole.read_bytes()
    for name, broken in {"empty": b"", "short": content[:-40], "text": b"x,y\n1,2\n"}.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(broken)
        with pytest.raises(InputError, match=rf"{name}\.npz"):
            load_dataset(f"npz:{path}")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(InputError, match=r"holds one array, accepted is a \.npz file: use npy:"):
        load_dataset(f"npz:{tmp_path / 'one.npy'}")
    with pytest.raises(InputError, match=r"npz file .*nowhere\.npz cannot be read \(No such file"):
        load_dataset(f"npz:{tmp_path / 'nowhere.npz'}")


def test_single_files_and_a_folder_of_them_hold_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder, with=signs"
    folder.mkdir()
    for name, array in {"x_train": X, "y_train": Y, "x_test": X[:3], "y_test": Y[:3]}.items():
        np.save(folder / f"{name}.npy", array)
    whole = f"npy:{folder}"
    single = (
        f"npy:{folder / 'x_train.npy'},targets=y_train.npy,test=x_test.npy,test_targets=y_test.npy"
    )
    expected = load_dataset(saved(tmp_path, x=X, y=Y, x_test=X[:3], y_test=Y[:3]))
    for identifier in (whole, single):
        dataset = load_dataset(identifier)
        assert dataset.shape == expected.shape
        for part in ("train", "test"):
            pairs = zip(
                everything(getattr(dataset, part)), everything(getattr(expected, part)), strict=True
            )
            assert all(torch.equal(one, other) for one, other in pairs)
        assert sorted(dataset_files(identifier) or []) == sorted(folder.iterdir())
    monkeypatch.chdir(folder)
    assert len(load_dataset("npy:x_train.npy,targets=y_train.npy,test=0.5").test) == 10
    with pytest.raises(
        InputError, match=r"inputs without targets, accepted is npy:X\.npy,targets="
    ):
        load_dataset("npy:x_train.npy")
    with pytest.raises(InputError, match="'test' and 'test_targets' that do not belong together"):
        load_dataset("npy:x_train.npy,targets=y_train.npy,test=x_test.npy")
