"""Made-up samples: their content follows from the options, and a model can learn them."""

import pytest
import torch

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.registry import dataset_shape, load_dataset
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import create_model

IDENTIFIER = "synthetic,samples=200,features=12,classes=4"


def contents(dataset: Dataset) -> list[torch.Tensor]:
    return [
        read(torch.arange(len(split)))
        for split in (dataset.train, dataset.test)
        for read in (split.inputs, split.targets)
    ]


def test_content_depends_on_the_options_alone() -> None:
    first = contents(load_dataset(IDENTIFIER))
    torch.manual_seed(55)
    assert all(map(torch.equal, first, contents(load_dataset(IDENTIFIER))))
    other = contents(load_dataset("synthetic,samples=200,features=12,classes=5"))
    assert not torch.equal(first[0], other[0])


def test_options_set_samples_features_and_classes() -> None:
    dataset = load_dataset(IDENTIFIER)
    assert len(dataset.train) + len(dataset.test) == 200
    assert dataset.shape == dataset_shape(IDENTIFIER)
    assert (dataset.shape.input_shape, dataset.shape.classes) == ((1, 1, 12), 4)
    inputs, targets, _, test_targets = contents(dataset)
    assert inputs.shape[1:] == (1, 1, 12)
    assert set(targets.tolist()) == set(test_targets.tolist()) == {0, 1, 2, 3}


def test_the_smallest_set_has_finite_samples_in_both_parts() -> None:
    parts = contents(load_dataset("synthetic,samples=2,features=1,classes=2"))
    assert all(len(part) == 1 and part.isfinite().all() for part in parts)


def test_a_perceptron_learns_the_classes() -> None:
    dataset = load_dataset(IDENTIFIER)
    inputs, targets, test_inputs, test_targets = contents(dataset)
    model = create_model("mlp,width=16,layers=2", dataset.shape)
    network = torch.nn.Sequential(*(model.build_layer(i, 0) for i in range(2)))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(network(inputs), targets).backward()
        optimizer.step()
    assert int(model.correct(network(test_inputs), test_targets)) > 0.8 * len(test_targets)


@pytest.mark.parametrize(("option", "least"), [("samples", 2), ("features", 1), ("classes", 2)])
def test_too_small_options_are_explained(option: str, least: int) -> None:
    message = f"option '{option}' of synthetic is 0, accepted are whole numbers from {least}"
    for ask in (load_dataset, dataset_shape):
        with pytest.raises(InputError, match=message):
            ask(f"synthetic,{option}=0")
