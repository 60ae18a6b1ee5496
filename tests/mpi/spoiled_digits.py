"""Digits of which one is not a number: `spoiled_digits:make,sample=17`."""

import torch
from torch.utils.data import Dataset, TensorDataset

from hpc_lpm.data.dataset import Split
from hpc_lpm.data.registry import load_dataset

SAMPLES = 160


def make(_: object, sample: int = -1) -> tuple[Dataset, Dataset]:
    dataset = load_dataset("digits,size=8")
    trained, tested = of(dataset.train, SAMPLES), of(dataset.test, 11)
    if sample >= 0:
        trained.tensors[0][sample, 0, 3, 3] = float("nan")
    return trained, tested


def of(split: Split, count: int) -> TensorDataset:
    some = torch.arange(count)
    inputs, targets = split.inputs(some), split.targets(some)
    assert isinstance(inputs, torch.Tensor)
    assert isinstance(targets, torch.Tensor)
    return TensorDataset(inputs.clone(), targets.clone())
