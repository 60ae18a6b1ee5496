"""FSDP2 refuses before it trains what it cannot divide into rows."""

import pytest

from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError


def check(**more: object) -> None:
    common = {"model": "mlp", "dataset": "digits", "strategy": "fsdp", "steps": 1}
    settings = checked_settings(**{**common, "batch_size": 4, "micro_batches": 2, **more})
    strategy_named("fsdp").check(PlannedRun(settings, None, ranks=2))


@pytest.mark.parametrize("name", ["muon", "Muon", "Adafactor"])
def test_optimizers_that_look_at_more_than_a_row_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"fsdp gives each rank some rows .* use another"):
        check(optimizer={"name": name, "lr": 0.01})


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "adam", "adamw", "RMSprop", "tests.mpi.own_updates:Lion"]
)
def test_optimizers_that_update_each_row_alone_are_accepted(name: str) -> None:
    check(optimizer={"name": name, "lr": 0.01})


def test_kernels_that_are_not_stored_row_by_row_are_refused() -> None:
    with pytest.raises(InputError, match="--memory-format channels_last was given with"):
        check(memory_format="channels_last")
