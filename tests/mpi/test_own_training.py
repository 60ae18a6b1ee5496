"""A user's data, loss and metrics train and measure one thing, whatever the cut and the engine."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.models.registry import create_model
from tests.mpi import own_training
from tests.mpi.ranks import mpirun
from tests.mpi.test_exactness import train_cases

pytestmark = pytest.mark.mpi

MODEL = "own_training:joined"
SEED, BATCH, PARTS, EPOCHS, RATE = 5, 16, 4, 2, 0.1


def case(strategy: str, cuts: list[int] | None = None, **more: object) -> dict:
    return {
        "model": MODEL,
        "dataset": "own_training:pairs",
        "strategy": strategy,
        "batch_size": BATCH,
        "micro_batches": PARTS,
        "epochs": EPOCHS,
        "seed": SEED,
        "optimizer": {"name": "sgd", "lr": RATE},
        "loss": "own_training:weighted,weight=3",
        "metric": ["own_training:positive", "top5_accuracy"],
        "validation": 0.1,
        "evaluate_all": True,
        **({"cuts": cuts} if cuts else {}),
        **more,
    }


NOISY = {"dataset": "own_training:pairs,noise=0.3", "last_batch": "keep"}
STREAM = {
    "model": "own_training:regression",
    "dataset": "own_training:stream",
    "loss": "huber,delta=0.5",
    "metric": ["rmse"],
}


def trained(ranks: int, cases: list[dict], folder: Path) -> list[dict]:
    folder.mkdir()
    return train_cases(ranks, cases, folder)


def computed(outcome: dict) -> dict:
    """What a run has computed, without the seconds that it took."""
    of_evaluations = [
        {name: value for name, value in each.items() if not name.endswith("_seconds")}
        for each in outcome["evaluations"]
    ]
    for each in of_evaluations:
        del each["seconds"]
    return {
        "evaluations": of_evaluations,
        "train_loss": outcome["train_loss"],
        "weights": outcome["weights_sha256"],
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    cases = [case("sequential"), case("sequential", **NOISY), case("sequential", **STREAM)]
    return trained(1, cases, tmp_path_factory.mktemp("alone") / "one rank")


def plain_loop() -> tuple[list[nn.Module], list[int]]:
    """Train with nothing but torch; return the layers and the numbers of the held-out samples."""
    model = create_model("tests.mpi.own_training:joined", DataShape("other", (), 2), SEED)
    layers = [build() for build in own_training.joined(None)]  # type: ignore[operator]
    for index, layer in enumerate(layers):
        layer.load_state_dict(model.build_layer(index, SEED).state_dict())
    chain = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(chain.parameters(), lr=RATE)
    drawn = torch.randperm(120, generator=torch.Generator().manual_seed(SEED)).tolist()
    held, kept = sorted(drawn[:12]), sorted(drawn[12:])
    for epoch in range(EPOCHS):
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + epoch)
        order = torch.randperm(len(kept), generator=generator).tolist()
        for first in range(0, len(kept) - BATCH + 1, BATCH):
            for part in range(PARTS):
                start = first + part * BATCH // PARTS
                numbers = [kept[i] for i in order[start : start + BATCH // PARTS]]
                outputs, labels = passed(chain, numbers)
                (own_training.weighted(outputs, labels, 3.0) / PARTS).backward()
            optimizer.step()
            optimizer.zero_grad()
    return layers, held


def passed(chain: nn.Sequential, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    samples = [own_training.sample(number) for number in numbers]
    values, more, labels = zip(*samples, strict=True)
    inputs = {"values": torch.stack(values), "more": torch.stack(more)}
    return chain(inputs), torch.tensor(labels)


@pytest.mark.usefixtures("one_thread")
def test_an_own_run_is_a_plain_loop_and_its_evaluations_are_those_of_the_held_out_samples(
    alone: list[dict],
) -> None:
    layers, held = plain_loop()
    chain = nn.Sequential(*layers)
    with torch.no_grad():
        for part, numbers in (("validation", held), ("test", list(range(1000, 1030)))):
            outputs, labels = passed(chain, numbers)
            found = next(
                each
                for each in alone[0]["evaluations"]
                if each["part"] == part and each["epoch"] == EPOCHS
            )
            losses = [
                float(own_training.weighted(outputs[i : i + 4], labels[i : i + 4], 3.0))
                * len(numbers[i : i + 4])
                for i in range(0, len(numbers), 4)
            ]
            assert math.isclose(found["loss"], sum(losses) / len(numbers), rel_tol=1e-5)
            predicted = outputs.argmax(dim=-1)
            right = int((predicted == labels).sum())
            assert found["metrics"]["accuracy"] == right / len(numbers)
            assert found["metrics"]["positive"] == int((predicted == 1).sum()) / len(numbers)


@pytest.mark.parametrize("stages", [2, 3])
def test_own_data_losses_and_metrics_do_not_depend_on_the_cut(
    stages: int, alone: list[dict], tmp_path: Path
) -> None:
    cuts = [0, 1, 4] if stages == 2 else [0, 1, 3, 4]
    for settings, expected in zip(({}, NOISY, STREAM), alone, strict=True):
        strategies = ["gpipe", "1f1b"]
        # DeepSpeed takes whole batches alone.
        strategies += ["deepspeed-1f1b"] if stages == 2 and settings is not NOISY else []
        cases = [case(strategy, cuts, **settings) for strategy in strategies]
        outcomes = trained(stages, cases, tmp_path / str(len(list(tmp_path.iterdir()))))
        for outcome in outcomes:
            found, wanted = computed(outcome), computed(expected)
            assert found == wanted, (outcome["strategy"], settings)


def test_processes_that_load_ahead_change_nothing(alone: list[dict], tmp_path: Path) -> None:
    [sequential] = trained(1, [case("sequential", loader_workers=2, **NOISY)], tmp_path / "one")
    cases = [
        case("fbp", [0, 1, 4], loader_workers=workers, **NOISY, steps=9, epochs=None)
        for workers in (0, 1)
    ]
    in_turn, ahead = trained(2, [*cases], tmp_path / "two")
    assert computed(sequential) == computed(alone[1])
    assert computed(ahead) == computed(in_turn)


def test_the_death_of_a_process_that_loads_ahead_ends_all_ranks_by_a_sentence(
    tmp_path: Path,
) -> None:
    own = {"model": "joined", "dataset": "doomed", "loss": "weighted"}
    named = [f"--{option}=tests.mpi.own_training:{name}" for option, name in own.items()]
    more = ["--strategy", "fbp", "--loader-workers", "1", "--out", str(tmp_path / "run")]
    done = mpirun(2, "-m", "hpc_lpm", "train", *named, *more)
    assert done.returncode == 1, done.stderr
    assert "a process of --loader-workers has died" in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_ranks_without_a_plan_make_one_and_go_on_with_it(tmp_path: Path) -> None:
    out = tmp_path / "a run"
    command = ["-m", "hpc_lpm", "train", "--model", "mlp,layers=5", "--dataset", "digits"]
    command += ["--strategy", "fbp", "--steps", "3", "--out", str(out)]
    done = mpirun(2, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "these ranks have profiled the model and cut it" in done.stdout
    plan = json.loads((out / "plan.json").read_text())
    result = json.loads((out / "result.json").read_text())
    assert result["cuts"] == [0, plan["stages"][0]["stop"], 5]
    written = (out / "plan.json").stat().st_mtime_ns
    again = mpirun(2, *command, "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (out / "plan.json").stat().st_mtime_ns == written
    alone = mpirun(1, *command)
    assert alone.returncode == 2
    assert "was started on one rank without --plan" in alone.stdout + alone.stderr
    many = mpirun(3, *command[:4], "mlp,layers=2", *command[5:])
    assert many.returncode == 2
    assert "started on 3 ranks without --plan, but model mlp,layers=2 has 2 layers" in (
        many.stdout + many.stderr
    )
