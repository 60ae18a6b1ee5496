"""The cost model: what a stage made of layers [start, stop) takes, sends and holds, exactly.

Every float of the profile and of the options is taken at its exact binary value and all sums are
integers or fractions, so rounding never decides between two plans. Stages are counted from 0, M is
the micro-batches of an optimizer step. What depends on the order of passes is asked of the
schedule.

* compute  T_k = (sum of forwards + sum of backwards) / speed_k, and where weights are replayed the
  sum of forwards once more for the share of the micro-batches that lag: lagged_k / M / speed_k
* transfer X_j = latency + output bytes / bandwidth over a cut before layer j, one direction, of the
  link at that boundary; boundary k is that between stages k and k + 1
* period   P = max of all T and X where transfers overlap with compute, else the largest
  T_k + 2 X_in + 2 X_out
* memory   Q_k, see `memory`

P is the period in steady state, between two flushes: a schedule that flushes loses time at every
update besides, which `explain` says and `hpc-lpm simulate` counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from math import gcd

from hpc_lpm.errors import InputError
from hpc_lpm.planning.exact_integers import Column
from hpc_lpm.planning.memory import MemoryFactors, further_state_bytes
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.worth.lag import Lag
from hpc_lpm.profile_file import Link, Profile
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.registry import schedule_named


@dataclass(frozen=True)
class BoundaryLink:
    """A link with exact numbers."""

    latency_seconds: Fraction
    bytes_per_second: Fraction

    @classmethod
    def of(cls, link: Link) -> "BoundaryLink":
        """Convert a link, taking its floats at their exact values."""
        return cls(Fraction(link.latency_seconds), Fraction(link.bandwidth_bytes_per_second))

    def seconds(self, size_bytes: int) -> Fraction:
        """Return the seconds that a message of `size_bytes` takes."""
        return self.latency_seconds + size_bytes / self.bytes_per_second

    def bytes_within(self, seconds: Fraction) -> int:
        """Return the size of the largest message that takes no longer, negative if none does."""
        return int((seconds - self.latency_seconds) * self.bytes_per_second // 1)


@dataclass(frozen=True)
class StageFactors:
    """The factors of the sums over layers at one stage.

    The work of a stage is `forward` x forwards + `backward` x backwards, all integers; it takes
    work x `seconds_per_work`.
    """

    forward: int
    backward: int
    seconds_per_work: Fraction
    memory: MemoryFactors
    memory_limit_bytes: int | None


class CostModel:
    """Costs of stages and of whole plans for one profile, number of stages and set of options.

    Prefix sums have L + 1 entries: entry j sums layers 0 to j - 1.
    """

    def __init__(self, profile: Profile, stages: int, options: PlanOptions) -> None:
        """Prepare the sums.

        Raises:
            InputError: if there are more stages than layers, the schedule is unknown, or a list
                that needs one entry for each stage has another length.
        """
        _check_stages(profile, stages)
        speeds = _per_stage("speeds", options.speeds or (1.0,) * stages, stages)
        limits = _limits(options.memory_limit, stages)
        layers = profile.layers
        self.profile = profile
        self.layers = len(layers)
        self.stages = stages
        self.schedule = schedule_named(options.schedule)
        self.options = _with_rule_of_recipe(options, self.schedule, stages)
        self.ahead = [
            self.schedule.ahead(stage, stages, options.micro_batches, options.lead)
            for stage in range(stages)
        ]
        """By how many micro-batches the forwards of each stage are ahead of its backwards."""
        self.overlap = profile.link.overlap if options.overlap is None else options.overlap
        unit = _common_unit(
            [layer.forward_seconds for layer in layers]
            + [layer.backward_seconds for layer in layers]
        )
        self.forward_sums = _prefix([_in_units(layer.forward_seconds, unit) for layer in layers])
        self.backward_sums = _prefix([_in_units(layer.backward_seconds, unit) for layer in layers])
        self.parameter_sums = _prefix([layer.parameter_bytes for layer in layers])
        self.activation_sums = _prefix([layer.activation_bytes for layer in layers])
        self.further_state_sums = _prefix(
            [
                further_state_bytes(
                    layer.parameter_bytes, layer.matrix_parameter_bytes, options.optimizer
                )
                for layer in layers
            ]
        )
        """The optimizer's state beyond what `MemoryFactors` counts."""
        self.cut_bytes = [0, *(layer.output_bytes for layer in layers[:-1]), 0]
        """Bytes over a cut before layer j; nothing crosses before the first and after the last."""
        self.links = _links(profile, stages, options)
        """The link of each of the K - 1 boundaries."""
        self.factors = [
            self._factors(stage, Fraction(speeds[stage]), limits[stage], unit)
            for stage in range(stages)
        ]
        self._forwards, self._backwards = Column(self.forward_sums), Column(self.backward_sums)
        self._parameters = Column(self.parameter_sums)
        self._activations = Column(self.activation_sums)
        self._further_state = Column(self.further_state_sums)
        self._work_sums: dict[tuple[int, int], list[int]] = {}
        self._asked_period: Fraction | None = None
        self._work_within: dict[tuple[int, int], int] = {}
        self.crossing = Column(self.cut_bytes)
        """The same numbers as `cut_bytes`."""

    def _factors(
        self, stage: int, speed: Fraction, limit: int | None, unit: Fraction
    ) -> StageFactors:
        options = self.options
        per_step = options.micro_batches
        replayed = 0
        if options.weights == "replay":
            replayed = self.schedule.lagged(
                stage, self.stages, per_step, options.lead, replicas=options.replicas
            )
        return StageFactors(
            forward=per_step + replayed,
            backward=per_step,
            seconds_per_work=unit / per_step / speed,
            memory=MemoryFactors.of_stage(self.schedule, stage, self.stages, options),
            memory_limit_bytes=limit,
        )

    def work_terms(self, stage: int) -> list[tuple[int, Column]]:
        """Return weights and sums that make up the work at `stage` of all layers before a cut."""
        factors = self.factors[stage]
        return [(factors.forward, self._forwards), (factors.backward, self._backwards)]

    def memory_terms(self, stage: int) -> list[tuple[int, Column]]:
        """Return weights and sums that make up the bytes at `stage` of all layers before a cut."""
        factors = self.factors[stage].memory
        terms = [(factors.parameters, self._parameters), (factors.activations, self._activations)]
        return [*terms, (1, self._further_state)] if self.further_state_sums[-1] else terms

    def work(self, stage: int, start: int, stop: int) -> int:
        """Return the integer work of layers [start, stop) at `stage`."""
        factors = self.factors[stage]
        return factors.forward * (
            self.forward_sums[stop] - self.forward_sums[start]
        ) + factors.backward * (self.backward_sums[stop] - self.backward_sums[start])

    def work_sums(self, stage: int) -> list[int]:
        """Return the work at `stage` of all layers before each cut: L + 1 prefix sums."""
        factors = self.factors[stage]
        weights = factors.forward, factors.backward
        if weights not in self._work_sums:
            self._work_sums[weights] = [
                factors.forward * forward + factors.backward * backward
                for forward, backward in zip(self.forward_sums, self.backward_sums, strict=True)
            ]
        return self._work_sums[weights]

    def layer_time_sums(self) -> list[int]:
        """Return the prefix sums of what the layers' two passes take on equally fast devices.

        Exact integers, in the unit that all times of the profile are multiples of. Like their
        originals, planners `greedy` and `pipedream` look at nothing else: at no transfer, no
        memory and nothing that is replayed.
        """
        return [
            forward + backward
            for forward, backward in zip(self.forward_sums, self.backward_sums, strict=True)
        ]

    def work_within(self, stage: int, period: Fraction) -> int:
        """Return the most work that `stage` can do in `period` seconds."""
        if period is not self._asked_period:
            # Searches ask for one period at all stages, and most stages are alike.
            self._asked_period, self._work_within = period, {}
        per_work = self.factors[stage].seconds_per_work
        kind = per_work.as_integer_ratio()
        if kind not in self._work_within:
            self._work_within[kind] = int(period // per_work)
        return self._work_within[kind]

    def compute_seconds(self, stage: int, start: int, stop: int) -> Fraction:
        """Return T of layers [start, stop) at `stage`."""
        return self.work(stage, start, stop) * self.factors[stage].seconds_per_work

    def transfer_seconds(self, boundary: int, cut: int) -> Fraction:
        """Return X over boundary `boundary` if it cuts before layer `cut`, 0 at the ends."""
        if boundary in {-1, self.stages - 1}:
            return Fraction(0)
        return self.links[boundary].seconds(self.cut_bytes[cut])

    def memory_bytes(self, stage: int, start: int, stop: int) -> int:
        """Return Q of layers [start, stop) at `stage`."""
        return self.factors[stage].memory.bytes_of(
            self.parameter_sums[stop] - self.parameter_sums[start],
            self.activation_sums[stop] - self.activation_sums[start],
            self.further_state_sums[stop] - self.further_state_sums[start],
        )

    def stage_period(self, stage: int, start: int, stop: int) -> Fraction:
        """Return the shortest period that layers [start, stop) allow at `stage`."""
        compute = self.compute_seconds(stage, start, stop)
        before = self.transfer_seconds(stage - 1, start)
        after = self.transfer_seconds(stage, stop)
        if self.overlap:
            return max(compute, before, after)
        return compute + 2 * before + 2 * after

    def period(self, cuts: Sequence[int]) -> Fraction:
        """Return P of a plan, in seconds per micro-batch."""
        return max(
            self.stage_period(stage, start, stop)
            for stage, (start, stop) in enumerate(pairwise(cuts))
        )

    def boundary_bytes(self, cuts: Sequence[int]) -> int:
        """Return V of a plan: the bytes that one micro-batch sends forward over all cuts."""
        return sum(self.cut_bytes[cut] for cut in cuts)

    def largest_memory_bytes(self, cuts: Sequence[int]) -> int:
        """Return the largest Q of a plan's stages."""
        return max(
            self.memory_bytes(stage, start, stop)
            for stage, (start, stop) in enumerate(pairwise(cuts))
        )


def _with_rule_of_recipe(options: PlanOptions, schedule: Schedule, stages: int) -> PlanOptions:
    """Return the options with the rule by which their recipe predicts at this depth."""
    if options.prediction_rule is not None:
        return options
    rule = Lag.of(schedule, stages, options).rule_of_recipe(options)
    return options.model_copy(update={"prediction_rule": rule})


def _check_stages(profile: Profile, stages: int) -> None:
    layers = len(profile.layers)
    if stages < 1:
        raise InputError(f"--stages is {stages}, accepted is 1 to {layers}.")
    if stages > layers:
        raise InputError(
            f"--stages is {stages}, but {profile.model} has {layers} layers and a stage holds at "
            f"least one: ask for at most {layers} stages."
        )


def _per_stage(name: str, values: Sequence[float], stages: int) -> Sequence[float]:
    if len(values) != stages:
        raise InputError(
            f"{name} has {len(values)} entries for {stages} stages: give one entry per stage."
        )
    return values


def _links(profile: Profile, stages: int, options: PlanOptions) -> Sequence[BoundaryLink]:
    if options.links is None:
        return [BoundaryLink.of(profile.link)] * (stages - 1)
    if len(options.links) != stages - 1:
        raise InputError(
            f"links has {len(options.links)} entries for {stages} stages: give one entry a "
            f"boundary between stages, {stages - 1} in all."
        )
    return [BoundaryLink.of(link) for link in options.links]


def _limits(limit: int | tuple[int, ...] | None, stages: int) -> Sequence[int | None]:
    if not isinstance(limit, tuple):
        return [limit] * stages
    if len(limit) != stages:
        raise InputError(
            f"memory_limit has {len(limit)} entries for {stages} stages: give one entry per stage, "
            f"or one for all."
        )
    return limit


def _common_unit(values: Sequence[float]) -> Fraction:
    """Return the largest number that divides all floats, 1 if all are 0."""
    denominator = max(value.as_integer_ratio()[1] for value in values)
    numerator = gcd(*(int(Fraction(value) * denominator) for value in values))
    return Fraction(numerator or 1, denominator)


def _in_units(value: float, unit: Fraction) -> int:
    return int(Fraction(value) / unit)


def _prefix(values: Sequence[int]) -> list[int]:
    return [0, *accumulate(values)]
