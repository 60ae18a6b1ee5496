"""The single-process study of delay: its order, its sums and its analysis."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from benchmarks.delay_study.correction import Correction, of_order
from benchmarks.delay_study.optimizers import make_optimizer
from benchmarks.delay_study.player import Player
from benchmarks.delay_study.stability import Point, largest_stable_rate, prediction_noise
from benchmarks.delay_study.stages import build_stages
from hpc_lpm.data.dataset import DataShape
from hpc_lpm.models.gpt import gpt
from hpc_lpm.models.layered import Layer, LayeredModel

WIDTH, SAMPLES = 5, 2


def matrix() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH, bias=False)


def chain(layers: int) -> LayeredModel:
    """Return linear layers, so that a backward is a product that one can write down."""
    return LayeredModel("chain", tuple(Layer(f"layer{i}", matrix) for i in range(layers)))


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().sum(-1).mean()


def samples(micro_batches: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    size = (micro_batches * SAMPLES, WIDTH)
    return torch.randn(size, generator=generator), torch.randn(size, generator=generator)


def play(
    stages: int, micro_batches: int, updates: int, correction: Correction, rate: float = 0.05
) -> Player:
    """Train the chain with one layer a stage, by SGD with momentum 0.9."""
    inputs, targets = samples(micro_batches * updates)
    built = build_stages(chain(stages), stages, seed=0)
    player = Player(
        built,
        make_optimizer("momentum", built, 0.9, 0.99),
        correction,
        loss=half_square,
        samples=SAMPLES,
        micro_batches=micro_batches,
        rate=lambda update: rate / (1 + update),
    )
    player.events = []
    rows = partial(slice_of_samples, inputs, targets)
    assert len(list(player.train(rows, updates))) == updates
    return player


def slice_of_samples(
    inputs: Tensor, targets: Tensor, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    rows = slice(start * SAMPLES, stop * SAMPLES)
    return inputs[rows], targets[rows]


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 4), (4, 4), (8, 4), (5, 3), (7, 1)])
def test_versions_are_those_of_the_recurrence(stages: int, micro_batches: int) -> None:
    updates = 6
    events = play(stages, micro_batches, updates, Correction()).events or []
    expected: Counter[tuple[str, int, int, int]] = Counter()
    for stage in range(stages):
        delay = stages - 1 - stage
        for n in range(updates * micro_batches):
            expected["forward", stage, n, max(n - delay, 0) // micro_batches] += 1
            expected["backward", stage, n, n // micro_batches] += 1
    assert Counter((e.kind, e.stage, e.micro_batch, e.version) for e in events) == expected


def test_a_stage_runs_in_the_order_of_its_programme() -> None:
    events = play(3, 2, 5, Correction()).events or []
    for stage in range(3):
        of_stage = [e for e in events if e.stage == stage]
        versions = [e.version for e in of_stage]
        assert versions == sorted(versions)
        for kind in ("forward", "backward"):
            numbers = [e.micro_batch for e in of_stage if e.kind == kind]
            assert numbers == list(range(10))


def by_hand(
    stages: int,
    micro_batches: int,
    updates: int,
    *,
    stash: bool = False,
    coefficients: tuple[float, float] = (0.0, 0.0),
    fed_back: float = 0.0,
    rate: float = 0.05,
) -> list[Tensor]:
    """Return the weights after METHOD's recurrence of one micro-batch after the other.

    `coefficients` are those of u and of u - u_before for each update of lag.
    """
    inputs, targets = samples(micro_batches * updates)
    model = chain(stages)
    weights = [[next(model.build_layer(k, 0).parameters()).detach().clone()] for k in range(stages)]
    steps = [[torch.zeros(WIDTH, WIDTH)] * 2 for _ in range(stages)]
    velocities = [torch.zeros(WIDTH, WIDTH)] * stages
    for update in range(updates):
        sums = [torch.zeros(WIDTH, WIDTH) for _ in range(stages)]
        for n in range(update * micro_batches, (update + 1) * micro_batches):
            at, target = slice_of_samples(inputs, targets, n, n + 1)
            entered, used = [], []
            for k in range(stages):
                version = max(n - (stages - 1 - k), 0) // micro_batches
                lag = update - version
                ratio = version / (version + 1) if version else 0.0
                last, before = steps[k][version + 1], steps[k][version]
                c1, c2 = (lag * c for c in coefficients)
                used.append(weights[k][version] - ratio * (c1 * last + c2 * (last - before)))
                entered.append(at)
                at = at @ used[-1].T
            error = (at - target) / SAMPLES
            for k in reversed(range(stages)):
                sums[k] += error.T @ entered[k] / micro_batches
                error = error @ (used[k] if stash else weights[k][update])
        for k in range(stages):
            velocities[k] = 0.9 * velocities[k] + sums[k]
            step = rate / (1 + update) * velocities[k]
            ratio = update / (update + 1) if update else 0.0
            more = fed_back * (stages - 1 - k) / micro_batches * (step - ratio * steps[k][-1])
            steps[k].append(step)
            weights[k].append(weights[k][update] - step - more)
    return [versions[-1] for versions in weights]


@pytest.mark.parametrize("stash", [False, True], ids=["live", "stash"])
@pytest.mark.parametrize(("c1", "c2"), [(0.0, 0.0), (1.0, 0.0), (0.7, 0.9)])
def test_weights_follow_the_recurrence(stash: bool, c1: float, c2: float) -> None:
    places = range(1, 6)
    correction = Correction(
        c1=tuple(c1 * s for s in places), c2=tuple(c2 * s for s in places), stash=stash
    )
    player = play(6, 2, 5, correction)
    expected = by_hand(6, 2, 5, stash=stash, coefficients=(c1, c2))
    for stage, weights in zip(player.stages.all, expected, strict=True):
        torch.testing.assert_close(stage.weights.view(WIDTH, WIDTH), weights)


def test_the_fed_back_update_is_stored() -> None:
    player = play(4, 2, 5, Correction(fed_back=1.25))
    expected = by_hand(4, 2, 5, fed_back=1.25)
    for stage, weights in zip(player.stages.all, expected, strict=True):
        torch.testing.assert_close(stage.weights.view(WIDTH, WIDTH), weights)


def test_without_delay_nothing_is_left_of_head_and_tail() -> None:
    whole = play(4, 2, 4, Correction(head=0.5, tail=0.5))
    single = play(4, 2, 4, Correction(head=1.0))
    assert torch.equal(whole.stages.weights, single.stages.weights)
    assert all(e.version == e.micro_batch // 2 for e in whole.events or [])


def test_one_stage_is_a_plain_loop_bit_for_bit() -> None:
    shape = DataShape("text", (6,), 11)
    model = gpt(shape, layers=2, width=8, heads=2)
    tokens = torch.randint(0, 11, (24, 7), generator=torch.Generator().manual_seed(3))
    built = build_stages(model, 1, seed=5)
    player = Player(
        built,
        make_optimizer("adamw", built, 0.9, 0.99),
        of_order(2),
        loss=lambda outputs, targets: nn.functional.cross_entropy(
            outputs.flatten(0, 1), targets.flatten()
        ),
        samples=2,
        micro_batches=4,
        rate=lambda update: 1e-2 / (1 + update),
    )
    played = list(
        player.train(lambda a, b: (tokens[2 * a : 2 * b, :-1], tokens[2 * a : 2 * b, 1:]), 3)
    )
    network = nn.Sequential(*(model.build_layer(i, 5) for i in range(len(model.layers))))
    optimizer = torch.optim.AdamW(
        network.parameters(), betas=(0.9, 0.99), weight_decay=0, fused=True
    )
    plain = []
    for update in range(3):
        rows = tokens[8 * update : 8 * update + 8]
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + update)
        optimizer.zero_grad()
        outputs = network(rows[:, :-1])
        loss = nn.functional.cross_entropy(outputs.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        plain.append(float(loss.detach()))
    assert played == plain
    joined = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    assert torch.equal(built.weights, joined)


@pytest.mark.parametrize(
    ("lag", "point", "rate"),
    [
        (0, Point(), 38),
        (1, Point(), 1.0),
        (2, Point(), 0.51),
        (4, Point(), 0.26),
        (1, Point(1), 2.7),
        (2, Point(2), 1.2),
        (4, Point(4), 0.49),
        (1, Point(1, 1), 4.9),
        (2, Point(2, 3), 2.1),
        (4, Point(4, 10), 0.75),
        (1, Point(0.4, 0.93), 7.1),
        (2, Point(0.83, 2.24), 3.3),
        (4, Point(1.85, 6.2), 1.3),
    ],
)
def test_the_largest_stable_rate_is_that_of_the_analysis(
    lag: int, point: Point, rate: float
) -> None:
    assert largest_stable_rate(0.9, lag, point) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(
    ("lag", "point"), [(1, Point(1, 1)), (2, Point(1.5, 2)), (4, Point(1.8, 6))]
)
def test_the_recursion_itself_grows_just_above_the_bound(lag: int, point: Point) -> None:
    bound = largest_stable_rate(0.9, lag, point)
    for factor, grows in ((0.97, False), (1.03, True)):
        weights, mean = [1.0] * (lag + 3), 0.0
        for _ in range(3000):
            at, before, first = weights[-1 - lag], weights[-2 - lag], weights[-3 - lag]
            last, earlier = before - at, first - before
            mean = 0.9 * mean + 0.1 * (at - point.c1 * last - point.c2 * (last - earlier))
            weights.append(weights[-1] - factor * bound * mean)
            if abs(weights[-1]) > 1e6:
                break
        assert (max(abs(w) for w in weights[-50:]) > 1) is grows


def test_the_noise_of_a_prediction_is_that_of_a_random_walk() -> None:
    lag, point = 3, Point(2.1, 3.0)
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).tolist()
    mean, updates = 0.0, []
    for gradient in noise:
        mean = 0.9 * mean + 0.1 * gradient
        updates.append(mean)
    steps = torch.tensor(updates, dtype=torch.float64)
    missed = steps[4:-1] + steps[3:-2] + steps[2:-3]
    known, before = steps[1:-4], steps[:-5]
    error = missed - point.c1 * known - point.c2 * (known - before)
    measured = float(error.square().mean().sqrt() / missed.square().mean().sqrt())
    assert prediction_noise(0.9, lag, point) == pytest.approx(measured, rel=0.02)
