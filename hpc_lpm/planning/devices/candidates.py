"""Ways to use a number of devices, and the combinations that are ruled out."""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Literal

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.steady_state import SteadyStep
from hpc_lpm.planning.worth.expected import ExpectedSteps
from hpc_lpm.planning.worth.lag import Lag

Objective = Literal["throughput", "time-to-target"]
"""What a search looks for: the shortest step, or the shortest way to a target."""

THROUGHPUT: Objective = "throughput"
TIME_TO_TARGET: Objective = "time-to-target"


@dataclass(frozen=True)
class Candidate:
    """One way to use the devices: a model with its options, cuts, and the time of a step.

    `expected` is how many steps it needs, as a multiple of those of synchronous training.
    """

    model: CostModel
    cuts: tuple[int, ...]
    step: SteadyStep
    expected: ExpectedSteps

    @property
    def stages(self) -> int:
        """K, the devices of each replica; under a schedule with chunks each holds several."""
        return self.model.placement.devices

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
    def lag(self) -> Lag:
        """By how many updates weights lag."""
        return Lag.of(self.model.schedule, self.model.stages, self.model.options)

    @property
    def target_seconds(self) -> Fraction | None:
        """The seconds in which it comes as far as one synchronous step; None if that is unknown."""
        ratio = self.expected.ratio
        return None if ratio is None else self.step.seconds * ratio

    @property
    def memory_bytes(self) -> int:
        """The bytes that the fullest device holds."""
        return max(self.model.device_memory_bytes(self.cuts))

    @property
    def merit(self) -> tuple[Fraction, int, int, int]:
        """The key that candidates are sorted by; it differs between any two of one search."""
        return (self.step.seconds, self.lead, self.stages, self.micro_batches)

    @property
    def target_merit(self) -> tuple[bool, Fraction, int, int, int]:
        """The key where the time to a target decides: what is unknown comes last."""
        seconds = self.target_seconds
        known = self.step.seconds if seconds is None else seconds
        return (seconds is None, known, self.lead, self.stages, self.micro_batches)


class Reason(Enum):
    """The reason why a combination is left out."""

    LAYERS = "more stages than layers"
    BATCH = "the global batch is not a multiple of micro-batch x replicas"
    MICRO_BATCHES = "another number of micro-batches than asked for"
    MEMORY = "over the memory limit"
    VERSIONS = "more versions of the weights in use than two"


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
    objective: Objective = THROUGHPUT

    @property
    def best(self) -> Candidate:
        """The candidate that the objective puts first."""
        return self.candidates[0]

    @property
    def for_target(self) -> bool:
        """Whether the time to a target decides."""
        return self.objective == TIME_TO_TARGET

    def best_of_each(self) -> list[Candidate]:
        """Return the best of every (schedule, stages, replicas, micro-batch), best first."""
        best: dict[tuple[str, int, int], Candidate] = {}
        for candidate in self.candidates:
            key = (candidate.model.options.schedule, candidate.stages, candidate.micro_batch)
            best.setdefault(key, candidate)
        return list(best.values())
