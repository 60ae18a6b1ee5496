"""Run under mpirun: makes the mistakes that people make in scripts, one after the other.

    script_mistakes.py OUT MISTAKE ...

OUT gets, for each mistake, how it ended on each rank: {kind, said, seconds}. A rank that has ended
without an error waits for the others, as one does that still holds its last batches.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from leave_no_trace import end_groups
from mpi4py import MPI
from torch import Tensor, nn
from torch.nn import functional

import hpc_lpm
import hpc_lpm.engine.pipeline.engine  # which takes long to import
from hpc_lpm.engine.job import MpiJob

LIMIT_SECONDS, USUAL_LIMIT_SECONDS = 3, 60
BATCH, MICRO_BATCHES, WIDTH = 8, 2, 4
WORLD = MPI.COMM_WORLD
RANK = WORLD.rank


def module(width: int = 6, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(WIDTH, width), nn.Tanh(), nn.Linear(width, width), nn.Linear(width, 3)
    )


def batch(samples: int = BATCH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, WIDTH, generator=generator), torch.arange(samples) % 3


def batches(count: int, samples: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(count):
        yield batch(samples)


def plan(stages: int = 2, **more: Any) -> hpc_lpm.Plan:
    profile = hpc_lpm.profile(
        module(**more), batch(BATCH // MICRO_BATCHES), loss=functional.cross_entropy, repeats=1
    )
    cuts = [2, 3, 1][: stages - 1]
    return hpc_lpm.plan(profile, stages=stages, cuts=sorted(cuts), micro_batches=MICRO_BATCHES)


def engine(**more: Any) -> hpc_lpm.Engine:
    given: dict[str, Any] = {
        "model": module(),
        "loss": functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "receive_timeout_seconds": LIMIT_SECONDS,
        **more,
    }
    if "plan" not in given:
        given["plan"] = plan()
    return hpc_lpm.initialize(given.pop("model"), given.pop("plan"), **given)


def plan_of_another_model() -> None:
    engine(plan=plan(width=5))


def plan_for_other_ranks() -> None:
    engine(plan=plan(stages=3))


def other_architecture() -> None:
    known = plan()
    engine(model=module(6 + RANK), plan=known)


def other_weights() -> None:
    known = plan()
    engine(model=module(seed=RANK), plan=known)


def other_seed() -> None:
    engine(seed=RANK)


def unknown_option() -> None:
    engine(micro_batch=2)


def recipe_by_optimizer() -> None:
    engine(recipe="auto")


def optimizer_of_other_parameters() -> None:
    made = module()
    engine(model=made, optimizer=lambda parameters: torch.optim.SGD(made.parameters(), lr=0.1))


def optimizer_on_one_rank() -> None:
    def broken(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=-1.0 if RANK else 0.1)

    engine(optimizer=broken)


def loss_of_each_sample() -> None:
    given = engine(
        loss=lambda outputs, targets: functional.cross_entropy(outputs, targets, reduction="none")
    )
    given.train_batch(*batch())


def too_many_samples() -> None:
    engine().train_batch(*batch(BATCH + 1))


def after_close() -> None:
    given = engine()
    given.train_batch(*batch())
    given.close()
    given.train_batch(*batch())


def evaluate_other_numbers() -> None:
    given = engine()
    given.train_batch(*batch())
    given.evaluate(batches(1 + RANK))


def evaluate_nothing() -> None:
    engine().evaluate([])


def fewer_batches(strategy: str, rank: int) -> Callable[[], None]:
    def make() -> None:
        given = engine(strategy=strategy)
        for inputs, targets in batches(4 if rank == RANK else 6):
            given.train_batch(inputs, targets)
        given.drain()

    return make


def train_batch_left_out() -> None:
    given = engine()
    for number, (inputs, targets) in enumerate(batches(5)):
        if number != 2 or RANK != 1:
            given.train_batch(inputs, targets)
    given.drain()


def other_sizes(strategy: str, rank: int, samples: int) -> Callable[[], None]:
    def make() -> None:
        given = engine(strategy=strategy)
        for number in range(4):
            given.train_batch(*batch(samples if number == 2 and rank == RANK else BATCH))
        given.drain()

    return make


def other_calls() -> None:
    given = engine()
    given.train_batch(*batch())
    if RANK:
        given.evaluate(batches(1))
    else:
        given.save("nowhere")


def loss_is_nan() -> None:
    given = engine()
    for number, (inputs, targets) in enumerate(batches(5)):
        given.train_batch(inputs * float("nan") if number == 3 else inputs, targets)
    given.drain()


MISTAKES: dict[str, Callable[[], None]] = {
    "plan of another model": plan_of_another_model,
    "plan for other ranks": plan_for_other_ranks,
    "other architecture": other_architecture,
    "other weights": other_weights,
    "other seed": other_seed,
    "unknown option": unknown_option,
    "recipe by optimizer": recipe_by_optimizer,
    "optimizer of others": optimizer_of_other_parameters,
    "optimizer on one rank": optimizer_on_one_rank,
    "loss of each sample": loss_of_each_sample,
    "too many samples": too_many_samples,
    "after close": after_close,
    "evaluate other numbers": evaluate_other_numbers,
    "evaluate nothing": evaluate_nothing,
    "fewer batches, fbp, 0": fewer_batches("fbp", 0),
    "fewer batches, fbp, 1": fewer_batches("fbp", 1),
    "fewer batches, gpipe, 1": fewer_batches("gpipe", 1),
    "left out": train_batch_left_out,
    "fewer micro-batches, fbp, 0": other_sizes("fbp", 0, 4),
    "fewer micro-batches, gpipe, 1": other_sizes("gpipe", 1, 4),
    "smaller micro-batches, fbp, 1": other_sizes("fbp", 1, 6),
    "other calls": other_calls,
    "loss is nan": loss_is_nan,
}


def uncaught(how: str) -> None:
    """End a script in the middle of its loop on rank 1; see test_script_mistakes.py."""
    given = engine(receive_timeout_seconds=USUAL_LIMIT_SECONDS if how != "drain" else 10)
    sys.stdout.write("training\n")
    sys.stdout.flush()
    for number, (inputs, targets) in enumerate(batches(10**9)):
        given.train_batch(inputs, targets)
        if number == 3 and RANK == 1:
            if how == "raise":
                raise KeyError("a mistake of mine")
            if how == "interrupt":
                # Shells start background jobs, such as tests, with this signal ignored.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.kill(os.getpid(), signal.SIGINT)
            if how == "drain":
                given.drain()


def outcome(mistake: Callable[[], None]) -> dict[str, Any]:
    found = {"kind": "none", "said": ""}
    start = time.monotonic()
    try:
        mistake()
    except Exception as error:
        found = {"kind": type(error).__name__, "said": str(error)}
    return {**found, "seconds": time.monotonic() - start}


def main() -> None:
    if sys.argv[1] == "uncaught":
        uncaught(sys.argv[2])
        return
    # What is imported meanwhile is no part of a mistake's time, nor of a rank's patience.
    with engine(receive_timeout_seconds=USUAL_LIMIT_SECONDS) as faultless:
        faultless.train_batch(*batch())
    del faultless
    end_groups(MpiJob(USUAL_LIMIT_SECONDS))
    outcomes = {}
    for name in sys.argv[2:]:
        # Ranks come back at different times; none waits longer than its limit for the others.
        outcomes[name] = WORLD.allgather(outcome(MISTAKES[name]))
        end_groups(MpiJob(USUAL_LIMIT_SECONDS))
    if RANK == 0:
        Path(sys.argv[1]).write_text(json.dumps(outcomes))


main()
