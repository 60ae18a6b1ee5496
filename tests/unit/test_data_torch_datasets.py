"""Data sets of torch's protocol: what is made of them, and what is found out about them."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from hpc_lpm.data.own_dataset import own_dataset
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.data.samples import Draws
from hpc_lpm.data.torch_datasets import samples_of
from hpc_lpm.errors import InputError


class Drawing(Dataset):
    """Samples that draw from every generator there is."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[list[float], int]:
        return [random.random(), np.random.rand(), float(torch.rand(())), float(index)], index


class Ascending(IterableDataset):
    def __init__(self, length: int, promised: int | None = None) -> None:
        self.length = length
        self.promised = length if promised is None else promised
        self.passes = 0

    def __len__(self) -> int:
        return self.promised

    def __iter__(self) -> Iterator[tuple[float, int]]:
        self.passes += 1
        yield from ((float(n) + random.random(), n % 2) for n in range(self.length))


def test_what_a_sample_draws_depends_on_seed_epoch_and_index_alone() -> None:
    samples = samples_of(Drawing(), "it")
    wanted = torch.tensor([4, 1])
    alike = samples.inputs(wanted, Draws(3, 2))
    random.seed(99)
    samples.inputs(torch.tensor([0, 5]), Draws(3, 2))
    assert torch.equal(
        torch.stack([v.double() for v in alike]),
        torch.stack([v.double() for v in samples.inputs(wanted, Draws(3, 2))]),
    )
    alone = samples.inputs(torch.tensor([1]), Draws(3, 2))
    assert [float(v[0]) for v in alone] == [float(v[1]) for v in alike]
    for other in (Draws(3, 1), Draws(4, 2), None):
        assert float(samples.inputs(wanted, other)[0][0]) != float(alike[0][0])


def test_loading_leaves_the_generators_as_they_were() -> None:
    before = random.getstate(), torch.get_rng_state()
    samples_of(Drawing(), "it").inputs(torch.tensor([2]), Draws(0, 0))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_inputs_that_were_changed_in_place_come_as_they_were_when_asked_for_again() -> None:
    samples = samples_of(TensorDataset(torch.ones(4, 2), torch.zeros(4)), "it")
    several = torch.arange(4)
    samples.inputs(several).mul_(3)
    assert samples.inputs(several).tolist() == [[1, 1]] * 4


def test_an_iterable_is_run_through_once_an_epoch_and_again_from_the_start() -> None:
    source = Ascending(8)
    samples = samples_of(source, "it")
    assert samples.in_order
    first = [
        samples.targets(torch.tensor([n, n + 1]), Draws(0, 0)).tolist() for n in range(0, 8, 2)
    ]
    assert first == [[0, 1]] * 4
    assert source.passes == 1
    inputs = samples.inputs(torch.tensor([6, 7]), Draws(0, 0))
    assert source.passes == 1, "the micro-batch that was loaded last is kept"
    samples.inputs(torch.tensor([0, 1]), Draws(0, 0))
    again = samples.inputs(torch.tensor([6, 7]), Draws(0, 0))
    assert torch.equal(again, inputs)
    assert not torch.equal(samples.inputs(torch.tensor([6, 7]), Draws(0, 1)), inputs)


@pytest.mark.parametrize(
    ("targets", "task", "classes"),
    [
        ([0, 2, 1], "classes", 3),
        ([0.5, 1.0, 7.0], "regression", 1),
        ([[0.5, 1.0], [2.0, 0.0], [1.0, 1.0]], "regression", 2),
        ([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], "multi-label", 2),
    ],
)
def test_the_task_is_told_by_the_targets(targets: list[Any], task: str, classes: int) -> None:
    part = TensorDataset(torch.randn(3, 4), torch.tensor(targets))
    shape = own_dataset("mine", (part, part)).shape
    assert (shape.kind, shape.input_shape, shape.task, shape.classes) == (
        "image",
        (4,),
        task,
        classes,
    )


def test_text_has_a_vocabulary_and_either_the_next_token_or_a_class_as_target() -> None:
    tokens = torch.tensor([[1, 5, 2], [0, 3, 9]])
    following = own_dataset("mine", (TensorDataset(tokens, tokens),) * 2).shape
    assert (following.task, following.classes, following.vocabulary) == ("next-token", 10, 10)
    judged = own_dataset("mine", (TensorDataset(tokens, torch.tensor([1, 0])),) * 2).shape
    assert (judged.task, judged.classes, judged.vocabulary) == ("classes", 2, 10)


class Telling(TensorDataset):
    """Samples with an attribute that tells of their targets, as those of torchvision have."""

    def __init__(self, targets: list[int], told: list[Any]) -> None:
        super().__init__(torch.randn(len(targets), 4), torch.tensor(targets))
        self.targets = told


def test_what_only_another_part_has_is_counted_too() -> None:
    tokens, others = torch.tensor([[1, 5, 2], [0, 3, 4]]), torch.tensor([[0, 8, 1]])
    parts = TensorDataset(tokens, tokens), TensorDataset(others, others)
    assert own_dataset("mine", parts).shape.vocabulary == 9
    inputs = torch.randn(2, 4)
    first, second = (TensorDataset(inputs, torch.tensor(each)) for each in ([0, 1], [0, 3]))
    assert own_dataset("mine", (first, second)).shape.classes == 4
    told = Telling([0, 1], [0, 1]), Telling([0, 5], [0, 5])
    assert own_dataset("mine", told).shape.classes == 6


@pytest.mark.parametrize(
    "told",
    [["one.xml", "two.xml", "three.xml"], [{"box": 1}] * 3, [0.5, float("nan"), 1.0], [-1, 0, 1]],
)
def test_an_attribute_that_tells_no_classes_is_left_alone(told: list[Any]) -> None:
    part = Telling([0, 4, 1], told)
    assert own_dataset("mine", (part, part)).shape.classes == 5


def test_classes_below_zero_are_refused_whichever_sample_has_them() -> None:
    part = TensorDataset(torch.randn(3, 4), torch.tensor([1, -1, 1]))
    with pytest.raises(InputError, match=r"data set 'mine' has the class -1, accepted are whole"):
        own_dataset("mine", (part, part))


def test_inputs_of_any_kind_come_with_an_example_and_three_parts_have_a_validation_part() -> None:
    part = [({"a": torch.ones(2), "b": n}, {"box": torch.zeros(4)}) for n in range(5)]
    dataset = own_dataset("mine", (part, part[:2], part[:1]))
    assert (dataset.shape.kind, dataset.shape.task) == ("other", "own")
    assert dataset.shape.example["b"].tolist() == [0, 1, 2]
    assert {name: len(samples) for name, samples in dataset.parts.items()} == {
        "training": 5,
        "validation": 2,
        "test": 1,
    }


class Unsized:
    def __iter__(self) -> Iterator[int]:
        return iter(())


class Broken(Drawing):
    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise OSError("disk on fire")
        return torch.zeros(index + 1), 0


@pytest.mark.parametrize(
    ("made", "indices", "sentence"),
    [
        (3, [], "data set 'mine' returned builtins.int, accepted are .train, test., a dictionary"),
        ({"train": [1], "test": [1], "tset": 1}, [], "the key 'tset', did you mean 'test'"),
        ((Unsized(), [1]), [], "the training part .* is Unsized, which has no length"),
        (([(torch.ones(2), 0)], []), [], "the test part of data set 'mine' is empty"),
        (([(torch.ones(2), 0)], None), [], "the test part of data set 'mine' is NoneType"),
        ((Broken(), [1]), [3], "sample 3 of the training part .*OSError: disk on fire"),
        ((Broken(), [1]), [0, 1], "samples 0 to 1 cannot be made one micro-batch.*collate"),
        (([torch.ones(2)] * 4, [1]), [0, 1, 2], "micro-batches of type Tensor, accepted are pairs"),
        ((Ascending(3, 5), [1]), [4], "ended after 3 samples, its length says 5"),
        ({"train": [1], "test": [1], "collate": 3}, [], "has the collate int, accepted is a func"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused_in_a_sentence(
    made: object, indices: list[int], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        if indices and isinstance(made, tuple):
            name = "the training part of data set 'mine'"
            samples_of(made[0], name).inputs(torch.tensor(indices))
        own_dataset("mine", made)


def test_an_own_function_gives_the_same_samples_on_every_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import random, numpy\nfrom torch.utils.data import TensorDataset\nimport torch\n"
    source += (
        "def mine(_):\n    n = [random.random(), numpy.random.rand(), float(torch.rand(()))]\n"
    )
    source += "    part = TensorDataset(torch.tensor([n, n]), torch.tensor([0, 1]))\n"
    source += "    return part, part\n"
    (tmp_path / "drawn_by_a_function.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    first, second = (load_dataset("drawn_by_a_function:mine") for _ in range(2))
    assert torch.equal(
        first.train.inputs(torch.tensor([0])), second.train.inputs(torch.tensor([0]))
    )
