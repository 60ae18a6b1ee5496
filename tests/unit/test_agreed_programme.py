"""A stage that hears of a stop in the middle of its programme executes that of the shorter run."""

import itertools

import pytest

from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.pipeline.agreed_programme import AgreedProgramme
from hpc_lpm.engine.stop_agreement import STEPS_AHEAD, StopAgreement
from hpc_lpm.schedules.instructions import (
    Forward,
    Instruction,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    ReceiveTiedGradient,
    ReceiveTiedWeights,
)
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.stop_signals import StopSignals

STEPS = 7


class Informed(StopAgreement):
    """Hears that training stops before `stop` as late as it may: a step before it begins."""

    def __init__(self, stop: int) -> None:
        super().__init__(SingleProcess(), StopSignals())
        self.stop = stop

    def begin_step(self, step: int) -> None:
        while self.agreed < self.end and self.agreed < step + STEPS_AHEAD:
            if self.agreed == self.stop:
                self.end = self.stop
            else:
                self.agreed += 1

    def listen(self) -> None:
        pass


class Announced:
    """Remembers how many steps were announced."""

    def __init__(self) -> None:
        self.steps = 0

    def announce(self, end_step: int) -> None:
        assert end_step >= self.steps
        self.steps = end_step


def step_of(instruction: Instruction, per_step: int) -> int | None:
    match instruction:
        case ReceiveActivation(n) | ReceiveGradient(n):
            return n // per_step
        case ReceiveTiedGradient(step) | ReceiveTiedWeights(step):
            return step
        case _:
            return None


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("replay", [False, True])
def test_the_rest_is_that_of_the_programme_for_fewer_steps(name: str, replay: bool) -> None:
    for stages, per_step, lead, replicas in itertools.product((1, 3, 5), (1, 2, 4), (1, 3), (1, 2)):
        ties = [(first, last) for first, last in [(0, stages - 1), (0, 1), (1, 2)] if last < stages]
        ties = sorted({tie for tie in ties if tie[0] < tie[1]})
        for stage, stop in itertools.product(range(stages), range(STEPS_AHEAD, STEPS + 1)):

            def programme_of(
                micro_batches: int,
                *shape: int,
                ties: list[tuple[int, int]] = ties,
                lead: int = lead,
                replicas: int = replicas,
                at: tuple[int, int, int] = (stage, stages, per_step),
            ) -> Programme:
                return SCHEDULES.named(name).programme(
                    *at, micro_batches, lead, replay=replay, replicas=replicas, ties=ties
                )

            agreement = Informed(stop)
            agreement.begin_segment(STEPS)
            agreed = AgreedProgramme(programme_of, STEPS * per_step, per_step, agreement)
            announced = Announced()
            done = []
            for instruction in agreed.run(announced):  # type: ignore[arg-type]
                step = step_of(instruction, per_step)
                assert step is None or step < announced.steps, instruction
                done.append(instruction)
            assert done == programme_of(stop * per_step)
            assert announced.steps == stop


def test_a_schedule_that_does_not_go_on_alike_is_named_a_defect() -> None:
    def programme_of(micro_batches: int) -> Programme:
        order = range(micro_batches) if micro_batches == 4 else reversed(range(micro_batches))
        return [Forward(n) for n in order]

    agreement = Informed(2)
    agreement.begin_segment(4)
    with pytest.raises(RuntimeError, match="defect of the schedule"):
        list(AgreedProgramme(programme_of, 4, 1, agreement).run(Announced()))  # type: ignore[arg-type]
