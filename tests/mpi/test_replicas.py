"""Several replicas of every stage, bit for bit, on real ranks."""

import json
import math
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.ranks import mpirun, run_in_ranks
from tests.mpi.recurrence import fingerprint
from tests.mpi.replicated_recurrence import ReplicatedRecurrence
from tests.mpi.test_bad_input import check_helpful, sentences, write_plan
from tests.mpi.test_exactness import DATASETS, GPT, MLP, RESNET, cuts_of

pytestmark = pytest.mark.mpi

MICRO_BATCH = 3
MODELS = (MLP, RESNET, GPT)


def case(
    model: str,
    strategy: str,
    shape: tuple[int, int],
    per_step: int,
    steps: int | None,
    **more: object,
) -> dict:
    """A run on shape = (stages, replicas)."""
    stages, replicas = shape
    return {
        "model": model,
        "dataset": DATASETS[model],
        "strategy": strategy,
        "batch_size": MICRO_BATCH * per_step * replicas,
        "micro_batches": per_step,
        "steps": steps,
        "seed": 5,
        **({"cuts": cuts_of(model, stages)} if strategy != "sequential" else {}),
        **({"weights": "replay"} if strategy == "fbp" else {}),
        **more,
    }


def train_cases(ranks: int, cases: list[dict], folder: Path) -> list[tuple[dict, list[dict]]]:
    """Return for each case its result and every rank's layers as state dictionaries."""
    (folder / "cases.json").write_text(json.dumps(cases))
    paths = (str(folder / "cases.json"), str(folder / "out.json"))
    done = run_in_ranks(ranks, "replica_cases.py", *paths)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads((folder / "out.json").read_text())
    weights = torch.load(folder / "out.pt")
    return list(zip(outcomes, weights, strict=True))


def reference(case: dict, replicas: int) -> ReplicatedRecurrence:
    dataset = load_dataset(case["dataset"])
    model = create_model(case["model"], dataset.shape)
    generator = torch.Generator().manual_seed(case["seed"] * 1_000_003)
    order = torch.randperm(len(dataset.train), generator=generator)
    chunks = torch.split(order[: case["batch_size"] * case["steps"]], MICRO_BATCH)
    adamw = case.get("optimizer", {}).get("name") == "adamw"
    return ReplicatedRecurrence(
        model,
        case["cuts"],
        [dataset.train.inputs(chunk) for chunk in chunks],
        [dataset.train.targets(chunk) for chunk in chunks],
        replicas=replicas,
        flushes=case["strategy"] != "fbp",
        per_step=case["micro_batches"],
        lead=case.get("lead", 1),
        seed=case["seed"],
        weights=case.get("weights", "live"),
        optimizer=lambda p: (
            torch.optim.AdamW(p, lr=0.01, weight_decay=0.0)
            if adamw
            else torch.optim.SGD(p, lr=0.1, momentum=0.9)
        ),
    )


def finished(case: dict, replicas: int) -> list[torch.nn.Module]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return reference(case, replicas).finish()
    finally:
        torch.set_num_threads(threads)


def check_replicas_agree(of_ranks: list[dict], replicas: int) -> None:
    for first in range(0, len(of_ranks), replicas):
        for other in range(first + 1, first + replicas):
            assert of_ranks[other].keys() == of_ranks[first].keys()
            for index, state in of_ranks[first].items():
                for name, tensor in state.items():
                    assert torch.equal(tensor, of_ranks[other][index][name]), (other, index, name)


@pytest.mark.parametrize("shape", [(1, 2), (2, 2)])
def test_flushing_schedules_average_the_gradients_of_replicas(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    stages, replicas = shape
    cases = [
        case(model, strategy, shape, 3, 3)
        for model in MODELS
        for strategy in ("1f1b", "gpipe", "naive", "deepspeed-1f1b")
    ]
    expected = {c["model"]: fingerprint(finished(c, replicas)) for c in cases[::4]}
    trained = train_cases(stages * replicas, [*map(dict, cases)], tmp_path)
    for outcome, of_ranks in trained:
        assert outcome["weights_sha256"] == expected[outcome["model"]], outcome["settings"]
        check_replicas_agree(of_ranks, replicas)
        same_model = next(o for o, _ in trained if o["model"] == outcome["model"])
        assert outcome["train_loss"] == pytest.approx(same_model["train_loss"], rel=1e-6)
        assert outcome["test_accuracy"] == same_model["test_accuracy"]
        assert (outcome["ranks"], outcome["replicas"]) == (stages * replicas, replicas)
        assert len(outcome["bytes_sent"]) == len(outcome["idle_share"]) == stages * replicas


def test_clipping_takes_the_norm_of_averaged_gradients_over_all_stages(tmp_path: Path) -> None:
    clipped = {"clip_norm": 0.05}
    uncut, free = train_cases(
        *(2, [case(MLP, "1f1b", (1, 2), 3, 3, **clipped), case(MLP, "1f1b", (1, 2), 3, 3)]),
        tmp_path,
    )
    strategies = ("1f1b", "naive", "deepspeed-1f1b")
    cut = [case(MLP, strategy, (2, 2), 3, 3, **clipped) for strategy in strategies]
    for outcome, of_ranks in train_cases(4, cut, tmp_path):
        assert outcome["weights_sha256"] == uncut[0]["weights_sha256"], outcome["strategy"]
        check_replicas_agree(of_ranks, 2)
    assert uncut[0]["weights_sha256"] != free[0]["weights_sha256"]


def test_fbp_on_replicas_is_the_recurrence_whatever_the_timing(tmp_path: Path) -> None:
    adamw = {"name": "adamw", "lr": 0.01}
    momentum = {"name": "momentum", "lr": 0.1, "momentum": 0.9}
    cases = [
        case(model, "fbp", (2, 2), per_step, 4, lead=lead, weights=weights, optimizer=optimizer)
        for model in MODELS
        for weights, per_step, lead, optimizer in (
            ("replay", 1, 1, momentum),
            ("replay", 3, 2, adamw),
            ("live", 2, 1, momentum),
            ("stash", 2, 1, momentum),
            ("stash", 1, 2, adamw),
        )
    ]
    asleep = [{**c, "sleep": True} for c in cases]
    trained = train_cases(4, [*map(dict, cases), *map(dict, asleep)], tmp_path)
    for c, calm, disturbed in zip(cases, trained, trained[len(cases) :], strict=False):
        expected = fingerprint(finished(c, 2))
        for outcome, of_ranks in (calm, disturbed):
            assert outcome["weights_sha256"] == expected, outcome["settings"]
            check_replicas_agree(of_ranks, 2)
    # Policies differ, or the comparison would show nothing.
    assert len({calm["weights_sha256"] for calm, _ in trained[: len(cases)]}) == len(cases)


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_of_one_stage_are_sequential_training_up_to_the_order_of_sums(
    replicas: int, tmp_path: Path
) -> None:
    shape = (1, replicas)
    cases = [
        case(MLP, "1f1b", shape, 2, 4),
        case(GPT, "1f1b", shape, 2, 3),
        case(MLP, "naive", shape, 3, None, epochs=2, batch_size=120 * replicas),
        # Fewer micro-batches of test data than replicas.
        case(MLP, "1f1b", shape, 1, 1, batch_size=300 * replicas),
        case(MLP, "deepspeed-1f1b", shape, 1, 1, batch_size=300 * replicas),
    ]
    alone = [
        {**c, "strategy": "sequential", "micro_batches": c["micro_batches"] * replicas}
        for c in cases
    ]
    for c in alone:
        del c["cuts"]
    trained = train_cases(replicas, cases, tmp_path)
    for (one, (expected,)), (several, of_ranks) in zip(
        train_cases(1, alone, tmp_path), trained, strict=True
    ):
        assert several["train_loss"] == pytest.approx(one["train_loss"], abs=1e-6)
        assert several["test_accuracy"] == one["test_accuracy"]
        check_replicas_agree(of_ranks, replicas)
        for index, state in of_ranks[0].items():
            for name, tensor in state.items():
                torch.testing.assert_close(tensor, expected[index][name], rtol=0, atol=1e-6)


def test_lags_are_those_of_the_formula_with_one_more_forward_before_an_update(
    tmp_path: Path,
) -> None:
    stages, replicas, steps = 2, 2, 5
    settings = [(1, 1), (2, 1), (3, 2)]
    cases = [case(MLP, "fbp", (stages, replicas), m, steps, lead=lead) for m, lead in settings]
    trained = train_cases(stages * replicas, cases, tmp_path)
    for (m, lead), (outcome, _) in zip(settings, trained, strict=True):
        for rank in range(stages * replicas):
            d, total = lead * (stages - 1 - rank // replicas), m * steps
            lags = Counter(n // m - max(n - d - 1, 0) // m for n in range(total))
            assert outcome["lag_counts"][rank] == {str(lag): count for lag, count in lags.items()}
            assert outcome["peak_in_flight"][rank] == min(d + 1, total)


LIMIT_SECONDS = 3
"""For which a rank waits here for the other, once all has been imported."""
FAULTY = """
from torch import nn
from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy
from hpc_lpm.ranks import rank_from_environment

class Odd(nn.Linear):
    calls = 0

    def forward(self, inputs):
        self.calls += self.training
        if self.calls > 5 and rank_from_environment() == 1:
            raise ValueError("an odd pixel")
        return super().forward(inputs.flatten(1))

def make(shape):
    return LayeredModel(
        "odd", (Layer("odd", lambda: Odd(64, 10)),), cross_entropy, count_correct
    )
"""


def test_a_replica_that_fails_is_named_and_the_others_do_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_model.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    write_plan(tmp_path / "plan.json", 1, 1)
    faulty = {
        **case(MLP, "1f1b", (1, 2), 2, 20, plan=str(tmp_path / "plan.json")),
        "model": "odd_model:make",
        "receive_timeout_seconds": LIMIT_SECONDS,
    }
    del faulty["cuts"]
    # Ranks wait longer for each other where the strategy is imported: that is over before a fault.
    calm = {**faulty, "steps": 1, "receive_timeout_seconds": 60}
    (tmp_path / "cases.json").write_text(json.dumps([calm, faulty]))
    program = str(Path(__file__).with_name("fault_cases.py"))
    done = mpirun(2, program, str(tmp_path / "cases.json"), str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    undisturbed, (waiting, failed) = json.loads((tmp_path / "out.json").read_text())
    assert undisturbed == ["", ""]
    assert failed.startswith("stage 0 (rank 1), micro-batch 11, layer 0 odd: ValueError: an odd")
    assert waiting.startswith(
        f"stage 0 (rank 0), update: no answer for {LIMIT_SECONDS} s while gradients were averaged "
        "over the stage's 2 replicas: one of them"
    )
    assert waiting.endswith(".")


@pytest.mark.parametrize(
    ("ranks", "options", "named"),
    [
        (3, (), ["plan.json", "2 stages", "3 ranks", "replicas of every stage"]),
        (4, ("--batch-size", "12"), ["--batch-size 12", "--micro-batches 4", "2 replicas", "of 8"]),
    ],
)
def test_ranks_or_batches_that_replicas_cannot_share_are_refused_in_one_sentence(
    ranks: int, options: tuple[str, ...], named: list[str], tmp_path: Path
) -> None:
    plan = write_plan(tmp_path / "plan.json", 4, 2)
    command = ["train", "--model", "mlp,width=8", "--dataset", "digits,size=8", "--steps", "1"]
    command += ["--strategy", "fbp", "--plan", str(plan), "--out", str(tmp_path / "run"), *options]
    done = mpirun(ranks, "-m", "hpc_lpm", *command)
    assert done.returncode == 2
    (sentence,) = sentences(done.stdout + done.stderr)
    check_helpful(sentence, named)
    assert "Traceback" not in done.stdout + done.stderr


def test_a_run_by_hand_reports_its_ranks_and_replicas(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.json", 4, 2)
    command = ["train", "--model", "mlp,width=8", "--dataset", "digits,size=8", "--steps", "3"]
    command += ["--strategy", "fbp", "--plan", str(plan), "--out", str(tmp_path / "run")]
    done = mpirun(4, "-m", "hpc_lpm", *command, "--log-norms", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["ranks"], result["replicas"]) == (4, 2)
    assert len(result["step_seconds"]) == len(result["train_loss"]) == 3
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert sum("loss" in entry for entry in metrics) == 3
    norms = [entry for entry in metrics if "weight_norm" in entry]
    assert [entry["step"] for entry in norms] == [0, 2]
    for entry in norms:
        for kind in ("gradient", "weight"):
            of_stages = entry[f"stage_{kind}_norms"]
            assert len(of_stages) == 2
            assert entry[f"{kind}_norm"] == pytest.approx(math.hypot(*of_stages))
