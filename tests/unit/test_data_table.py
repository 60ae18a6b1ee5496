"""Tables: columns become features by the training part alone, whatever they hold."""

import datetime
import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hpc_lpm.data.registry import dataset_files, dataset_shape, load_dataset
from hpc_lpm.errors import InputError


def everything(samples: Any) -> tuple[torch.Tensor, torch.Tensor]:
    indices = torch.arange(len(samples))
    return samples.inputs(indices), samples.targets(indices)


def columns_of(samples: Any) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in everything(samples)[0].T.tolist()]


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    """A training and a test table; the test table has values that training lacks."""
    train, test = tmp_path / "my train.csv", tmp_path / "test.csv"
    train.write_text(
        "id,size,colour,ready,day,grade\n"
        "1,1.0,red,True,2024-01-01,b\n"
        "2,3,blue,False,2024-01-03,a\n"
        "3,1,red,True,2024-01-01,c\n"
        "4,3,green,False,2024-01-03,a\n"
    )
    test.write_text(
        "grade,colour,size,ready,day,id\na,red,5,True,2024-01-05,9\nc,mauve,2,False,2024-01-02,8\n"
    )
    return train, test


def test_columns_become_features_by_the_training_part(parts: tuple[Path, Path]) -> None:
    train, test = parts
    identifier = f"table:{train},target=grade,drop=id,test={test}"
    dataset = load_dataset(identifier)
    assert dataset.shape == dataset_shape(identifier)
    assert (dataset.shape.input_shape, dataset.shape.classes) == ((6,), 3)
    assert dataset.class_names == ("a", "b", "c")
    assert columns_of(dataset.train) == [
        [-1, 1, -1, 1],  # size
        [0, 1, 0, 0],  # blue
        [0, 0, 0, 1],  # green
        [1, 0, 1, 0],  # red
        [1, 0, 1, 0],  # ready
        [-1, 1, -1, 1],  # day
    ]
    assert columns_of(dataset.test) == [[3, 0], [0, 0], [0, 0], [1, 0], [1, 0], [3, 0]]
    assert everything(dataset.train)[1].tolist() == [1, 0, 2, 0]
    assert everything(dataset.test)[1].tolist() == [0, 2]
    assert dataset_files(identifier) == [train, test]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("a;b;t\n1;2,5;x\n3;4,5;y\n", "decimal=comma"),
        ("a\tb\tt\n1\t2.5\tx\n3\t4.5\ty\n", "decimal=point"),
        ("a|b|t\n1|2.5|x\n3|4.5|y\n", "header=true"),
        ("a  b t\n1 2.5   x\n3 4.5 y\n", "separator=space"),
        ("\ufeffa,b,t\r\n1,2.5,x\r\n3,4.5,y\r\n", "missing=refuse"),
        ('"a", "b", "t"\n1, 2.5, "x"\n3, 4.5, "y"\n', "missing=refuse"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_tables_are_read_in_the_spelling_that_they_have(
    tmp_path: Path, content: str, options: str, compressed: bool
) -> None:
    path = tmp_path / ("t.csv.gz" if compressed else "t.csv")
    raw = content.encode()
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    dataset = load_dataset(f"table:{path},target=t,test={path},{options}")
    assert columns_of(dataset.train) == [[-1, 1], [-1, 1]]
    assert dataset.class_names == ("x", "y")


def test_a_table_without_a_header_has_numbered_columns(tmp_path: Path) -> None:
    path = tmp_path / "iris.data"
    path.write_text("5.1,3.5,setosa\n4.9,3.0,setosa\n6.1,3.1,other\n" * 4)
    dataset = load_dataset(f"table:{path},target=2,header=false")
    assert (dataset.shape.input_shape, dataset.class_names) == ((2,), ("other", "setosa"))
    with pytest.raises(InputError, match=r"column '2', which is not there.*header=false"):
        load_dataset(f"table:{path},target=2")


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(8.0), **columns})


ODD = {
    "when": pd.date_range("2024-01-01", periods=8, tz="Europe/Paris"),
    "took": pd.to_timedelta(np.arange(8), unit="h"),
    "price": [Decimal(n) for n in range(8)],
    "rank": pd.Categorical(["lo", "hi"] * 4, categories=["lo", "hi", "never"], ordered=True),
    "some": pd.array([1, 2, 3, 4] * 2, dtype="Int64"),
    "flag": pd.array([True, False] * 4, dtype="boolean"),
    "day": [datetime.date(2024, 1, 1 + n) for n in range(8)],
}


def test_parquet_files_may_hold_columns_of_any_plain_type(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame(**ODD, t=["p", "q"] * 4).to_parquet(path)
    dataset = load_dataset(f"table:{path},target=t,test={path}")
    rising = [round((n - 3.5) / np.arange(8).std(), 4) for n in range(8)]
    hi, lo = [0, 1] * 4, [1, 0] * 4
    some = [round(value, 4) for value in [-1.5 / 1.25**0.5, -0.5 / 1.25**0.5] * 4]
    found = columns_of(dataset.train)
    assert found[:6] == [rising, rising, rising, rising, hi, lo]
    assert found[6][:2] == some[:2]
    assert found[7:] == [lo, rising]


@pytest.mark.parametrize(
    ("targets", "options", "task", "classes", "first"),
    [
        ({"t": [5, 3] * 4}, "target=t", "classes", 2, [1, 0]),
        ({"t": [0.5, 3] * 4}, "target=t", "regression", 1, [[0.5], [3.0]]),
        ({"t": [5, 3] * 4}, "target=t,task=regression", "regression", 1, [[5.0], [3.0]]),
        ({"a": [0, 1] * 4, "b": [1, 1] * 4}, "target=a+b", "multi-label", 2, [[0, 1], [1, 1]]),
        ({"a": [0, 1] * 4, "b": [1.5, 1] * 4}, "target=a+b", "regression", 2, [[0, 1.5]]),
        ({"a": [3, 1] * 4, "b": [1, 7] * 4}, "target=a+b", "regression", 2, [[3, 1], [1, 7]]),
        ({"a+b": ["u", "v"] * 4}, "target=a+b", "classes", 2, [0, 1]),
        ({"t": [True, False] * 4}, "target=t", "classes", 2, [1, 0]),
    ],
)
def test_targets_of_one_or_several_columns(
    tmp_path: Path,
    targets: dict[str, Any],
    options: str,
    task: str,
    classes: int,
    first: list[Any],
) -> None:
    path = tmp_path / "t.csv"
    frame(**targets).to_csv(path, index=False)
    dataset = load_dataset(f"table:{path},{options},test={path}")
    assert (dataset.shape.task, dataset.shape.classes) == (task, classes)
    assert dataset.train.targets(torch.arange(len(first))).tolist() == first


def test_a_share_is_held_out_and_standardised_by_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"x": np.arange(100) ** 2, "t": np.arange(100) % 4}).to_csv(path, index=False)
    dataset = load_dataset(f"table:{path},target=t,test=0.2")
    inputs, targets = everything(dataset.train)
    assert torch.bincount(targets).tolist() == [20] * 4
    assert inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert inputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert len(dataset.test) == 20


def test_a_share_is_held_out_of_samples_with_several_classes_too(tmp_path: Path) -> None:
    path, numbers = tmp_path / "t.csv", np.arange(50)
    table = pd.DataFrame({"x": numbers, "a": numbers % 3, "b": numbers % 2 + 1})
    table.to_csv(path, index=False)
    dataset = load_dataset(f"table:{path},target=a+b,task=classes,test=0.2")
    assert (len(dataset.train), len(dataset.test)) == (40, 10)


def test_missing_values_are_refused_replaced_or_dropped(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,t\n1,x,0\n3,,1\n,y,0\n5,x,1\n")
    identifier = f"table:{path},target=t,test={path}"
    with pytest.raises(InputError, match=r"lacks 1 of 4 values in column 'a'.*missing=mean or"):
        load_dataset(identifier)
    filled = load_dataset(f"{identifier},missing=mean")
    assert columns_of(filled.train) == [
        [round(-2 / (8 / 3) ** 0.5, 4), 0, 0, round(2 / (8 / 3) ** 0.5, 4)],
        [1, 0, 0, 1],
        [0, 0, 1, 0],
    ]
    assert columns_of(load_dataset(f"{identifier},missing=drop").train) == [[-1, 1], [1, 1]]
    path.write_text("a,t\n1,0\n3,\n4,1\n")
    with pytest.raises(InputError, match="lacks 1 of 3 values in column 't'"):
        load_dataset(f"{identifier},missing=mean")


def test_whole_numbers_among_which_some_are_missing_are_classes(tmp_path: Path) -> None:
    path, test = tmp_path / "t.csv", tmp_path / "test.csv"
    test.write_text("a,t\n1,7\n2,5\n")
    for content, task, targets in (
        ("a,t\n1,5\n2,\n3,7\n4,5\n", "classes", [0, 1, 0]),
        ("a,t\n1,5.0\n2,\n3,7.0\n4,5\n", "regression", [[5], [7], [5]]),
    ):
        path.write_text(content)
        for held_out in (path, test):
            dataset = load_dataset(f"table:{path},target=t,missing=drop,test={held_out}")
            assert dataset.shape.task == task
            assert everything(dataset.train)[1].tolist() == targets


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            b"a,kind\n1,0\n",
            "target=kin",
            r"'kin', which is not there, did you mean 'kind'\?: the col",
        ),
        (b"a,t\n1,0\n2,1\n", "target=t,drop=q", "'drop' .* names the column 'q'"),
        (b"t\n1\n2\n", "target=t", "no columns but the targets"),
        (b"a,t\n", "target=t", "has no rows"),
        (b"", "target=t", "cannot be read"),
        (b"a,t\n1,0\n2,1,3,4\n", "target=t", "cannot be read"),
        (b"a,t\n\xff\xfe,1\n", "target=t", "not text in UTF-8"),
        (b"a,t, a\n1,0,2\n2,1,3\n", "target=t", "has the column 'a' twice: rename one"),
        (b"a,t\n1,5\n2,5\n", "target=t", "has the class '5' alone, accepted are at least two"),
        (b"a,t\ninf,0\n2,1\n", "target=t", "1 infinite numbers in column 'a'"),
        (
            b"a;t\n1,5;0\n2,5;1\n",
            "target=t",
            r"numbers such as \d,5 in column 'a': write ,decimal=c",
        ),
        (b"a,t\n1,0\n2,1\n", "target=t,separator=dot", "'separator' .* accepted is comma or"),
        (b"a,t\n1,0\n2,1\n", "drop=a", "lacks the option 'target'"),
        (
            b"n,t\n" + b"".join(b"name %d,%d\n" % (n, n % 2) for n in range(300)),
            "target=t",
            "different texts in 240 rows of column 'n', .* leave it out with ,drop=",
        ),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, content: bytes, options: str, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_dataset(f"table:{path},{options}")


def test_texts_of_the_training_part_are_texts_in_every_part(tmp_path: Path) -> None:
    train, test = tmp_path / "a.csv", tmp_path / "b.csv"
    train.write_text("kind,size,t\n12,1,01\nx,2,b\n007,3,01\n1.50,3,b\n")
    test.write_text("kind ,t,size\n12,01,1\n,01,2\n007,01,3\n1.50,01,3\n")
    dataset = load_dataset(f"table:{train},target=t,test={test},missing=mean")
    assert columns_of(dataset.test)[:4] == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0] * 4]
    assert everything(dataset.test)[1].tolist() == [0] * 4
    unnamed = f"table:{train},target=2,test={test},header=false"
    train.write_text("12,1,a\nx,2,b\n")
    test.write_text("12,1,a\n,2,b\n")
    assert columns_of(load_dataset(f"{unnamed},missing=mean").test)[:2] == [[1, 0], [0, 0]]


@pytest.mark.parametrize("values", [("yes", "no"), ("True", "3"), ("2024-01-01", "2024-01-02")])
def test_truth_values_are_truth_values_in_every_part(
    tmp_path: Path, values: tuple[str, str]
) -> None:
    train, test = tmp_path / "a.csv", tmp_path / "b.csv"
    train.write_text("a,t\nTrue,0\nFalse,1\n")
    test.write_text(f"a,t\n{values[0]},0\n{values[1]},1\n")
    with pytest.raises(InputError, match="other values in column 'a' where the training part has"):
        load_dataset(f"table:{train},target=t,test={test}")
    test.write_text("a,t\n1,0\n0,1\n")
    assert columns_of(load_dataset(f"table:{train},target=t,test={test}").test) == [[1, 0]]


def test_parts_must_have_the_same_columns(tmp_path: Path) -> None:
    train, test = tmp_path / "a.csv", tmp_path / "b.csv"
    train.write_text("a,b,t\n1,2,0\n3,4,1\n")
    for content, message in (
        ("a,t\n1,0\n", "lacks the columns b in a part other than the training"),
        ("a,b,t\n1,word,0\n", "texts in column 'b' where the training part has numbers"),
        ("a,b,t\n1,2024-01-01,0\n", "dates in column 'b' where the training part has numbers"),
        ("a,b\n1,2\n", "column 't', which is not there"),
        ("a,b,t\n1,2,7\n", "has the class '7' in a part other than"),
    ):
        test.write_text(content)
        with pytest.raises(InputError, match=message):
            load_dataset(f"table:{train},target=t,test={test}")
