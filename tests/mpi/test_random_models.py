"""Models made of random pieces train equally, whatever the cuts, the schedule and the policy."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.mpi.played_cases import played_sha256
from tests.mpi.random_models import PIECES, SHARED, Derived
from tests.mpi.test_exactness import train_cases

pytestmark = pytest.mark.mpi

OPTIMIZERS = [
    {"name": "momentum", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    {"name": "adamw", "lr": 0.02, "weight_decay": 0.1},
]
MICRO_BATCH = 10


def case(pieces: str, cuts: Iterable[int], strategy: str, per_step: int, **more: object) -> dict:
    return {
        "model": f"random_models:made,pieces={pieces}",
        "dataset": "digits,size=8",
        "strategy": strategy,
        "batch_size": MICRO_BATCH * per_step,
        "micro_batches": per_step,
        "steps": max(3, 8 // per_step),
        "optimizer": OPTIMIZERS[1],
        "seed": 3,
        "cuts": list(cuts),
        **more,
    }


def alone(c: dict) -> dict:
    return {k: v for k, v in {**c, "strategy": "sequential"}.items() if k != "cuts"}


@st.composite
def flushing_or_fbp(draw: st.DrawFn, stages: int) -> dict:
    flushing = draw(st.booleans())
    letters = [*PIECES, *(SHARED if flushing else "")]
    pieces = draw(st.lists(st.sampled_from(letters), min_size=2, max_size=7))
    layers = len(pieces) + 2
    inner = st.sets(st.integers(1, layers - 1), min_size=stages - 1, max_size=stages - 1)
    policy = {
        "weights": draw(st.sampled_from(["replay", "live", "stash"])),
        "lead": draw(st.integers(1, 2)),
    }
    return case(
        "".join(pieces),
        [0, *sorted(draw(inner)), layers],
        draw(st.sampled_from(["gpipe", "1f1b", "naive"])) if flushing else "fbp",
        draw(st.integers(1, 4)),
        optimizer=draw(st.sampled_from(OPTIMIZERS)),
        seed=draw(st.integers(0, 99)),
        **({} if flushing else policy),
    )


def check(stages: int, cases: list[dict], folder: Path) -> None:
    """Flushing schedules are sequential training, fbp is the played recurrence."""
    flushing = [c for c in cases if c["strategy"] != "fbp"]
    sequential = iter(train_cases(1, [alone(c) for c in flushing], folder) if flushing else [])
    for c, outcome in zip(cases, train_cases(stages, [*map(dict, cases)], folder), strict=True):
        if c["strategy"] == "fbp":
            assert outcome["weights_sha256"] == played_sha256(c, (Derived,)), c
        else:
            expected = next(sequential)
            assert outcome["weights_sha256"] == expected["weights_sha256"], c
            assert outcome["train_loss"] == expected["train_loss"], c


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
# Found cases are few and each a model of many pieces: shrinking would train for minutes.
@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_model_trains_equally(stages: int, data: st.DataObject, tmp_path: Path) -> None:
    drawn = st.lists(flushing_or_fbp(stages), min_size=6, max_size=8)
    check(stages, data.draw(drawn), tmp_path)


def test_every_piece_trains_equally_behind_a_cut_and_in_a_stage_that_lags(tmp_path: Path) -> None:
    cases = []
    for place, piece in enumerate(PIECES):
        pieces = f"l{piece}{piece}l"
        cases.append(case(pieces, [0, 3, 6], ["gpipe", "1f1b"][place % 2], 3))
        for weights, cut in (("replay", 4), ("live", 4), ("stash", 3)):
            cuts = [0, cut, 6]
            cases.append(case(pieces, cuts, "fbp", 1, weights=weights, lead=2, steps=5))
    cases += [case(f"l{piece}l{piece}l", [0, 3, 7], "1f1b", 1) for piece in SHARED]
    check(2, cases, tmp_path)


def test_a_tensor_that_crosses_in_two_places_is_one(tmp_path: Path) -> None:
    # Three uses behind the cut: their gradients have to be added up in sequential training's order.
    cases = [case("lplo", [0, 3, 6], "gpipe", 2)]
    cases += [case("lplo", [0, 3, 6], "fbp", 2, weights=w) for w in ("replay", "live", "stash")]
    cases.append(case("lpgo", [0, 4, 6], "fbp", 1, weights="live", lead=2))
    check(2, cases, tmp_path)


def test_a_stage_learns_from_the_micro_batches_that_have_a_gradient_for_it(tmp_path: Path) -> None:
    # With some of these seeds the first micro-batch of all has none, with others it has one.
    cases = [
        case("kl", [0, 2, 4], strategy, 3, seed=seed)
        for seed in range(6)
        for strategy in ("gpipe", "fbp")
    ]
    check(2, cases, tmp_path)
