"""Which transport a run takes where nobody says."""

import logging
from pathlib import Path

import pytest
import torch

from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.pipeline.transport.mpi_library import says_cuda
from hpc_lpm.engine.pipeline.transport.registry import with_transport
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.topology import RankLocations, find_rank_locations
from hpc_lpm.errors import InputError

RUN = {"model": "mlp", "dataset": "digits", "strategy": "fbp", "epochs": 1}
ONE_HOST, TWO_HOSTS = RankLocations(1, False), RankLocations(2, False)
GPUS, GPUS_ON_HOSTS = RankLocations(1, True), RankLocations(2, True)


@pytest.mark.parametrize(
    ("asked", "locations", "transport", "progress_thread"),
    [
        ({}, ONE_HOST, "mpi", False),
        ({}, TWO_HOSTS, "mpi", True),
        ({}, GPUS, "torch", False),
        ({}, GPUS_ON_HOSTS, "torch", False),
        ({"transport": "mpi"}, GPUS_ON_HOSTS, "mpi", True),
        ({"transport": "torch"}, TWO_HOSTS, "torch", False),
        ({"progress_thread": True}, ONE_HOST, "mpi", True),
        ({"progress_thread": False}, TWO_HOSTS, "mpi", False),
        ({"progress_thread": True}, GPUS, "torch", False),
    ],
)
def test_auto_suits_the_place(
    asked: dict[str, object], locations: RankLocations, transport: str, progress_thread: bool
) -> None:
    chosen = with_transport(
        checked_settings(**RUN, **asked), locations, mpi=True, threads_may_call_mpi=True
    )
    assert (chosen.own.transport, chosen.own.progress_thread) == (transport, progress_thread)


def test_ranks_without_mpi_use_torch_alone() -> None:
    chosen = with_transport(
        checked_settings(**RUN), TWO_HOSTS, mpi=False, threads_may_call_mpi=False
    )
    assert (chosen.own.transport, chosen.own.progress_thread) == ("torch", False)
    asked = checked_settings(**RUN, transport="mpi")
    with pytest.raises(InputError, match=r"--transport mpi .* without MPI"):
        with_transport(asked, ONE_HOST, mpi=False, threads_may_call_mpi=False)


def test_an_mpi_without_threads_is_said_and_lived_with(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        chosen = with_transport(
            checked_settings(**RUN), TWO_HOSTS, mpi=True, threads_may_call_mpi=False
        )
    assert chosen.own.progress_thread is False
    assert "MPI_THREAD_MULTIPLE" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"transport": "tcp"}, "transport.*'mpi'"),
        ({"transport": "torch", "progress_thread": True}, "progress thread is for transport mpi"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        checked_settings(**RUN, **wrong)


def test_a_rank_on_a_cpu_has_no_gpu_of_its_own() -> None:
    assert find_rank_locations(SingleProcess(), torch.device("cpu")) == ONE_HOST


@pytest.mark.parametrize("answer", ["true", "false"])
def test_cuda_in_open_mpi_is_what_ompi_info_says(answer: str, tmp_path: Path) -> None:
    program = tmp_path / "ompi_info"
    line = f"mca:mpi:base:param:mpi_built_with_cuda_support:value:{answer}"
    program.write_text(f"#!/bin/sh\necho {line}\n", encoding="utf-8")
    program.chmod(0o755)
    assert says_cuda(str(program)) == (answer == "true")
    assert not says_cuda(str(tmp_path / "missing"))
