"""Training on real ranks gives bit for bit what the FBP recurrence gives."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from hpc_lpm.options import MAX_SEED
from tests.mpi.ranks import run_in_ranks
from tests.mpi.recurrence import Recurrence, fingerprint

pytestmark = pytest.mark.mpi

TEXT = str(Path(torch.__file__).parent / "functional.py")
DATASETS = {
    "mlp,width=24,layers=4": "digits,size=8",
    "resnet20,width=4": "digits,size=16",
    "gpt,layers=2,width=16,heads=2,dropout=0.2": f"text:{TEXT},sequence=16",
}
MICRO_BATCH = 4
RESNET, GPT, MLP = (
    "resnet20,width=4",
    "gpt,layers=2,width=16,heads=2,dropout=0.2",
    next(iter(DATASETS)),
)


def layer_count(model: str) -> int:
    return len(create_model(model, load_dataset(DATASETS[model]).shape).layers)


def cuts_of(model: str, stages: int) -> list[int]:
    """Uneven cuts, inside a residual block where the model has blocks."""
    layers = layer_count(model)
    return [
        0,
        *(layers * k // stages + (k % 2 if layers > 3 * stages else 0) for k in range(1, stages)),
        layers,
    ]


def case(model: str, strategy: str, stages: int, per_step: int, steps: int, **more: object) -> dict:
    parallel = strategy != "sequential"
    return {
        "model": model,
        "dataset": DATASETS[model],
        "strategy": strategy,
        "batch_size": MICRO_BATCH * per_step,
        "micro_batches": per_step,
        "steps": steps,
        "seed": 3,
        **({"cuts": cuts_of(model, stages)} if parallel else {}),
        **({"weights": "replay"} if strategy == "fbp" else {}),
        **more,
    }


def train_cases(ranks: int, cases: list[dict], folder: Path) -> list[dict]:
    (folder / "cases.json").write_text(json.dumps(cases))
    paths = (str(folder / "cases.json"), str(folder / "out.json"))
    done = run_in_ranks(ranks, "train_cases.py", *paths)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes: list[dict] = json.loads((folder / "out.json").read_text())
    assert len(outcomes) == len(cases)
    return outcomes


def rule_of(case: dict) -> str | None:
    """The rule that predicts the weights of lagged forwards, None if nothing does."""
    if not case.get("prediction"):
        return None
    by_optimizer = {"momentum": "spectrain", "sgd": "spectrain"}
    named = case.get("optimizer", {}).get("name", "momentum")
    return case.get("prediction_rule") or by_optimizer.get(named, "second-order")


def reference_sha256(case: dict, stages: int, **hooks: object) -> str:
    """Weights after the recurrence, on the micro-batches that the seed's order gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = load_dataset(case["dataset"])
        model = create_model(case["model"], dataset.shape)
        generator = torch.Generator().manual_seed(case["seed"] * 1_000_003)
        order = torch.randperm(len(dataset.train), generator=generator)
        chunks = [
            order[i * MICRO_BATCH : (i + 1) * MICRO_BATCH]
            for i in range(case["micro_batches"] * case["steps"])
        ]
        named = case.get("optimizer", {}).get("name", "momentum")

        def usual(parameters: list) -> torch.optim.Optimizer:
            if named == "momentum":
                return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
            return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.0)

        recurrence = Recurrence(
            model,
            case["cuts"],
            [dataset.train.inputs(chunk) for chunk in chunks],
            [dataset.train.targets(chunk) for chunk in chunks],
            per_step=case["micro_batches"],
            lead=case.get("lead", 1),
            seed=case["seed"],
            weights=case.get("weights", "live"),
            prediction=rule_of(case),
            **{"optimizer": usual, **hooks},
        )
        return fingerprint(recurrence.finish())
    finally:
        torch.set_num_threads(threads)


FLUSHING = ["gpipe", "1f1b", "naive", "deepspeed-1f1b"]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_flushing_schedule_is_sequential_training_bit_for_bit(
    stages: int, tmp_path: Path
) -> None:
    cases = []
    for model in (MLP, RESNET, GPT):
        cases += [case(model, strategy, stages, 4, 3) for strategy in FLUSHING]
    outcomes = train_cases(stages, cases, tmp_path)
    for model in (MLP, RESNET, GPT):
        alone = train_cases(1, [case(model, "sequential", 1, 4, 3)], tmp_path)[0]
        trained = [o for o in outcomes if o["model"] == model]
        assert {o["weights_sha256"] for o in trained} == {alone["weights_sha256"]}
        for outcome in trained:
            assert outcome["train_loss"] == alone["train_loss"], outcome["strategy"]
            assert outcome["test_accuracy"] == alone["test_accuracy"], outcome["strategy"]


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_fbp_is_the_recurrence_bit_for_bit_whatever_the_timing(stages: int, tmp_path: Path) -> None:
    adamw = {"name": "adamw", "lr": 0.1}
    momentum = {"name": "momentum", "lr": 0.1, "momentum": 0.9}
    cases = []
    for model in (MLP, RESNET, GPT):
        for per_step, lead, optimizer in (
            (1, 1, momentum),
            (3, 1, adamw),
            (4, 2, momentum),
            (2, 2, adamw),
        ):
            cases.append(case(model, "fbp", stages, per_step, 4, lead=lead, optimizer=optimizer))
    asleep = [{**c, "sleep": True} for c in cases]
    outcomes = train_cases(stages, [*map(dict, cases), *asleep], tmp_path)
    for expected, calm, disturbed in zip(
        (reference_sha256(c, stages) for c in cases), outcomes, outcomes[len(cases) :], strict=False
    ):
        assert calm["weights_sha256"] == expected, calm["settings"]
        assert disturbed["weights_sha256"] == expected, disturbed["settings"]


@pytest.mark.parametrize("stages", [2, 4])
def test_live_and_stashed_weights_are_those_of_their_definition(
    stages: int, tmp_path: Path
) -> None:
    cases = [
        case(model, "fbp", stages, per_step, 4, lead=lead, weights=weights)
        for model in (MLP, RESNET, GPT)
        for weights in ("live", "stash")
        for per_step, lead in ((1, 1), (3, 2))
    ]
    outcomes = train_cases(stages, [*map(dict, cases)], tmp_path)
    for c, outcome in zip(cases, outcomes, strict=True):
        assert outcome["weights_sha256"] == reference_sha256(c, stages), outcome["settings"]
    replayed = [{**c, "weights": "replay"} for c in cases[:4]]
    assert len({reference_sha256(c, stages) for c in [*cases[:4], *replayed]}) == 6


def test_independent_ranks_each_end_in_the_weights_of_sequential_training(tmp_path: Path) -> None:
    (apart,) = train_cases(2, [{**case(MLP, "sequential", 1, 4, 3), "strategy": "limit"}], tmp_path)
    (alone,) = train_cases(1, [case(MLP, "sequential", 1, 4, 3)], tmp_path)
    assert apart["weights_sha256"] == alone["weights_sha256"]
    assert apart["test_accuracy"] == alone["test_accuracy"]
    assert apart["bytes_sent"] == [0, 0]


def test_micro_batches_without_lag_give_the_synchronous_gradients(tmp_path: Path) -> None:
    # Until the first update nothing lags, so one step is exactly the sequential step.
    cases = [case(model, "fbp", 3, 8, 1) for model in (MLP, RESNET, GPT)]
    cases.append(case(GPT, "fbp", 3, 8, 1, seed=MAX_SEED))
    for outcome in train_cases(3, cases, tmp_path):
        same = case(outcome["model"], "sequential", 1, 8, 1, seed=outcome["seed"])
        alone = train_cases(1, [same], tmp_path)[0]
        assert outcome["weights_sha256"] == alone["weights_sha256"]


def test_lags_and_micro_batches_in_flight_are_those_of_the_formulas(tmp_path: Path) -> None:
    stages, steps = 4, 6
    settings = [(1, 1), (2, 1), (3, 2), (8, 1), (8, 2)]
    cases = [case(MLP, "fbp", stages, m, steps, lead=lead) for m, lead in settings]
    for (m, lead), outcome in zip(settings, train_cases(stages, cases, tmp_path), strict=True):
        for k in range(1, stages + 1):
            d, total = lead * (stages - k), m * steps
            lags = Counter(n // m - max(n - d, 0) // m for n in range(total))
            assert outcome["lag_counts"][k - 1] == {str(lag): count for lag, count in lags.items()}
            assert outcome["peak_in_flight"][k - 1] == min(d + 1, total)


def test_cuts_are_uneven_and_may_fall_inside_a_residual_block() -> None:
    layers = [
        layer.name for layer in create_model(RESNET, load_dataset("digits,size=16").shape).layers
    ]
    ends = [layers[cut - 1] for k in (2, 3, 4) for cut in cuts_of(RESNET, k)[1:-1]]
    assert any(not end.endswith("norm2") for end in ends if "block" in end)
    for model in DATASETS:
        for stages in (2, 3, 4):
            assert all(b > a for a, b in pairwise(cuts_of(model, stages)))
