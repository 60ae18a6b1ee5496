"""Peak memory of one rank, from a chosen moment on."""

import resource
from pathlib import Path

import psutil
import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """Peak bytes above what the process held when this object was made.

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
