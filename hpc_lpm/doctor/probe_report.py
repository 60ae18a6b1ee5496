"""What the ranks of a probe say about themselves and what is between them, as JSON."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class GpuReport(_Report):
    """One GPU that a rank sees, by its model's name and its own."""

    name: str
    uuid: str


class GpuSight(_Report):
    """What a process sees of GPUs.

    `driver` tells if the node has an NVIDIA driver, `built_for` what torch was built for (None:
    CPUs), `visible_devices` the variable that hides GPUs, as it is set, `problem` why torch did
    not answer.
    """

    torch: str
    built_for: str | None
    driver: bool
    visible_devices: str | None = None
    gpus: tuple[GpuReport, ...] = ()
    problem: str = ""


class Software(_Report):
    """What a rank runs: its Python, and the versions of what the ranks must agree on."""

    executable: str
    versions: dict[str, str]


class RankReport(_Report):
    """One rank: where it runs, on which cores, with how many threads, what it sees and runs.

    `launcher_cores` are the cores that its launcher may use and so could have given it;
    `core_quota` is the limit in cores of its control group, None without one; `slurm_cores` are
    those that Slurm allotted to the job on this node, None outside a job of Slurm. `gpu_number`
    is the GPU that a training would take among those that the rank sees.
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


class ClockReading(_Report):
    """The clocks of one rank [s].

    `monotonic` is read when all ranks have met, `*_elapsed` from the start of the probe to then.
    """

    monotonic: float
    monotonic_elapsed: float
    wall_elapsed: float


class ClockOffset(_Report):
    """A host's wall clock minus that of rank 0's host [s], None where it did not answer."""

    host: str
    offset_seconds: float | None
    uncertainty_seconds: float | None


class NeighbourLink(_Report):
    """The link between two neighbouring ranks of one host."""

    ranks: tuple[int, int]
    latency_seconds: float
    bandwidth_bytes_per_second: float


class NodeLink(_Report):
    """The link between two nodes, of its two directions the worse; None where nothing came through.

    `message_bytes` is the size of the messages that the bandwidth was measured with.
    """

    nodes: tuple[str, str]
    latency_seconds: float | None
    bandwidth_bytes_per_second: float | None
    message_bytes: int | None


class LinkOfNodes(_Report):
    """A link as scripts read it: between two nodes, or within one, which is then named twice.

    Within a node it is the worst of its neighbouring ranks'.
    """

    nodes: tuple[str, str]
    latency_seconds: float | None
    bandwidth_bytes_per_second: float | None


class SharedFiles(_Report):
    """What one node made of the folder that all nodes should see.

    `problem` tells why it could not write there, `unseen` whose files it did not see with their
    content within `waited_seconds`, `lock_problem` what is wrong with locks on files; None where
    they were not tried.
    """

    host: str
    problem: str = ""
    unseen: tuple[str, ...] = ()
    waited_seconds: float = 0.0
    lock_problem: str | None = None


class JobReport(_Report):
    """The ranks that see each other through MPI, in order, and what was measured between them.

    `name` is another one for each job. `unfinished` says why the ranks stopped before all was
    measured; what was not is empty.
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


def by_host(ranks: Iterable[RankReport]) -> dict[str, list[tuple[int, RankReport]]]:
    """Return the ranks of each host with their numbers."""
    hosts: dict[str, list[tuple[int, RankReport]]] = {}
    for number, rank in enumerate(ranks):
        hosts.setdefault(rank.host, []).append((number, rank))
    return hosts


def links_of_nodes(job: JobReport) -> tuple[LinkOfNodes, ...]:
    """Return the links within nodes that have several ranks and between nodes, by rank."""
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
        )
        for link in job.node_links
    ]
    links = [*inner, *between]
    return tuple(sorted(links, key=lambda link: [order.index(node) for node in link.nodes]))
