"""Trainings of tests are evaluated on a few samples: all would take longer than the steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

import hpc_lpm.data.requests
from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.data.samples import Subset

TESTED = 11
"""How many samples are left of a test part: the last micro-batch of most sizes is a smaller one."""


@contextmanager
def evaluated_on_few(case: dict) -> Iterator[None]:
    """Shorten the test part of what is trained within, unless the case asks to `evaluate_all`."""
    if not case.pop("evaluate_all", False):
        hpc_lpm.data.requests.load_dataset = _load_shortened
    try:
        yield
    finally:
        hpc_lpm.data.requests.load_dataset = load_dataset


@cache
def _load_shortened(identifier: str, data_dir: Path | None = None) -> Dataset:
    dataset = load_dataset(identifier, data_dir)
    return replace(dataset, test=Subset(dataset.test, torch.arange(min(TESTED, len(dataset.test)))))
