"""The smaller batch at the end of an epoch is trained like any other."""

import importlib.util
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.recurrence import Recurrence, fingerprint
from tests.mpi.test_exactness import GPT, RESNET, cuts_of, train_cases

pytestmark = pytest.mark.mpi

PER_STEP, MICRO_BATCH = 3, 64
TEXT = f"text:{Path(torch.__file__).parent / 'functional.py'},sequence=128"
MODELS = {RESNET: "digits,size=16", GPT: TEXT}


def case(model: str, strategy: str, stages: int, **more: object) -> dict:
    return {
        "model": model,
        "dataset": MODELS[model],
        "strategy": strategy,
        "batch_size": PER_STEP * MICRO_BATCH,
        "micro_batches": PER_STEP,
        "epochs": 1,
        "seed": 3,
        "last_batch": "keep",
        **({"cuts": cuts_of(model, stages)} if strategy != "sequential" else {}),
        **({"weights": "replay"} if strategy == "fbp" else {}),
        **more,
    }


def chunks(model: str) -> list[torch.Tensor]:
    samples = len(load_dataset(MODELS[model]).train)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(3 * 1_000_003))
    whole = samples - samples % (PER_STEP * MICRO_BATCH)
    smaller = -(-(samples - whole) // MICRO_BATCH)
    return [
        *torch.split(order[:whole], MICRO_BATCH),
        *torch.tensor_split(order[whole:], smaller),
    ]


def recurrence_sha256(model: str, stages: int) -> str:
    dataset = load_dataset(MODELS[model])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        recurrence = Recurrence(
            create_model(model, dataset.shape),
            cuts_of(model, stages),
            [dataset.train.inputs(chunk) for chunk in chunks(model)],
            [dataset.train.targets(chunk) for chunk in chunks(model)],
            per_step=PER_STEP,
            lead=1,
            seed=3,
            weights="replay",
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        )
        return fingerprint(recurrence.finish())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("model", list(MODELS))
def test_the_epoch_really_ends_with_fewer_and_smaller_micro_batches(model: str) -> None:
    assert len(chunks(model)) % PER_STEP != 0
    assert 0 < len(chunks(model)[-1]) < MICRO_BATCH


def test_the_last_batch_is_trained_alike_by_every_schedule_and_by_the_recurrence(
    tmp_path: Path,
) -> None:
    flushing = [case(model, name, 2) for model in MODELS for name in ("gpipe", "1f1b", "naive")]
    continuous = [case(model, "fbp", 2) for model in MODELS]
    outcomes = train_cases(2, [*flushing, *continuous], tmp_path)
    for model in MODELS:
        (alone,) = train_cases(1, [case(model, "sequential", 1)], tmp_path)
        steps = -(-len(chunks(model)) // PER_STEP)
        for outcome in (o for o in outcomes if o["model"] == model):
            assert len(outcome["train_loss"]) == steps
            if outcome["strategy"] == "fbp":
                assert outcome["weights_sha256"] == recurrence_sha256(model, 2)
            else:
                assert outcome["weights_sha256"] == alone["weights_sha256"], outcome["strategy"]
                assert outcome["train_loss"] == alone["train_loss"], outcome["strategy"]


def test_replicas_of_stages_share_the_last_batch(tmp_path: Path) -> None:
    # Twice as many micro-batches in turn are as many at the same time, but for rounding.
    common = {"model": "mlp,width=24,layers=4", "dataset": "digits,size=8", "cuts": [0, 2, 4]}
    together = case(RESNET, "1f1b", 2) | common
    (outcome,) = train_cases(4, [{**together, "batch_size": 2 * PER_STEP * MICRO_BATCH}], tmp_path)
    alone = {**together, "strategy": "sequential", "micro_batches": 2 * PER_STEP}
    alone |= {"batch_size": 2 * PER_STEP * MICRO_BATCH}
    del alone["cuts"]
    (expected,) = train_cases(1, [alone], tmp_path)
    assert outcome["replicas"] == 2
    assert outcome["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)


def test_replicas_without_a_micro_batch_of_the_last_batch_train_along(tmp_path: Path) -> None:
    # Samples of a step count the same, however they are spread over the replicas.
    samples = len(load_dataset("digits,size=8").train)
    batch_size = next(b for b in range(64, 512, 4) if 0 < samples % b <= b // 4)
    common = {
        "model": "mlp,width=24,layers=4",
        "dataset": "digits,size=8",
        "batch_size": batch_size,
        "micro_batches": 4,
        "epochs": 2,
        "seed": 3,
        "last_batch": "keep",
    }
    strategies = ["ddp", "horovod"] if importlib.util.find_spec("horovod") else ["ddp"]
    together = train_cases(2, [{**common, "strategy": name} for name in strategies], tmp_path)
    (alone,) = train_cases(1, [{**common, "strategy": "sequential"}], tmp_path)
    for outcome in together:
        assert outcome["test_accuracy"] == pytest.approx(alone["test_accuracy"], abs=0.01)
        means = [sum(o["train_loss"]) / len(o["train_loss"]) for o in (outcome, alone)]
        assert means[0] == pytest.approx(means[1], rel=0.01)
