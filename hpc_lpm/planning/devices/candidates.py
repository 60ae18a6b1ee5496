"""Ways to use a number of devices, and the combinations that are ruled out."""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.steady_state import SteadyStep


@dataclass(frozen=True)
class Candidate:
    """One way to use the devices: a model with its options, cuts, and the time of a step."""

    model: CostModel
    cuts: tuple[int, ...]
    step: SteadyStep

    @property
    def stages(self) -> int:
        """K."""
        return self.model.stages

    @property
    def replicas(self) -> int:
        """R, the copies of every stage."""
        return self.model.options.replicas

    @property
    def micro_batches(self) -> int:
        """M, the micro-batches of a step on one replica."""
        return self.model.options.micro_batches

    @property
    def micro_batch(self) -> int:
        """Samples of a micro-batch."""
        return self.model.profile.micro_batch

    @property
    def lead(self) -> int:
        """Micro-batches that each stage runs ahead of the next."""
        return self.model.options.lead

    @property
    def samples_per_second(self) -> float:
        """The rate of all replicas in steady state; 0 if no layer of the profile takes any time."""
        samples = self.micro_batches * self.micro_batch * self.replicas
        return float(samples / self.step.seconds) if self.step.seconds else 0.0

    @property
    def memory_bytes(self) -> int:
        """The bytes that the fullest device holds."""
        return self.model.largest_memory_bytes(self.cuts)

    @property
    def merit(self) -> tuple[Fraction, int, int, int]:
        """The key that candidates are sorted by; it differs between any two of one search."""
        return (self.step.seconds, self.lead, self.stages, self.micro_batches)


class Reason(Enum):
    """The reason why a combination is left out."""

    LAYERS = "more stages than layers"
    BATCH = "the global batch is not a multiple of micro-batch x replicas"
    MEMORY = "over the memory limit"


@dataclass(frozen=True)
class LeftOut:
    """A combination that was ruled out; `model` is set where the memory limit is the reason."""

    stages: int
    replicas: int
    micro_batch: int
    reason: Reason
    model: CostModel | None = None


@dataclass(frozen=True)
class DeviceSearch:
    """The candidates, best first and at least one, and the combinations left out."""

    devices: int
    global_batch: int
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def best(self) -> Candidate:
        """The candidate that trains fastest."""
        return self.candidates[0]

    def best_of_each(self) -> list[Candidate]:
        """Return the best lead of every (stages, replicas, micro-batch), best first."""
        best: dict[tuple[int, int], Candidate] = {}
        for candidate in self.candidates:
            best.setdefault((candidate.stages, candidate.micro_batch), candidate)
        return list(best.values())
