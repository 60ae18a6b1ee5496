"""What the ranks of a probe say about themselves, as JSON between processes."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from hpc_lpm.profiling.profile import Link


class RankReport(BaseModel):
    """One rank: where it runs, on which cores, with how many threads, and its clocks [s].

    `launcher_cores` are the cores that its launcher may use and so could have given it;
    `core_quota` is the limit in cores of its control group, None without one. `monotonic` and
    `wall` are read when all ranks have met, `*_elapsed` between the start and the end of the probe.
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    host: str
    cores: tuple[int, ...]
    launcher_cores: int
    core_quota: float | None
    threads: int
    omp_num_threads: str | None
    monotonic: float
    wall: float
    monotonic_elapsed: float
    wall_elapsed: float


class JobReport(BaseModel):
    """The ranks that see each other through MPI, in order, and the links between neighbours."""

    model_config = ConfigDict(frozen=True)

    library: str
    ranks: tuple[RankReport, ...]
    links: tuple[Link, ...]


def by_host(ranks: Iterable[RankReport]) -> dict[str, list[tuple[int, RankReport]]]:
    """Return the ranks of each host with their numbers."""
    hosts: dict[str, list[tuple[int, RankReport]]] = {}
    for number, rank in enumerate(ranks):
        hosts.setdefault(rank.host, []).append((number, rank))
    return hosts
