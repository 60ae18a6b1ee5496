"""A model of one's own trains what a loop of plain PyTorch trains: alone, on replicas, resumed."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from tests.mpi import peculiar_models
from tests.mpi.played_cases import chunks_of, optimizer_of
from tests.mpi.played_recurrence import draw_all_from
from tests.mpi.test_replicas import train_cases
from tests.mpi.test_resume import check_resumed_as_whole, interrupted, once, run_groups

pytestmark = pytest.mark.mpi

DATASET = "digits,size=8"
DECAYING = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}
MOMENTUM = {"name": "momentum", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


def case(model: str, optimizer: dict, strategy: str = "sequential", **more: object) -> dict:
    return {
        "model": f"peculiar_models:{model}",
        "dataset": DATASET,
        "strategy": strategy,
        "batch_size": 48,
        "micro_batches": 4,
        "steps": 6,
        "optimizer": optimizer,
        "seed": 3,
        **more,
    }


def trained_plainly(c: dict) -> tuple[list[float], list[nn.Module]]:
    """Losses and layers of a loop over modules of which some are one and the same."""
    dataset = load_dataset(DATASET)
    name = c["model"].removeprefix("peculiar_models:")
    model = create_model(f"tests.mpi.peculiar_models:{name}", dataset.shape, c["seed"])
    layers = [build() for build in getattr(peculiar_models, name)(dataset.shape)]
    for index, layer in enumerate(layers):
        layer.load_state_dict(model.build_layer(index, c["seed"]).state_dict())
    parameters = list(nn.ModuleList(layers).parameters())
    optimizer = optimizer_of(c, parameters)
    losses: list[float] = []
    for n, chunk in enumerate(chunks_of(c, len(dataset.train))):
        values = dataset.train.inputs(chunk)
        for index, layer in enumerate(layers):
            draw_all_from(layer, c["seed"], index, n)
            values = layer(values)
        loss = nn.functional.cross_entropy(values, dataset.train.targets(chunk))
        (loss / c["micro_batches"]).backward()
        for p in parameters:
            p.grad = p.grad.to_dense() if p.grad is not None and p.grad.is_sparse else p.grad
        losses.append(loss.item())
        if (n + 1) % c["micro_batches"] == 0:
            optimizer.step()
            optimizer.zero_grad()
    step = c["micro_batches"]
    return [sum(losses[i : i + step]) / step for i in range(0, len(losses), step)], layers


def distance(trained: dict[int, dict[str, Tensor]], layers: list[nn.Module]) -> float:
    """The largest difference of any weight or buffer."""
    pairs = [
        (tensor, trained[index][name])
        for index, layer in enumerate(layers)
        for name, tensor in layer.state_dict().items()
    ]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def test_sequential_training_is_a_plain_loop_over_the_very_modules(tmp_path: Path) -> None:
    names = ["shared", "frozen", "choosing", "detaching", "sparse", "draws", "counting"]
    cases = [case(name, MOMENTUM) for name in names] + [case("choosing", DECAYING)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for c, (outcome, (weights,)) in zip(
            cases, train_cases(1, [*map(dict, cases)], tmp_path), strict=True
        ):
            losses, layers = trained_plainly(c)
            assert outcome["train_loss"] == pytest.approx(losses, rel=1e-6), c["model"]
            # Gradients of a shared weight are added up in another order, else nothing is rounded.
            bound = 1e-6 if "shared" in c["model"] else 0.0
            assert distance(weights, layers) <= bound, c["model"]
    finally:
        torch.set_num_threads(threads)


def test_replicas_draw_what_sequential_training_draws_for_each_micro_batch(tmp_path: Path) -> None:
    names = ["dropout", "draws", "choosing"]
    alone = train_cases(1, [case(name, MOMENTUM) for name in names], tmp_path)
    together = [
        case(name, MOMENTUM, "gpipe", cuts=[0, L])
        for name, L in (("dropout", 6), ("draws", 7), ("choosing", 5))
    ]
    if importlib.util.find_spec("horovod"):
        together += [case(name, MOMENTUM, "horovod") for name in names]
    together += [case(name, MOMENTUM, "ddp") for name in names]
    # As many micro-batches a replica and step are half as many of all.
    for c in together:
        c["micro_batches"] = 2 if c["strategy"] == "gpipe" else 4
    trained = train_cases(2, [*map(dict, together)], tmp_path)
    for place, (outcome, of_ranks) in enumerate(trained):
        expected, (weights,) = alone[place % len(names)]
        assert outcome["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4), outcome
        for layers in of_ranks:
            for index, state in layers.items():
                for name, tensor in state.items():
                    torch.testing.assert_close(
                        tensor,
                        weights[index][name],
                        rtol=1e-4,
                        atol=1e-5,
                        msg=lambda said, c=together[place], index=index, name=name: (
                            f"{c} layer {index} {name}: {said}"
                        ),
                    )


def test_what_layers_draw_and_hand_on_is_the_same_after_a_resume(tmp_path: Path) -> None:
    common = {"receive_timeout_seconds": 60, "steps": 12}
    runs = [
        case("draws", DECAYING, "fbp", cuts=[0, 3, 7], weights="replay", lead=2, **common),
        case("dropout", DECAYING, "fbp", cuts=[0, 3, 6], weights="live", **common),
        case("choosing", DECAYING, "fbp", cuts=[0, 2, 5], weights="stash", **common),
        case("shared", DECAYING, "1f1b", cuts=[0, 4, 8], **common),
        case("structures", MOMENTUM, "gpipe", cuts=[0, 2, 5], **common),
        case("shared_statistics", MOMENTUM, "naive", cuts=[0, 1, 4], **common),
    ]
    groups = [
        interrupted(run, tmp_path / str(number), once(number % 2, 2 + number % 4))
        for number, run in enumerate(runs)
    ]
    for group, outcomes in zip(groups, run_groups(2, groups, tmp_path), strict=True):
        check_resumed_as_whole(outcomes, group)
