"""On a device that runs behind Python nothing is waited for but the step before."""

from hpc_lpm.engine.recorder import Recorder


class LateTimer:
    """A device that needs a second a mark; asking for a mark makes it get there."""

    def __init__(self) -> None:
        self.marks = 0
        self.waited_for = 0

    def mark(self) -> int:
        self.marks += 1
        return self.marks

    def seconds(self, start: object, stop: object) -> float:
        assert isinstance(start, int) and isinstance(stop, int)
        self.waited_for = max(self.waited_for, stop)
        return float(stop - start)


def test_marks_are_read_a_step_later_and_all_at_the_end_of_the_segment() -> None:
    timer = LateTimer()
    reported: list[tuple[int, float | None, float, bool]] = []
    recorder = Recorder(1, lambda *values: reported.append(values), timer)
    recorder.begin_segment()
    ends = []
    for step in range(3):
        recorder.add("forward", step, recorder.start())
        recorder.add("receive", step, recorder.start())
        recorder.end_step()
        ends.append(timer.marks)
        assert timer.waited_for == (ends[-2] if step else 0)
    recorder.end_segment()
    (epoch,) = recorder.segments
    assert epoch.step_end_seconds == [end - 1 for end in ends]
    assert epoch.busy_seconds == 3
    assert epoch.end_seconds == timer.marks - 1
    assert [(i.kind, i.start_seconds) for i in epoch.intervals] == [("forward", 1), ("receive", 3)]
    assert [step for step, *_ in reported] == [0, 1, 2]
