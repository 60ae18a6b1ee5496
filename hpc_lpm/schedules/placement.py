"""Which device holds which stages of a plan: one each, or several, the chunks of the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from hpc_lpm.errors import InputError


@dataclass(frozen=True)
class Placement:
    """The stages of every device, first device first.

    Args:
        held: by device its stages, ascending: chunk c of device d is stage `held[d][c]`. Every
            stage is held once, and all devices hold equally many.
    """

    held: tuple[tuple[int, ...], ...]

    @classmethod
    def in_a_loop(cls, devices: int, chunks: int = 1) -> Self:
        """Deal the stages out in turn, as interleaved schedules do: 0 4, 1 5, 2 6, 3 7."""
        stages = devices * chunks
        return cls(tuple(tuple(range(device, stages, devices)) for device in range(devices)))

    @classmethod
    def in_a_v(cls, devices: int) -> Self:
        """Go down the devices and up again, so that the first has both ends: 0 7, 1 6, 2 5, 3 4."""
        return cls(tuple((device, 2 * devices - 1 - device) for device in range(devices)))

    @classmethod
    def of_stages(cls, stages: int, chunks: int, *, folded: bool, schedule: str) -> Self:
        """Place stages with `chunks` on each device, in a V where `folded`, else in a loop.

        Raises:
            InputError: if the stages cannot be shared out evenly.
        """
        devices, left = divmod(stages, chunks)
        if left or not devices:
            raise InputError(
                f"there are {stages} stages, but under schedule {schedule!r} each device holds "
                f"{chunks} of them: make the plan for this schedule."
            )
        return cls.in_a_v(devices) if folded else cls.in_a_loop(devices, chunks)

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return len(self.held)

    @property
    def chunks(self) -> int:
        """How many stages each device holds."""
        return len(self.held[0])

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return self.devices * self.chunks

    @cached_property
    def _places(self) -> dict[int, tuple[int, int]]:
        return {
            stage: (device, chunk)
            for device, stages in enumerate(self.held)
            for chunk, stage in enumerate(stages)
        }

    def stage(self, device: int, chunk: int = 0) -> int:
        """Return the stage that a device holds as its chunk of that number."""
        return self.held[device][chunk]

    def device(self, stage: int) -> int:
        """Return the device that holds a stage."""
        return self._places[stage][0]

    def chunk(self, stage: int) -> int:
        """Return which chunk of its device a stage is."""
        return self._places[stage][1]

    def on_devices(self, of_stages: Sequence[float]) -> list[float]:
        """Return the sums over the stages of each device, of numbers that are given by stage."""
        return [sum(of_stages[stage] for stage in stages) for stages in self.held]
