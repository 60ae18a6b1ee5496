"""The schedules by name. A new one is a file beside this one and a line in `SCHEDULES`."""

from copy import copy

from hpc_lpm.errors import InputError
from hpc_lpm.extensions import Registry, expect_type
from hpc_lpm.identifiers import user_path
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.controllable_memory import VHalf, VMin
from hpc_lpm.schedules.dualpipe_v import DualPipeV
from hpc_lpm.schedules.fbp import ForwardBackwardParallel
from hpc_lpm.schedules.gpipe import GPipe
from hpc_lpm.schedules.interleaved import Interleaved
from hpc_lpm.schedules.naive import Naive
from hpc_lpm.schedules.one_f_one_b import OneForwardOneBackward
from hpc_lpm.schedules.table import TableSchedule
from hpc_lpm.schedules.validate import check_schedule
from hpc_lpm.schedules.zero_bubble import ZeroBubbleH1, ZeroBubbleH2
from hpc_lpm.schedules.zero_bubble_v import ZeroBubbleV

_TABLE = "schedule:"
"""What a name begins with if the path of a table follows."""


def _adapt(name: str, found: object) -> Schedule:
    """Return a user's schedule under the name by which it was asked for, once it is proved sound.

    Raises:
        InputError: if it is no schedule, or fails where it is tried.
    """
    if isinstance(found, TableSchedule):
        return found
    try:
        # Whatever fails, the making of it included, is told in the same words.
        made = found() if isinstance(found, type) and issubclass(found, Schedule) else found
        schedule = copy(expect_type("schedule", name, made, Schedule))  # type: ignore[type-abstract]
        schedule.name = name
        check_schedule(schedule)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"schedule {name!r} fails on small pipelines, where it is tried before anything else "
            f"({error}): mend it, or use one of those that `hpc-lpm plan --help` names."
        ) from error
    return schedule


class ScheduleRegistry(Registry[Schedule]):
    """The registered schedules, and those that are read from tables, `schedule:FILE.csv`."""

    def is_table(self, name: str) -> bool:
        """Tell if a name stands for a table: no attribute of a module `schedule` ends in `.csv`."""
        return name.startswith(_TABLE) and name.lower().endswith(".csv")

    def is_known(self, name: str) -> bool:
        """Tell the same as any registry; a table is read, and nothing of it is run."""
        return self.is_table(name) or super().is_known(name)

    def _found(self, name: str) -> object:
        if self.is_table(name):
            return TableSchedule.read(name, user_path(name.removeprefix(_TABLE)))
        return super()._found(name)


SCHEDULES = ScheduleRegistry(
    "schedule",
    "hpc_lpm.schedules",
    {
        schedule.name: schedule
        for schedule in (
            ForwardBackwardParallel(),
            OneForwardOneBackward(),
            GPipe(),
            Naive(),
            Interleaved(),
            ZeroBubbleH1(),
            ZeroBubbleH2(),
            ZeroBubbleV(),
            DualPipeV(),
            VHalf(),
            VMin(),
        )
    },
    _adapt,
)

DEFAULT_SCHEDULE = ForwardBackwardParallel.name
"""The schedule of plans that name none."""

FLUSHING_SCHEDULE = OneForwardOneBackward.name
"""The schedule of steps whose weights must not lag, in runs that otherwise do not flush."""


def schedule_named(name: str) -> Schedule:
    """Return a schedule by its name.

    Raises:
        InputError: if there is none of that name, or one of the user's cannot be used.
    """
    return SCHEDULES.named(name)
