"""The schema of a probe's report: what the ranks are, and what was measured between them.

Rank 0 of a probe prints it as JSON, and the process that started the ranks reads it.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class GpuReport(_Report):
    """One GPU that a rank sees: the name of its model and its unique id."""

    name: str
    uuid: str


class GpuSight(_Report):
    """The GPUs that a process sees, and why it may see none.

    Attributes:
        torch: version of torch.
        built_for: version of CUDA or ROCm that torch was built for; None if it is for CPUs only.
        driver: whether the node has an NVIDIA driver.
        visible_devices: value of the environment variable that hides GPUs; None if it is unset.
        gpus: the GPUs that torch sees.
        problem: why torch did not answer, or empty.
    """

    torch: str
    built_for: str | None
    driver: bool
    visible_devices: str | None = None
    gpus: tuple[GpuReport, ...] = ()
    problem: str = ""


class Software(_Report):
    """The Python that a rank runs, and the versions that must be the same on all ranks."""

    executable: str
    versions: dict[str, str]


class RankReport(_Report):
    """One rank: its process, host, cores, threads, GPUs and software.

    Attributes:
        cores: numbers of the cores that the rank may run on.
        launcher_cores: number of cores that its launcher may run on, and could have given it.
        core_quota: limit of its control group in cores; None if there is no limit.
        slurm_cores: number of cores on this node that Slurm allocated to the job; None outside one.
        threads: number of threads that torch computes with.
        omp_num_threads: value of OMP_NUM_THREADS; None if it is unset.
        gpu_number: index, among the GPUs that the rank sees, of the one that training would use.
        interface: the network interface with the address of its node's name; empty if none has it.
        network_of_user: the variable by which the user names the network of Open MPI; else empty.
    """

    pid: int
    host: str
    cores: tuple[int, ...]
    launcher_cores: int
    core_quota: float | None
    slurm_cores: int | None
    threads: int
    omp_num_threads: str | None
    gpu: GpuSight
    gpu_number: int
    software: Software
    interface: str = ""
    network_of_user: str = ""


class ClockReading(_Report):
    """The clocks of one rank at the end of the probe, right after all ranks have synchronized.

    Attributes:
        monotonic: reading of the monotonic clock [s].
        monotonic_elapsed: duration of the probe by the monotonic clock [s].
        wall_elapsed: duration of the probe by the wall clock [s].
    """

    monotonic: float
    monotonic_elapsed: float
    wall_elapsed: float


class ClockOffset(_Report):
    """A host's wall clock minus that of rank 0's host [s]; None if the host did not answer."""

    host: str
    offset_seconds: float | None
    uncertainty_seconds: float | None


class NeighbourLink(_Report):
    """The link between two ranks of one host with successive numbers."""

    ranks: tuple[int, int]
    latency_seconds: float
    bandwidth_bytes_per_second: float


class NodeLink(_Report):
    """The link between two nodes in its slower direction; all is None if no message came through.

    `message_bytes` is the size of the messages with which the bandwidth was measured.
    """

    nodes: tuple[str, str]
    latency_seconds: float | None
    bandwidth_bytes_per_second: float | None
    message_bytes: int | None


class LinkOfNodes(_Report):
    """A link as the command prints it: between two nodes, or within one, which is then named twice.

    Within a node, the highest latency and the lowest bandwidth of its pairs of ranks are given;
    between two, `message_bytes` is the size of the messages that the bandwidth was measured with.
    """

    nodes: tuple[str, str]
    latency_seconds: float | None
    bandwidth_bytes_per_second: float | None
    message_bytes: int | None = None


class SharedFiles(_Report):
    """How one node sees the folder that all nodes should share.

    Attributes:
        problem: why the node could not write there, or empty.
        unseen: hosts whose files did not appear with their content within `waited_seconds`.
        waited_seconds: how long it took until all files of the other nodes were seen.
        lock_problem: what is wrong with file locks, or empty; None if they were not tried.
    """

    host: str
    problem: str = ""
    unseen: tuple[str, ...] = ()
    waited_seconds: float = 0.0
    lock_problem: str | None = None


class JobReport(_Report):
    """The ranks of one MPI job in order of their numbers, and what was measured between them.

    What was not measured is empty.

    Attributes:
        name: a name that tells the job from all others.
        library: version of the MPI library, as the library gives it.
        node_links_complete: whether all pairs of nodes were measured before time ran out.
        shared_folder: the folder that all nodes should share.
        unfinished: why the probe stopped before everything was measured, or empty.
    """

    name: str
    library: str
    ranks: tuple[RankReport, ...] = ()
    clocks: tuple[ClockReading, ...] = ()
    offsets: tuple[ClockOffset, ...] = ()
    neighbours: tuple[NeighbourLink, ...] = ()
    node_links: tuple[NodeLink, ...] = ()
    node_links_complete: bool = True
    shared_folder: str = ""
    shared_files: tuple[SharedFiles, ...] = ()
    unfinished: str = ""


NumberedRanks = list[tuple[int, RankReport]]
"""Ranks with their numbers in the job, in ascending order."""


def by_host(ranks: Iterable[RankReport]) -> dict[str, NumberedRanks]:
    """Group the ranks of a job by host, in the order of the hosts' first ranks."""
    hosts: dict[str, NumberedRanks] = {}
    for number, rank in enumerate(ranks):
        hosts.setdefault(rank.host, []).append((number, rank))
    return hosts


def links_of_nodes(job: JobReport) -> tuple[LinkOfNodes, ...]:
    """Return the links within nodes (of several ranks) and between nodes, in order of the ranks."""
    order = list(by_host(job.ranks))
    within: dict[str, list[NeighbourLink]] = {}
    for link in job.neighbours:
        within.setdefault(job.ranks[link.ranks[0]].host, []).append(link)
    inner = [
        LinkOfNodes(
            nodes=(host, host),
            latency_seconds=max(link.latency_seconds for link in links),
            bandwidth_bytes_per_second=min(link.bandwidth_bytes_per_second for link in links),
        )
        for host, links in within.items()
    ]
    between = [
        LinkOfNodes(
            nodes=link.nodes,
            latency_seconds=link.latency_seconds,
            bandwidth_bytes_per_second=link.bandwidth_bytes_per_second,
            message_bytes=link.message_bytes,
        )
        for link in job.node_links
    ]
    links = [*inner, *between]
    return tuple(sorted(links, key=lambda link: [order.index(node) for node in link.nodes]))
