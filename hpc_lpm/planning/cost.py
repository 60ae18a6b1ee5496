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

Where a device holds several stages, its chunks, all of this is said of each stage, and searches
share the model out among stages; `device_period` and `device_memory_bytes` add them up. Speeds,
limits and links that are given one by one are those of devices. A device's memory limit is shared
evenly by its chunks. Nothing takes time between two stages of one device, though searches among
stages count a link there.

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
from hpc_lpm.schedules.chunked import ChunkedSchedule
from hpc_lpm.schedules.placement import Placement


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

    There are `options.stages_on(devices)` stages on so many devices. Prefix sums have L + 1
    entries: entry j sums layers 0 to j - 1.
    """

    def __init__(self, profile: Profile, stages: int, options: PlanOptions) -> None:
        """Prepare the sums.

        Raises:
            InputError: if there are more stages than layers, the schedule is unknown, or a list
                that needs one entry for each stage has another length.
        """
        layers = profile.layers
        self.schedule = options.scheduled
        _check_stages(profile, stages, self.schedule.chunks)
        self.placement = placement = self.schedule.placement(stages)
        """Which device holds which stages."""
        speeds = _per_device("speeds", options.speeds, placement)
        limits = _limits(options.memory_limit, placement)
        self.profile = profile
        self.layers = len(layers)
        self.stages = stages
        self.options = _completed(options, self.schedule, stages)
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
        self.links = _links(profile, placement, options)
        """The link of each of the boundaries between stages, also of those within a device."""
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

    def link_seconds(self, boundary: int, cut: int) -> Fraction:
        """Return what of X is spent on a link: none where one device holds both stages.

        Searches count X there too, as `transfer_seconds` says it.
        """
        if boundary in {-1, self.stages - 1}:
            return Fraction(0)
        device = self.placement.device
        if device(boundary) == device(boundary + 1):
            return Fraction(0)
        return self.transfer_seconds(boundary, cut)

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

    def device_period(self, cuts: Sequence[int]) -> Fraction:
        """Return P of a plan where devices take the passes of all their chunks in turn."""
        if self.placement.chunks == 1:
            return self.period(cuts)
        computing = self.device_seconds(cuts)
        links: dict[tuple[int, int], Fraction] = {}
        device = self.placement.device
        for boundary, cut in enumerate(cuts[1:-1]):
            above, below = device(boundary), device(boundary + 1)
            if above == below:
                continue
            for way in ((above, below), (below, above)):  # activations, and gradients back
                links[way] = links.get(way, Fraction(0)) + self.transfer_seconds(boundary, cut)
        if self.overlap:
            return max([*computing, *links.values()])  # one device alone has no links
        for (sender, receiver), seconds in links.items():
            computing[sender] += seconds
            computing[receiver] += seconds
        return max(computing)

    def device_seconds(self, cuts: Sequence[int]) -> list[Fraction]:
        """Return for how long each device computes for a micro-batch, all its chunks together."""
        by_stage = [
            self.compute_seconds(stage, start, stop)
            for stage, (start, stop) in enumerate(pairwise(cuts))
        ]
        return [
            sum((by_stage[stage] for stage in stages), Fraction(0))
            for stages in self.placement.held
        ]

    def device_memory_bytes(self, cuts: Sequence[int]) -> list[int]:
        """Return the bytes that each device holds, all its chunks together."""
        pairs = list(enumerate(pairwise(cuts)))
        by_stage = [self.memory_bytes(stage, start, stop) for stage, (start, stop) in pairs]
        if not isinstance(self.schedule, ChunkedSchedule):
            return by_stage
        # The chunks of a device do not all hold most at the same time.
        activations = [
            self.activation_sums[stop] - self.activation_sums[start] for _, (start, stop) in pairs
        ]
        without = [
            by_stage[stage] - self.factors[stage].memory.activations * activations[stage]
            for stage in range(self.stages)
        ]
        return [
            sum(without[stage] for stage in stages)
            + max(
                sum(held * activations[stage] for held, stage in zip(together, stages, strict=True))
                for together in self.schedule.in_flight_together(
                    device, self.stages, self.options.micro_batches
                )
            )
            for device, stages in enumerate(self.placement.held)
        ]

    def boundary_bytes(self, cuts: Sequence[int]) -> int:
        """Return V of a plan: the bytes that one micro-batch sends forward over all cuts."""
        return sum(self.cut_bytes[cut] for cut in cuts)

    def bytes_between_devices(self, cuts: Sequence[int]) -> int:
        """Return what of V crosses links: a device hands on to itself what stays in its memory."""
        device = self.placement.device
        return sum(
            self.cut_bytes[cut]
            for stage, cut in enumerate(cuts[1:-1])
            if device(stage) != device(stage + 1)
        )

    def largest_memory_bytes(self, cuts: Sequence[int]) -> int:
        """Return the largest Q of a plan's stages."""
        return max(
            self.memory_bytes(stage, start, stop)
            for stage, (start, stop) in enumerate(pairwise(cuts))
        )


def _completed(options: PlanOptions, schedule: Schedule, stages: int) -> PlanOptions:
    """Return the options with the rule by which their recipe predicts, and the number of chunks."""
    chunks = schedule.chunks if schedule.chunks > 1 else options.chunks
    rule = options.prediction_rule
    if rule is None:
        rule = Lag.of(schedule, stages, options).rule_of_recipe(options)
    return options.model_copy(update={"prediction_rule": rule, "chunks": chunks})


def _check_stages(profile: Profile, stages: int, chunks: int) -> None:
    layers = len(profile.layers)
    accepted = layers // chunks
    if stages < 1:
        raise InputError(f"--stages is {stages}, accepted is 1 to {accepted}.")
    if stages > layers:
        on_each = f" with {chunks} chunks on each device" if chunks > 1 else ""
        raise InputError(
            f"--stages is {stages // chunks}{on_each}, but {profile.model} has {layers} layers and "
            f"a {'chunk' if chunks > 1 else 'stage'} holds at least one: ask for at most "
            f"{accepted} stages."
        )


def _per_device(name: str, values: Sequence[float] | None, placement: Placement) -> Sequence[float]:
    """Return a number for each stage, which was given for its device."""
    values = values or (1.0,) * placement.devices
    if len(values) != placement.devices:
        raise InputError(
            f"{name} has {len(values)} entries for {placement.devices} stages: give one entry per "
            "stage."
        )
    return [values[placement.device(stage)] for stage in range(placement.stages)]


def _links(profile: Profile, placement: Placement, options: PlanOptions) -> list[BoundaryLink]:
    own = BoundaryLink.of(profile.link)
    devices, given = placement.devices, options.links
    if given is not None and len(given) != devices - 1:
        raise InputError(
            f"links has {len(given)} entries for {devices} stages: give one entry a "
            f"boundary between stages, {devices - 1} in all."
        )
    links = [own] * (placement.stages - 1)
    if given is None:
        return links
    for stage in range(placement.stages - 1):
        one, other = placement.device(stage), placement.device(stage + 1)
        if abs(one - other) == 1:
            links[stage] = BoundaryLink.of(given[min(one, other)])
        elif one != other:
            links[stage] = _slowest(given)
    return links


def _slowest(links: Sequence[Link]) -> BoundaryLink:
    """Return the worst of several links: what a loop closes over is not better than its parts."""
    return BoundaryLink(
        latency_seconds=max(Fraction(link.latency_seconds) for link in links),
        bytes_per_second=min(Fraction(link.bandwidth_bytes_per_second) for link in links),
    )


def _limits(limit: int | tuple[int, ...] | None, placement: Placement) -> Sequence[int | None]:
    if not isinstance(limit, tuple):
        return [None if limit is None else limit // placement.chunks] * placement.stages
    if len(limit) != placement.devices:
        raise InputError(
            f"memory_limit has {len(limit)} entries for {placement.devices} stages: give one entry "
            "per stage, or one for all."
        )
    return [limit[placement.device(stage)] // placement.chunks for stage in range(placement.stages)]


def _common_unit(values: Sequence[float]) -> Fraction:
    """Return the largest number that divides all floats, 1 if all are 0."""
    denominator = max(value.as_integer_ratio()[1] for value in values)
    numerator = gcd(*(int(Fraction(value) * denominator) for value in values))
    return Fraction(numerator or 1, denominator)


def _in_units(value: float, unit: Fraction) -> int:
    return int(Fraction(value) / unit)


def _prefix(values: Sequence[int]) -> list[int]:
    return [0, *accumulate(values)]
