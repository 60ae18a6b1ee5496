"""What the played recurrence makes of the cases that `train_cases` trains."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.played_recurrence import play
from tests.mpi.recurrence import fingerprint


def played_sha256(case: dict, deriving: tuple[type, ...] = ()) -> str:
    """Return the hash of the weights and buffers in the end.

    The model's module is found among the tests; its classes are those that a test imports.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = load_dataset(case["dataset"])
        chunks = chunks_of(case, len(dataset.train))
        layers = play(
            create_model(f"tests.mpi.{case['model']}", dataset.shape, case["seed"]),
            case["cuts"],
            [dataset.train.inputs(chunk) for chunk in chunks],
            [dataset.train.targets(chunk) for chunk in chunks],
            per_step=case["micro_batches"],
            lead=case.get("lead", 1),
            seed=case["seed"],
            weights=case.get("weights", "live"),
            optimizer=lambda parameters: optimizer_of(case, parameters),
            deriving=deriving,
        )
        return fingerprint(layers)
    finally:
        torch.set_num_threads(threads)


def chunks_of(case: dict, samples: int) -> list[torch.Tensor]:
    """The samples of every micro-batch: of `steps` steps, or of one epoch whose last is smaller."""
    generator = torch.Generator().manual_seed(case["seed"] * 1_000_003)
    order = torch.randperm(samples, generator=generator)
    batch = case["batch_size"]
    size = batch // case["micro_batches"]
    if case.get("last_batch") != "keep":
        return list(torch.split(order[: case["steps"] * batch], size))
    whole = samples - samples % batch
    smaller = -(-(samples - whole) // size)
    return [*torch.split(order[:whole], size), *torch.tensor_split(order[whole:], smaller)]


def optimizer_of(case: dict, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    given: dict[str, Any] = dict(case["optimizer"])
    kind = {"momentum": torch.optim.SGD, "adamw": torch.optim.AdamW}[given.pop("name")]
    return kind(parameters, **given)


def ends(stages: int, layers: int) -> list[int]:
    """Cuts after each of the first layers, so that each of these is a stage of its own."""
    cuts = [0, *range(1, stages), layers]
    assert all(a < b for a, b in pairwise(cuts)), f"{stages} stages of {layers} layers"
    return cuts
