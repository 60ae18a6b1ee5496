"""Data sets with a deterministic split and order."""

from hpc_lpm.data.dataset import Dataset, DataShape, Split, epoch_order
from hpc_lpm.data.registry import DATASETS, dataset_shape, load_dataset

__all__ = [
    "DATASETS",
    "DataShape",
    "Dataset",
    "Split",
    "dataset_shape",
    "epoch_order",
    "load_dataset",
]
