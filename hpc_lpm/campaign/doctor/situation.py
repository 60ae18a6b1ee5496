"""What the checks judge: the ranks that were asked for, those that came, and the folder at hand."""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.doctor.allocation import Allocation
from hpc_lpm.campaign.doctor.reports import JobReport


@dataclass(frozen=True)
class Situation:
    """The machine as seen from the ranks.

    `jobs` holds one report for each MPI job that answered: exactly one where all is well, one a
    process where the launcher and the MPI library do not know each other, none where nothing
    started. `problem` says what went wrong with the start. `processes` is how many the launcher,
    known by the name `launcher`, started. `allocation` is the job of Slurm that this is in.
    """

    ranks_asked: int
    processes: int
    jobs: tuple[JobReport, ...]
    folder: Path
    launcher: str = "mpirun"
    problem: str = ""
    allocation: Allocation | None = None

    @property
    def job(self) -> JobReport | None:
        """The job with as many ranks as were asked for, if it came into being."""
        if len(self.jobs) == 1 and len(self.jobs[0].ranks) == self.ranks_asked:
            return self.jobs[0]
        return None

    @property
    def unmeasured(self) -> str:
        """Why what is missing in `job` was not measured."""
        if self.job is not None and self.job.unfinished:
            return self.job.unfinished
        return "the ranks did not come"
