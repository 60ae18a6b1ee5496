"""The case that predictions are made for: what is trained, on which devices and links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from hpc_lpm.errors import InputError
from hpc_lpm.planning.links import check_nodes_told, link_of
from hpc_lpm.planning.options import MOST_DEVICES, PlanOptions
from hpc_lpm.planning.worth.measured import Measurements
from hpc_lpm.profile_file import Link, LinkProfile, Profile

AnyLink = TypeVar("AnyLink", bound=Link)


@dataclass(frozen=True)
class Nodes:
    """Nodes of several devices each: the link between two of them, and the devices of one."""

    link: Link
    devices: int

    @classmethod
    def of(cls, node_link: str | None, devices_per_node: int | None) -> Self | None:
        """Return the nodes that options describe, None if they describe none.

        Raises:
            InputError: if one is missing or not accepted.
        """
        check_nodes_told(node_link, devices_per_node)
        if node_link is None or devices_per_node is None:
            return None
        return cls(link_of("--node-link", node_link), devices_per_node)


MOST_SAMPLES = 10_000_000
"""The largest batch, of which every divisor is tried as a number of micro-batches."""


def check_numbers(devices: int, batch_size: int) -> None:
    """Check what is asked for before anything is profiled.

    Raises:
        InputError: naming the option.
    """
    if not 2 <= devices <= MOST_DEVICES:
        raise InputError(
            f"--devices is {devices}, accepted are whole numbers from 2 to {MOST_DEVICES:,}: on "
            "one device there is nothing to choose."
        )
    if not 1 <= batch_size <= MOST_SAMPLES:
        raise InputError(
            f"--batch-size is {batch_size}, accepted are numbers from 1 to {MOST_SAMPLES:,}."
        )


@dataclass(frozen=True)
class Case:
    """What is to be trained on which devices; every strategy is asked what it would do with it.

    Attributes:
        profiles: of the whole model, each of another micro-batch.
        devices: how many are to train it.
        batch_size: samples of an optimizer step on all of them.
        options: the optimizer, the memory limit of a device, the recipe and the overlap.
        measured: what a step is worth where weights lag.
        nodes: what the devices are spread over, None where all are joined by the profile's link.
        threaded_seconds: both passes of a micro-batch of so many samples in one process that
            computes with a thread for each device, as far as that was measured.
    """

    profiles: tuple[Profile, ...]
    devices: int
    batch_size: int
    options: PlanOptions
    measured: Measurements
    nodes: Nodes | None = None
    threaded_seconds: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers that no devices and no batch have.

        Raises:
            InputError: naming the option.
        """
        check_numbers(self.devices, self.batch_size)
        if isinstance(self.options.memory_limit, tuple):
            raise InputError(
                "--memory-limit has one entry per stage, but the number of stages is searched: "
                "give one size for all devices."
            )

    @property
    def memory_limit(self) -> int | None:
        """The bytes that a device holds at most, None for no limit."""
        limit = self.options.memory_limit
        assert not isinstance(limit, tuple)
        return limit

    @property
    def overlap(self) -> bool:
        """Whether transfers hide behind compute."""
        given = self.options.overlap
        return self.profiles[0].link.overlap if given is None else given

    def wired(self, profile: Profile, stages: int) -> tuple[Profile, tuple[Link, ...] | None]:
        """Return the profile with the link that replicas average over, and that of each boundary.

        Rank k R + r is replica r of stage k, and neighbouring ranks share a node. A boundary or an
        average that crosses between nodes for one replica or stage counts as crossing for all.
        """
        if self.nodes is None:
            return profile, None
        replicas, inside = self.devices // stages, profile.link
        averaged = any(
            self._apart(stage * replicas, (stage + 1) * replicas - 1) for stage in range(stages)
        )
        links = tuple(
            self.nodes.link
            if any(
                self._apart(stage * replicas + replica, (stage + 1) * replicas + replica)
                for replica in range(replicas)
            )
            else Link(**inside.model_dump(exclude={"overlap"}))
            for stage in range(stages - 1)
        )
        link = LinkProfile(**self.nodes.link.model_dump(), overlap=inside.overlap)
        return (profile.model_copy(update={"link": link}) if averaged else profile), links

    def _apart(self, rank: int, other: int) -> bool:
        assert self.nodes is not None
        return rank // self.nodes.devices != other // self.nodes.devices

    def profile_at(self, micro_batch: int) -> Profile:
        """Return the profile of micro-batches of so many samples."""
        return next(each for each in self.profiles if each.micro_batch == micro_batch)

    def with_links_times(self, factor: float) -> Self:
        """Return the case with all bandwidths multiplied by `factor`."""
        return replace(
            self,
            profiles=tuple(
                profile.model_copy(update={"link": _faster(profile.link, factor)})
                for profile in self.profiles
            ),
            nodes=None
            if self.nodes is None
            else replace(self.nodes, link=_faster(self.nodes.link, factor)),
        )

    def without_memory_limit(self) -> Self:
        """Return the case with devices that hold anything."""
        return replace(self, options=self.options.model_copy(update={"memory_limit": None}))


def divided_batch(case: Case, parts: int) -> Sequence[tuple[Profile, int]]:
    """Return the profiles by whose micro-batches a step divides evenly among `parts` ranks.

    Each comes with its micro-batches of a step over all ranks.

    Raises:
        InputError: if there is none.
    """
    found = [
        (profile, case.batch_size // profile.micro_batch)
        for profile in case.profiles
        if case.batch_size % (profile.micro_batch * parts) == 0
    ]
    if not found:
        sizes = ", ".join(str(profile.micro_batch) for profile in case.profiles)
        among = f" x {parts} ranks" if parts > 1 else ""
        raise InputError(
            f"the {case.batch_size} samples of a step are no multiple of a profiled micro-batch "
            f"({sizes}){among}"
        )
    return found


def _faster(link: AnyLink, factor: float) -> AnyLink:
    bandwidth = link.bandwidth_bytes_per_second * factor
    return link.model_copy(update={"bandwidth_bytes_per_second": bandwidth})
