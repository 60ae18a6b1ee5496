"""A run that rewinds ends in the weights of one which never saw the batches that it left out."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.recurrence import Recurrence, fingerprint
from tests.mpi.spoiled_digits import SAMPLES
from tests.mpi.test_exactness import MLP, cuts_of, rule_of
from tests.mpi.test_resume import ADAMW, MICRO_BATCH, once, run_cases, settings

pytestmark = pytest.mark.mpi

PER_STEP, EVERY, FAULT, SEED = 2, 4, 6, 3
LEFT_OUT = range(EVERY, FAULT + 1)
"""From the last checkpoint before the fault to the fault."""


class LeavingOut(Recurrence):
    """Makes no update at some steps: the weights behind them are those before."""

    def step_gradients(self, k: int, g: int) -> list[Tensor | None]:
        if g in LEFT_OUT:
            return [torch.tensor(float("nan"))]
        return super().step_gradients(k, g)

    def finish(self) -> list[nn.Module]:
        layers = super().finish()
        # Passes of steps that are left out have run since with the weights of those steps.
        for k in range(1, self.K + 1):
            for p, w in zip(self.parameters(k), self.W(k, self.updates), strict=True):
                p.data = w
        return layers


def order() -> Tensor:
    generator = torch.Generator().manual_seed(SEED * 1_000_003)
    return torch.randperm(SAMPLES, generator=generator)


def run(strategy: str, **more: object) -> dict:
    spoiled = int(order()[FAULT * PER_STEP * MICRO_BATCH + MICRO_BATCH + 1])
    return settings(
        *(MLP, strategy, 2, PER_STEP),
        **{"dataset": f"spoiled_digits:make,sample={spoiled}"},
        **{"checkpoint_steps": EVERY, "non_finite": "rewind", "seed": SEED, **more},
    )


def reference(case: dict) -> str:
    """The weights in the end by the recurrence, of a single stage where nothing lags."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = load_dataset("tests.mpi.spoiled_digits:make")
        size = MICRO_BATCH
        chunks = torch.split(order()[: case["steps"] * PER_STEP * size], size)
        lags = case["strategy"] == "fbp"
        drains = [EVERY, FAULT + 1, 2 * EVERY, 3 * EVERY]

        def optimizer(parameters: list) -> torch.optim.Optimizer:
            if case.get("optimizer") == ADAMW:
                return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.0)
            return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

        recurrence = LeavingOut(
            create_model(MLP, dataset.shape),
            case["cuts"] if lags else cuts_of(MLP, 1),
            [dataset.train.inputs(chunk) for chunk in chunks],
            [dataset.train.targets(chunk) for chunk in chunks],
            **{"per_step": PER_STEP, "lead": case.get("lead", 1), "seed": SEED},
            weights=case.get("weights", "live"),
            optimizer=optimizer,
            prediction=rule_of(case),
            drains=drains if lags else (),
            skip=True,
        )
        return fingerprint(recurrence.finish())
    finally:
        torch.set_num_threads(threads)


def test_what_follows_a_rewind_is_what_the_equations_give_without_the_batches_left_out(
    tmp_path: Path,
) -> None:
    runs = [
        run("fbp", weights="replay"),
        run("fbp", weights="stash", optimizer=ADAMW),
        run("fbp", weights="live", prediction=True, lead=2),
        run("1f1b"),
        run("ddp"),
        run("fsdp"),
    ]
    if importlib.util.find_spec("horovod"):
        runs.append(run("horovod"))
    cases = [{**each, "folder": str(tmp_path / str(n))} for n, each in enumerate(runs)]
    stopped = {**run("1f1b"), "folder": str(tmp_path / "stopped")}
    cases.append({**stopped, "interrupt": once(1, 10)})
    cases.append({**stopped, "resume": True})
    *outcomes, interrupted, resumed = run_cases(2, cases, tmp_path)
    synchronous = reference(run("1f1b"))
    for case, outcome in zip(runs, outcomes, strict=True):
        assert outcome["rewinds"] == [{"checkpoint_step": EVERY, "step": FAULT}]
        assert outcome["drains"] == [EVERY, 2 * EVERY, 3 * EVERY]
        losses = outcome["train_loss"]
        assert [step for step, loss in enumerate(losses) if loss is None] == [FAULT]
        assert len(losses) == len(outcome["step_seconds"]) == case["steps"]
        expected = reference(case) if case["strategy"] == "fbp" else synchronous
        assert outcome["weights_sha256"] == expected, case["strategy"]
    assert "after step" in interrupted["stopped"]
    assert resumed["rewinds"] == outcomes[3]["rewinds"]
    assert resumed["weights_sha256"] == outcomes[3]["weights_sha256"]
    assert resumed["train_loss"] == outcomes[3]["train_loss"]
