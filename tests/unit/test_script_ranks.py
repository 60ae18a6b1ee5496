"""Ranks of a script are compared by what they train, not by what differs from node to node."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpc_lpm.engine.attendance import Attendance
from hpc_lpm.engine.initialize import _compare, _Script
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.one_process.play import play_ranks
from hpc_lpm.errors import InputError


class Applied(nn.Module):
    """Shows the function that it applies as Python does, with its place in memory."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, value: Tensor) -> Tensor:
        return self.function(value)

    def extra_repr(self) -> str:
        return f"function={self.function}"


def module(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), *layers)


def compare(modules: Sequence[nn.Module], options: Sequence[dict[str, Any]] = ({}, {})) -> None:
    def part(job: PlayedJob) -> None:
        own = modules[job.rank]
        given = own, None, cross_entropy, None, None, options[job.rank]
        _compare(job, _Script.of(SingleProcess(), *given), own)

    play_ranks(len(modules), 60.0, part)


def test_ranks_may_have_other_numbers_of_threads_and_no_other_options() -> None:
    compare([module(), module()], [{"threads": 1}, {"threads": 2}])
    with pytest.raises(InputError, match="given other options on rank 1 than on rank 0"):
        compare([module(), module()], [{"seed": 1}, {"seed": 2}])


def test_functions_that_a_module_shows_may_lie_elsewhere_in_memory() -> None:
    alike = [module(Applied(lambda value: value.tanh())) for _ in range(2)]
    assert repr(alike[0]) != repr(alike[1])
    compare(alike)
    with pytest.raises(InputError, match="given another model on rank 1 than on rank 0"):
        compare([module(nn.Tanh()), module(nn.ReLU())])


def test_the_error_because_of_which_a_script_closes_its_engine_is_named_on_all_ranks() -> None:
    def part(job: PlayedJob) -> str:
        attendance = Attendance(job)
        with pytest.raises(InputError) as caught:
            if job.rank == 0:
                attendance.meet("drain")
            try:
                raise KeyError("a mistake of mine")
            finally:
                attendance.meet("close")
        return str(caught.value)

    for said in play_ranks(2, 60.0, part):
        assert "close after 0 batches, while its script handles KeyError: 'a mistake of" in said


def test_ranks_whose_scripts_handle_other_errors_may_close_their_engines_together() -> None:
    def part(job: PlayedJob) -> None:
        try:
            raise KeyError(job.rank)
        except KeyError:
            Attendance(job).meet("close")

    play_ranks(2, 60.0, part)
