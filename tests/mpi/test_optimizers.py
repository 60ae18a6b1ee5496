"""Optimizers, learning rates, clipping and the discount, bit for bit on real ranks."""

import importlib.util
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.recurrence import fingerprint, scale_to_norm
from tests.mpi.test_exactness import (
    FLUSHING,
    MICRO_BATCH,
    MLP,
    RESNET,
    case,
    reference_sha256,
    train_cases,
)

pytestmark = pytest.mark.mpi

STEPS, WARMUP = 5, 2
COSINE = {"schedule": "cosine", "warmup_steps": WARMUP}
CLIP = 0.05
RMSPROP = {"name": "RMSprop", "lr": 0.01, "weight_decay": 0.001, "options": {"alpha": 0.9}}
ADAMW = {"name": "adamw", "lr": 0.1}
NESTEROV = {"name": "momentum", "lr": 0.1, "options": {"nesterov": True}}
MUON = {"name": "muon", "lr": 0.03, "weight_decay": 0.1, "options": {"betas": (0.8, 0.9)}}


class MuonByHand:
    """torch's Muon on all hidden matrices, kernels flattened, and its AdamW on the rest.

    Of the models here the head alone has ten rows.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.param_groups: list[dict] = [{"lr": MUON["lr"]}]
        self.state: dict = defaultdict(dict)
        self.pairs = [
            (p, torch.nn.Parameter(p.detach().flatten(1).clone()))
            for p in parameters
            if p.dim() == 4 or (p.dim() == 2 and len(p) != 10)
        ]
        hidden = {p for p, _ in self.pairs}
        self.others = [p for p in parameters if p not in hidden]
        self.halves: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                self.others or [torch.nn.Parameter(torch.zeros(0))],
                weight_decay=0.1,
                betas=(0.8, 0.9),
            )
        ]
        if self.pairs:
            matrices = [matrix for _, matrix in self.pairs]
            self.halves.append(
                torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
            )

    def zero_grad(self) -> None:
        for p in [*self.others, *(p for p, _ in self.pairs)]:
            p.grad = None

    def step(self) -> None:
        for p, matrix in self.pairs:
            matrix.grad = None if p.grad is None else p.grad.flatten(1)
        for half in self.halves:
            for group in half.param_groups:
                group["lr"] = self.param_groups[0]["lr"]
            half.step()
        for p, matrix in self.pairs:
            p.data.copy_(matrix.data.view(p.shape))


OF_TORCH: dict[str, Callable[[list], torch.optim.Optimizer | MuonByHand]] = {
    "muon": MuonByHand,
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.001, alpha=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}


def cosine_after_warmup(u: int) -> float:
    if u < WARMUP:
        return (u + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * ((u - WARMUP) / (STEPS - WARMUP))))


def loop_by_hand(case: dict, rate: Callable[[int], float], clip: float | None) -> str:
    """Weights of plain training with torch's own optimizer, gradients of M micro-batches summed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = load_dataset(case["dataset"])
        chain = create_model(case["model"], dataset.shape)
        layers = [chain.build_layer(i, case["seed"]) for i in range(len(chain.layers))]
        model = torch.nn.Sequential(*layers).train()
        parameters = list(model.parameters())
        optimizer = OF_TORCH[case["optimizer"]["name"]](parameters)
        base = case["optimizer"]["lr"]
        generator = torch.Generator().manual_seed(case["seed"] * 1_000_003)
        order = torch.randperm(len(dataset.train), generator=generator)
        per_step = case["micro_batches"]
        for u in range(case["steps"]):
            optimizer.zero_grad()
            for n in range(u * per_step, (u + 1) * per_step):
                chunk = order[n * MICRO_BATCH : (n + 1) * MICRO_BATCH]
                outputs = model(dataset.train.inputs(chunk))
                (chain.loss(outputs, dataset.train.targets(chunk)) / per_step).backward()
            if clip is not None:
                scale_to_norm([p.grad for p in parameters], clip)
            optimizer.param_groups[0]["lr"] = base * rate(u)
            optimizer.step()
        return fingerprint(layers)
    finally:
        torch.set_num_threads(threads)


def updates_of(optimizer: dict, learning_rate: dict, **more: object) -> dict:
    return {"optimizer": optimizer, "learning_rate": learning_rate, **more}


FLUSHED = [
    updates_of(RMSPROP, {}),
    updates_of(ADAMW, COSINE),
    updates_of(NESTEROV, {}),
    updates_of(MUON, COSINE),
]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_flushing_schedules_and_sequential_training_are_the_loop_written_by_hand(
    stages: int, tmp_path: Path
) -> None:
    alike = [
        case(model, strategy, stages, 3, STEPS, **updates)
        for updates in FLUSHED
        for model, strategy in (*((MLP, name) for name in FLUSHING), (RESNET, "1f1b"))
    ]
    if stages == 1:
        for model in (MLP, RESNET):
            alike += [case(model, "sequential", 1, 3, STEPS, **updates) for updates in FLUSHED]
    for c, outcome in zip(alike, train_cases(stages, [*map(dict, alike)], tmp_path), strict=True):
        rate = cosine_after_warmup if c["learning_rate"] else lambda u: 1.0
        assert outcome["weights_sha256"] == loop_by_hand(c, rate, None), outcome["settings"]


def test_sequential_clipping_is_the_loop_written_by_hand(tmp_path: Path) -> None:
    clipped = [
        case(model, "sequential", 1, 3, STEPS, **updates, clip_norm=CLIP)
        for model, updates in (*((MLP, updates) for updates in FLUSHED), (RESNET, FLUSHED[0]))
    ]
    for c, outcome in zip(clipped, train_cases(1, [*map(dict, clipped)], tmp_path), strict=True):
        rate = cosine_after_warmup if c["learning_rate"] else lambda u: 1.0
        expected = loop_by_hand(c, rate, CLIP)
        assert outcome["weights_sha256"] == expected, outcome["settings"]
        assert expected != loop_by_hand(c, rate, None)


MOMENTUM = {"name": "momentum", "lr": 0.1, "momentum": 0.9}
ALL_AT_ONCE = updates_of(ADAMW, COSINE, clip_norm=CLIP, lr_discount=True)


@pytest.mark.parametrize("stages", [2, 4])
def test_fbp_with_schedule_clipping_and_discount_is_the_recurrence(
    stages: int, tmp_path: Path
) -> None:
    one_by_one = [
        updates_of(MOMENTUM, COSINE),
        updates_of(MOMENTUM, {}, clip_norm=CLIP),
        updates_of(MOMENTUM, {}, lr_discount=True),
    ]
    cases = [
        case(MLP, "fbp", stages, per_step, STEPS, lead=lead, **updates)
        for per_step, lead in ((1, 1), (3, 2))
        for updates in one_by_one
    ]
    cases += [
        case(model, "fbp", stages, 3, STEPS, lead=2, weights=weights, **ALL_AT_ONCE)
        for model, weights in ((RESNET, "replay"), (MLP, "stash"), (MLP, "live"))
    ]
    cases += [
        case(model, "fbp", stages, 3, STEPS, lead=2, weights=weights, **updates_of(MUON, COSINE))
        for model, weights in ((MLP, "replay"), (RESNET, "live"), (MLP, "stash"))
    ]
    expected = [reference_sha256(c, stages, **hooks_of(c, stages)) for c in cases]
    outcomes = train_cases(stages, [*map(dict, cases)], tmp_path)
    for right, outcome in zip(expected, outcomes, strict=True):
        assert outcome["weights_sha256"] == right, outcome["settings"]
    assert len(set(expected)) == len(expected)


def hooks_of(c: dict, stages: int) -> dict:
    """eta_{k,u} = eta / max(1, d_k / M) times the factor of update u; d_k = r (K - k)."""
    factor = cosine_after_warmup if c["learning_rate"] else lambda u: 1.0

    def rate(k: int, u: int) -> float:
        d = c["lead"] * (stages - k)
        discount = max(1.0, d / c["micro_batches"]) if c.get("lr_discount") else 1.0
        return c["optimizer"]["lr"] / discount * factor(u)

    chosen = {"optimizer": MuonByHand} if c["optimizer"]["name"] == "muon" else {}
    return {"rate": rate, "clip": c.get("clip_norm"), **chosen}


def test_data_parallel_ranks_update_as_sequential_training_does(tmp_path: Path) -> None:
    adagrad = {"name": "adagrad", "lr": 0.05, "options": {"initial_accumulator_value": 0.01}}
    chosen = [
        updates_of({"name": "momentum", "lr": 0.1}, COSINE, clip_norm=CLIP),
        updates_of(adagrad, {"schedule": "linear"}),
        updates_of(NESTEROV, {"schedule": "step", "milestones": [2, 4]}, clip_norm=CLIP),
        updates_of(
            {
                **{"name": "tests.mpi.own_updates:Lion", "lr": 0.01, "weight_decay": 0.1},
                **{"no_decay": ["*.bias"], "lr_scale": ["output.*=0.5"]},
            },
            {"schedule": "tests.mpi.own_updates:Slower"},
        ),
        updates_of(MUON, COSINE),
    ]
    alone = [case(MLP, "sequential", 1, 4, STEPS, **updates) for updates in chosen]
    strategies = ["ddp", "horovod"] if importlib.util.find_spec("horovod") else ["ddp"]
    shared = [{**c, "strategy": name} for name in strategies for c in alone]
    single = train_cases(1, alone, tmp_path) * len(strategies)
    for expected, outcome in zip(single, train_cases(2, shared, tmp_path), strict=True):
        # Muon computes in bf16, where the order of a sum shows.
        share = 1e-2 if expected["settings"]["optimizer"]["name"] == "muon" else 1e-5
        assert outcome["train_loss"] == pytest.approx(expected["train_loss"], rel=share)
