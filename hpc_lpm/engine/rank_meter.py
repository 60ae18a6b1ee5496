"""Measures one rank: its peak memory and, over all resumptions of the run, its whole record."""

import resource
from pathlib import Path

import psutil
import torch

from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.records import RankRecord, SavingSeconds, Straggle

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """Measures the peak memory above what the process held when this object was made.

    On a GPU it is the allocator's peak on that device; on a CPU the peak resident set
    (`VmHWM`, reset through `/proc/self/clear_refs`; see proc(5)).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._baseline = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        self._baseline = int(psutil.Process().memory_info().rss)
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK)
        except OSError:
            # Without the right to reset, the peak includes the imports: an upper bound.
            self._baseline = 0

    def peak_bytes(self) -> int:
        """Return the peak so far, in bytes."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return max(0, _resident_peak_bytes() - self._baseline)


def _resident_peak_bytes() -> int:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class RankMeter:
    """Puts together what one rank has measured so far, before and after a resumption.

    `saving` is counted up by what saves checkpoints.
    """

    def __init__(self, recorder: Recorder, memory: PeakMemory) -> None:
        self.saving = SavingSeconds()
        self._recorder = recorder
        self._memory = memory
        self._saving_before = SavingSeconds()
        self._sent_before = 0
        self._peak_before = 0
        self._straggles_before: list[Straggle] = []

    def add_earlier(self, record: RankRecord) -> None:
        """Add what this rank had measured before the run was interrupted."""
        self._recorder.segments[:0] = record.segments
        self._recorder.peak_in_flight = max(self._recorder.peak_in_flight, record.peak_in_flight)
        self._recorder.lag_counts.update(record.lag_counts)
        self._recorder.skipped_updates += record.skipped_updates
        self._saving_before += record.saving
        self._sent_before += record.bytes_sent
        self._peak_before = max(self._peak_before, record.peak_memory_bytes)
        self._straggles_before += record.straggles

    def record(self, bytes_sent: int) -> RankRecord:
        """Return the record of this rank; the state of optimizer and dropout is left empty.

        Args:
            bytes_sent: the bytes that this process has sent so far.
        """
        pace = self._recorder.pace
        return RankRecord(
            segments=self._recorder.segments,
            peak_in_flight=self._recorder.peak_in_flight,
            lag_counts=dict(self._recorder.lag_counts),
            skipped_updates=self._recorder.skipped_updates,
            saving=self._saving_before + self.saving,
            bytes_sent=self._sent_before + bytes_sent,
            peak_memory_bytes=max(self._peak_before, self._memory.peak_bytes()),
            straggles=[*self._straggles_before, *(pace.straggles if pace else [])],
        )
