"""Weights tied over two stages are one, bit for bit, and no stage waits for them to become one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi.recurrence import Recurrence, fingerprint
from tests.mpi.test_exactness import rule_of, train_cases

pytestmark = pytest.mark.mpi

MODEL = "gpt,layers=2,width=16,heads=2,dropout=0.2,tied=true"
DATASET = f"text:{Path(torch.__file__).parent / 'functional.py'},sequence=16"
CUTS = {1: [0, 7], 2: [0, 3, 7], 3: [0, 2, 5, 7]}
MICRO_BATCH, SEED = 4, 3


class TiedRecurrence(Recurrence):
    """The equations with the last stage's projection tied to the first stage's embedding.

    The embedding's gradient of a step is its own sum plus that of the projection; the projection
    has for every micro-batch the version that the embedding's forward had.
    """

    def place(self, k: int, name: str) -> int | None:
        """Where the tied parameter is among those of stage k, if it is there."""
        wanted = {"token": 0, "weight": len(self.model.layers) - 1}[name]
        names = [
            (self.first[k] + i, n)
            for i, layer in enumerate(self.layers[k])
            for n, _ in layer.named_parameters()
        ]
        return names.index((wanted, name)) if (wanted, name) in names else None

    def step_gradients(self, k: int, g: int) -> list[Tensor | None]:
        gradients = super().step_gradients(k, g)
        if (owner := self.place(k, "token")) is not None:
            copy = self.place(self.K, "weight")
            gradients[owner] = gradients[owner] + super().step_gradients(self.K, g)[copy]
        if (copy := self.place(k, "weight")) is not None:
            gradients[copy] = None
        return gradients

    def weights(self, k: int, u: int, n: int) -> list[Tensor]:
        found = list(self.W(k, u))
        if (copy := self.place(k, "weight")) is not None:
            found[copy] = self.W(1, self.seen(n))[self.place(1, "token")]
        return found

    def seen(self, n: int) -> int:
        """How many updates of the embedding the projection has seen at micro-batch n."""
        if n >= self.N:  # after the drain
            return self.updates
        return max(n - self.d(1), self.start(n)) // self.M

    def forward_weights(self, k: int, n: int) -> list[Tensor]:
        found = super().forward_weights(k, n)
        copy, seen = self.place(k, "weight"), self.seen(n)
        if copy is None or self.prediction is None or seen == self.backward_version(n):
            return found
        # The same guess as at the embedding.
        predicted = self.extrapolated(1, self.place(1, "token"), seen, n)
        return [predicted if i == copy else w for i, w in enumerate(found)]


def case(strategy: str, stages: int, per_step: int, **more: object) -> dict:
    return {
        "model": MODEL,
        "dataset": DATASET,
        "strategy": strategy,
        "batch_size": MICRO_BATCH * per_step,
        "micro_batches": per_step,
        "steps": 5,
        "seed": SEED,
        **({"cuts": CUTS[stages]} if strategy != "sequential" else {}),
        **({"weights": "replay"} if strategy == "fbp" else {}),
        **more,
    }


def reference_sha256(c: dict, stages: int, **hooks: object) -> str:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dataset = load_dataset(DATASET)
        order = torch.randperm(
            len(dataset.train), generator=torch.Generator().manual_seed(SEED * 1_000_003)
        )
        chunks = [
            order[i * MICRO_BATCH : (i + 1) * MICRO_BATCH]
            for i in range(c["micro_batches"] * c["steps"])
        ]
        recurrence = TiedRecurrence(
            create_model(MODEL, dataset.shape),
            c.get("cuts", CUTS.get(stages)),
            [dataset.train.inputs(chunk) for chunk in chunks],
            [dataset.train.targets(chunk) for chunk in chunks],
            per_step=c["micro_batches"],
            lead=c.get("lead", 1),
            seed=SEED,
            weights=c.get("weights", "live"),
            prediction=rule_of(c),
            **{"optimizer": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), **hooks},
        )
        return fingerprint(recurrence.finish())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_tied_weights_are_those_of_their_equations_under_every_policy(
    stages: int, tmp_path: Path
) -> None:
    cases = [
        case("fbp", stages, per_step, lead=lead, weights=weights, sleep=True)
        for weights in ("replay", "live", "stash")
        for per_step, lead in ((1, 1), (3, 2))
    ]
    for c, outcome in zip(
        cases, train_cases(stages, [dict(c) for c in cases], tmp_path), strict=True
    ):
        assert outcome["weights_sha256"] == reference_sha256(c, stages), outcome["settings"]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_flushing_schedule_with_tied_weights_is_sequential_training(
    stages: int, tmp_path: Path
) -> None:
    flushing = [case(name, stages, 3) for name in ("gpipe", "1f1b", "naive")]
    (alone,) = train_cases(1, [case("sequential", 1, 3)], tmp_path)
    (untied,) = train_cases(
        1, [{**case("sequential", 1, 3), "model": MODEL.removesuffix(",tied=true")}], tmp_path
    )
    assert alone["weights_sha256"] != untied["weights_sha256"]
    for outcome in train_cases(stages, flushing, tmp_path):
        assert outcome["weights_sha256"] == alone["weights_sha256"], outcome["strategy"]
        assert outcome["test_accuracy"] == alone["test_accuracy"]


def test_replicas_of_stages_keep_tied_weights_one(tmp_path: Path) -> None:
    model = MODEL.replace("dropout=0.2", "dropout=0.0")
    replicated = {**case("1f1b", 2, 2), "model": model, "batch_size": 2 * 2 * MICRO_BATCH}
    lagging = {**replicated, "strategy": "fbp", "weights": "live"}
    together, asleep, awake = train_cases(
        4, [replicated, {**lagging, "sleep": True}, dict(lagging)], tmp_path
    )
    (alone,) = train_cases(1, [{**case("sequential", 1, 4), "model": model}], tmp_path)
    assert together["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)
    assert asleep["weights_sha256"] == awake["weights_sha256"] != together["weights_sha256"]


def test_sequential_training_with_tied_weights_is_that_of_one_shared_parameter(
    tmp_path: Path,
) -> None:
    # torch adds up the two ends a micro-batch at a time, so only the rounding differs.
    dataset = load_dataset(DATASET)
    model = create_model(MODEL.replace("dropout=0.2", "dropout=0.0"), dataset.shape)
    (trained,) = train_cases(1, [{**case("sequential", 1, 1), "model": model.name}], tmp_path)
    layers = [model.build_layer(i, SEED) for i in range(len(model.layers))]
    layers[-1].weight = layers[0].token
    shared = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.1, momentum=0.9)
    order = torch.randperm(
        len(dataset.train), generator=torch.Generator().manual_seed(SEED * 1_000_003)
    )
    losses = []
    for step in range(5):
        chunk = order[step * MICRO_BATCH : (step + 1) * MICRO_BATCH]
        loss = model.loss(shared(dataset.train.inputs(chunk)), dataset.train.targets(chunk))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert trained["train_loss"] == pytest.approx(losses, rel=1e-5)
