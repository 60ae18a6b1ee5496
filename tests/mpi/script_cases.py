"""Run under mpirun: scripts that train with an engine, case after case of a JSON file.

    script_cases.py CASES OUT

Each case is one training: `net` are the options of the module, `cuts` the modules behind which it
is cut, `optimizer` and `rates` names, `options` those of a run, which script and command are given
alike, `steps` its length, and
* `against`: "loop" for a plain torch loop, "command" for what `hpc-lpm train` runs
* `no_grad`: call the engine where gradients are switched off
* `drains`: steps after which the training drains
* `go_on`: save at the one drain, and go on in another engine: from what "script" or "command" saved
* `saved`: a folder to save in after the first drain, or `loaded`: one to go on from
What came of it is what the two have computed, and which calls have changed the state of a process.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import script_models
import torch
from leave_no_trace import end_groups
from torch.nn import functional
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

import hpc_lpm
from hpc_lpm.data.dataset import epoch_order
from hpc_lpm.engine.job import Job, start_job
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training

SEED, BATCH = 3, 16
OF_WHOLE_BATCHES = ("deepspeed-1f1b", "torch-1f1b")
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01, weight_decay=0.01),
}
OF_COMMAND = {
    "momentum": {"name": "momentum", "lr": 0.1, "momentum": 0.9},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01},
}


class ScriptCase:
    """One case, on one rank."""

    def __init__(self, case: dict[str, Any], job: Job, folder: Path) -> None:
        self.case, self.job, self.folder = case, job, folder
        self.options = {"batch_size": BATCH, "micro_batches": 4, **case["options"]}
        self.steps, self.drains = case.get("steps", 8), case.get("drains", [])
        whole = self.options.get("strategy") in OF_WHOLE_BATCHES
        self.per_epoch = script_models.SAMPLES // BATCH + (not whole)
        self.plan: Path | None = None
        self.changed: list[str] = []

    def run(self) -> dict[str, Any]:
        case = self.case
        if (cuts := case.get("cuts")) is not None:
            self.plan = self.folder / f"plan-{self.job.rank}.json"
            module, _ = script_models.net(None, **case["net"])
            profile = hpc_lpm.profile(
                module, script_models.batch(range(4)), loss=functional.cross_entropy, repeats=1
            )
            hpc_lpm.plan(profile, stages=len(cuts) + 1, cuts=cuts).write(self.plan)
        if case["against"] == "loop":
            return {"differ": self.loop()}
        folder = self.folder / "command"
        command = self.command(folder)
        if (source := case.get("go_on")) == "script":
            folder = self.folder / "script"
            with self.engine() as engine:
                self.train(engine, self.drains[0])
                engine.save(folder)
        with self.engine(other_weights=source is not None) as engine:
            if source is not None:
                engine.load(folder)
                assert engine.step == self.drains[0]
            self.train(engine, self.steps)
            script = self.found(engine)
        return {"script": script, "command": command, "changed": self.changed}

    def loop(self) -> list[str]:
        """Return the names of the weights that a plain loop has computed otherwise."""
        module, _ = script_models.net(None, **self.case["net"])
        size = BATCH // self.options["micro_batches"]
        plain = script_models.train_plainly(
            module,
            islice(self.batches(0), self.steps),
            size,
            OPTIMIZERS[self.case["optimizer"]],
            self.scheduler,
        )
        with self.engine() as engine:
            if (loaded := self.case.get("loaded")) is not None:
                engine.load(loaded)
            if (saved := self.case.get("saved")) is not None:
                self.train(engine, self.drains[0])
                engine.save(saved)
            self.train(engine, self.steps)
            weights = engine.state_dict()
        if self.job.rank != 0:
            return list(weights)  # of rank 0 alone
        assert weights.keys() == plain.keys()
        return [name for name in plain if not torch.equal(plain[name], weights[name])]

    def engine(self, *, other_weights: bool = False) -> hpc_lpm.Engine:
        module, example = script_models.net(None, **self.case["net"])
        if other_weights:
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(1)
        with self.unchanged("initialize"):
            return hpc_lpm.initialize(
                module,
                self.plan,
                loss=functional.cross_entropy,
                optimizer=OPTIMIZERS[self.case["optimizer"]],
                seed=SEED,
                example=example if self.plan is None else None,
                receive_timeout_seconds=60,
                **self.options,
            )

    def train(self, engine: hpc_lpm.Engine, end: int) -> None:
        """Train until there were so many steps."""
        grad = torch.no_grad if self.case.get("no_grad") else nullcontext
        scheduler = self.scheduler(engine.optimizer)
        for _ in range(engine.step):
            scheduler.step()
        first = engine.step
        for step, (inputs, targets) in enumerate(self.batches(first), start=first + 1):
            if step > end:
                break
            with grad(), self.unchanged("train_batch"):
                engine.train_batch(inputs, targets)
            for tensor in (*inputs.values(), targets):
                tensor.zero_()  # as scripts do that fill the same memory again
            scheduler.step()
            if step % self.per_epoch == 0 or step in self.drains:
                with self.unchanged("drain"):
                    engine.drain()

    def found(self, engine: hpc_lpm.Engine) -> dict[str, Any]:
        engine.drain()
        test = [script_models.batch(range(script_models.TESTED), 1000)]
        with torch.no_grad(), self.unchanged("evaluate"):
            metrics = engine.evaluate(test, metric=["accuracy"])
        return {
            "weights": engine.weights_sha256(),
            "step": engine.step,
            "train_loss": engine.last_loss,
            "test_loss": metrics["loss"],
            "test_accuracy": metrics["accuracy"],
        }

    def command(self, out: Path) -> dict[str, Any] | None:
        more: dict[str, Any] = {}
        if self.case.get("rates") == "linear":
            more["learning_rate"] = {"schedule": "linear", "final_factor": 0.5}
        if self.case.get("go_on") == "command":
            # Of that step alone: a later checkpoint would take its place.
            more |= {"checkpoint_steps": self.drains[0], "checkpoint_epochs": 0}
        if self.plan is not None:
            more["plan"] = str(self.plan)
        options = [f",{name}={str(value).lower()}" for name, value in self.case["net"].items()]
        settings = checked_settings(
            model="script_models:net" + "".join(options),
            dataset="script_models:data",
            optimizer=OF_COMMAND[self.case["optimizer"]],
            seed=SEED,
            steps=self.steps,
            last_batch="drop" if self.options["strategy"] in OF_WHOLE_BATCHES else "keep",
            receive_timeout_seconds=60,
            drain_at=self.drains,
            **self.options,
            **more,
        )
        result = Training(settings, self.job).run(out, None)
        if result is None:
            return None
        return {
            "weights": result.weights_sha256,
            "step": len(result.step_seconds),
            "train_loss": result.train_loss[-1],
            "test_loss": result.evaluations[-1].loss,
            "test_accuracy": result.test_accuracy[-1],
        }

    def scheduler(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        falls = 0.5 if self.case.get("rates") == "linear" else 0.0
        return LambdaLR(optimizer, lambda step: 1.0 - falls * (step / self.steps))

    def batches(self, first: int) -> Iterator[tuple[script_models.Inputs, torch.Tensor]]:
        """Yield the batches from some step on, in the order of the command."""
        for step in range(first, 10**6):
            epoch, place = divmod(step, self.per_epoch)
            order = epoch_order(script_models.SAMPLES, SEED, epoch)
            yield script_models.batch(order[place * BATCH : (place + 1) * BATCH].tolist())

    @contextmanager
    def unchanged(self, call: str) -> Iterator[None]:
        before = state_of_process()
        yield
        if state_of_process() != before and call not in self.changed:
            self.changed.append(call)


def state_of_process() -> tuple[object, ...]:
    numbers = np.random.get_state()
    return (
        random.getstate(),
        numbers[1].tobytes(),
        numbers[2],
        torch.get_rng_state().numpy().tobytes(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )


def shuffled_orders(plan: Path | None, job: Job) -> dict[str, Any]:
    """Return the targets that a shuffling loader has yielded, with and without an engine."""

    def order(train: Callable[..., object]) -> list[list[int]]:
        torch.manual_seed(11)
        loader = DataLoader(script_models.Samples(0, 32), batch_size=BATCH, shuffle=True)
        found = []
        for _ in range(2):
            for inputs, targets in loader:
                found.append(targets.tolist())
                train(inputs, targets)
        return found

    module, _ = script_models.net(None, dropout=0.5)
    with hpc_lpm.initialize(
        module,
        plan,
        loss=functional.cross_entropy,
        optimizer=OPTIMIZERS["momentum"],
        strategy="fbp",
        batch_size=BATCH,
    ) as engine:
        trained = order(engine.train_batch)
    return {"alone": order(lambda *_: None), "trained": job.all_gather(trained)}


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text())
    job = start_job(parallel=True)
    outcomes = []
    for number, case in enumerate(cases):
        folder = Path(sys.argv[2]).parent / f"case-{number}"
        folder.mkdir(exist_ok=True)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(100 + job.rank)
        script = ScriptCase(case, job, folder)
        outcome = script.run()
        if case.get("shuffles"):
            outcome["orders"] = shuffled_orders(script.plan, job)
        outcomes.append(job.all_gather(outcome))
        end_groups(job)
    if job.rank == 0:
        Path(sys.argv[2]).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()
