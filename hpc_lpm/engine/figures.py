"""The figures of one rank, those before a resumption included."""

from hpc_lpm.engine.checkpoint.rank_record import RankRecord
from hpc_lpm.engine.memory import PeakMemory
from hpc_lpm.engine.recorder import Recorder


class RankFigures:
    """What one rank has measured so far.

    Args:
        recorder: of this rank.
        memory: of this rank.
    """

    def __init__(self, recorder: Recorder, memory: PeakMemory) -> None:
        self._recorder = recorder
        self._memory = memory
        self._sent_before = 0
        self._peak_before = 0

    def add_earlier(self, record: RankRecord) -> None:
        """Count what this rank measured before it was interrupted."""
        self._recorder.segments[:0] = record.segments
        self._recorder.peak_in_flight = max(self._recorder.peak_in_flight, record.peak_in_flight)
        self._recorder.lag_counts.update(record.lag_counts)
        self._sent_before += record.bytes_sent
        self._peak_before = max(self._peak_before, record.peak_memory_bytes)

    def record(self, bytes_sent: int) -> RankRecord:
        """Return all of it, without any state of optimizer or dropout.

        Args:
            bytes_sent: those that this process has sent.
        """
        return RankRecord(
            segments=self._recorder.segments,
            peak_in_flight=self._recorder.peak_in_flight,
            lag_counts=dict(self._recorder.lag_counts),
            bytes_sent=self._sent_before + bytes_sent,
            peak_memory_bytes=max(self._peak_before, self._memory.peak_bytes()),
        )
