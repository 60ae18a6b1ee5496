"""What every programme promises, checked by walking through it and counting."""

import subprocess
import sys
from fractions import Fraction

import pytest
from version_formulas import (
    backward_version,
    delay,
    forward_version,
    in_flight_bound,
    is_lagged,
    lag,
)

from hpc_lpm.errors import InputError
from hpc_lpm.schedules.instructions import Backward, Forward, Update
from hpc_lpm.schedules.registry import SCHEDULES, schedule_named

SHAPES = [
    (stages, micro_batches, lead)
    for stages in (1, 2, 3, 5)
    for micro_batches in (1, 2, 3, 4, 8, 16)
    for lead in (1, 2, 3)
]


def walk(programme):
    """Return the number of updates before each forward and backward, and the peak in flight."""
    updates, in_flight, peak, forwards, backwards = 0, 0, 0, {}, {}
    for instruction in programme:
        if isinstance(instruction, Update):
            updates += 1
        elif isinstance(instruction, Forward):
            forwards[instruction.micro_batch] = updates
            in_flight += 1
            peak = max(peak, in_flight)
        elif isinstance(instruction, Backward):
            backwards[instruction.micro_batch] = updates
            in_flight -= 1
    return forwards, backwards, peak


@pytest.mark.parametrize(("stages", "micro_batches", "lead"), SHAPES)
def test_fbp_versions_and_memory_are_those_of_the_formulas(stages, micro_batches, lead):
    total = micro_batches * (4 + lead * stages)
    for stage in range(stages):
        programme = SCHEDULES.named("fbp").programme(stage, stages, micro_batches, total, lead)
        forwards, backwards, peak = walk(programme)
        behind = delay(stage, stages, lead)
        assert peak == in_flight_bound(stage, stages, lead)
        for n in range(total):
            assert forwards[n] == forward_version(n, behind, micro_batches)
            assert backwards[n] == backward_version(n, micro_batches)
            assert is_lagged(n, behind, micro_batches) == (forwards[n] != backwards[n])


def test_lag_is_d_over_m_on_average_and_at_most_its_ceiling():
    for behind in range(12):
        for micro_batches in (1, 2, 3, 4, 8):
            settled = range(behind * micro_batches, (behind + 3) * micro_batches)
            lags = [lag(n, behind, micro_batches) for n in settled]
            assert Fraction(sum(lags), len(lags)) == Fraction(behind, micro_batches)
            assert set(lags) <= {behind // micro_batches, -(-behind // micro_batches)}


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "naive"])
@pytest.mark.parametrize(("stages", "micro_batches", "lead"), SHAPES)
def test_flushing_schedules_run_both_passes_on_the_same_version(name, stages, micro_batches, lead):
    schedule = SCHEDULES.named(name)
    for stage in range(stages):
        programme = schedule.programme(stage, stages, micro_batches, 3 * micro_batches, lead)
        forwards, backwards, peak = walk(programme)
        assert forwards == backwards
        assert forwards == {n: n // micro_batches for n in range(3 * micro_batches)}
        assert peak == schedule.in_flight_bounds(stages, micro_batches, lead)[stage]
        assert schedule.version_delay(stage, stages, micro_batches, lead) == 0


def test_peak_in_flight_of_the_rivals():
    assert SCHEDULES.named("gpipe").in_flight_bounds(4, 8) == [8, 8, 8, 8]
    assert SCHEDULES.named("1f1b").in_flight_bounds(4, 8) == [4, 3, 2, 1]
    assert SCHEDULES.named("1f1b").in_flight_bounds(4, 2) == [2, 2, 2, 1]
    assert SCHEDULES.named("naive").in_flight_bounds(4, 8) == [1, 1, 1, 1]
    assert SCHEDULES.named("fbp").in_flight_bounds(4, 8, lead=2) == [7, 5, 3, 1]


@pytest.mark.parametrize(
    "arguments",
    [(3, 3, 4, 8, 1), (-1, 3, 4, 8, 1), (0, 1, 0, 8, 1), (0, 1, 4, -1, 1), (0, 1, 4, 8, 0)],
)
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_impossible_arguments_are_refused(name, arguments):
    schedule = SCHEDULES.named(name)
    device, devices, *others = arguments
    with pytest.raises(ValueError, match="accepted"):
        schedule.programme(device, devices * schedule.chunks, *others)


def test_unknown_schedule_is_bad_input_with_a_hint():
    with pytest.raises(InputError, match="did you mean 'gpipe'"):
        schedule_named("gpip")


def test_schedules_need_no_torch():
    code = (
        "import sys, pkgutil, importlib, hpc_lpm.schedules as package\n"
        "for module in pkgutil.iter_modules(package.__path__):\n"
        "    importlib.import_module(f'{package.__name__}.{module.name}')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
