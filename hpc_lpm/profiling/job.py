"""Profile a model on all ranks of the job at once."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

import torch

from hpc_lpm.activation import Activation
from hpc_lpm.data.dataset import Dataset
from hpc_lpm.errors import InputError
from hpc_lpm.models.compute_format import PLAIN, ComputeFormat
from hpc_lpm.models.example_inputs import describe_inputs
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.mpi_start import start_mpi
from hpc_lpm.native_waits import DEFAULT_LIMIT_SECONDS, bounded_by_thread
from hpc_lpm.options import MOST_THREADS
from hpc_lpm.processor import processor_name
from hpc_lpm.profile_file import LayerProfile, Link, Profile
from hpc_lpm.profiling.layers import profile_model
from hpc_lpm.profiling.link import assume_link, measure_link
from hpc_lpm.ranks import local_rank_from_environment, ranks_from_environment, started_by_mpi
from hpc_lpm.same_program import check_same, describe_program

if TYPE_CHECKING:
    from mpi4py import MPI

_POLL_SECONDS = 1e-3
_MOST_REPEATS = 100_000


def profile_in_job(
    model: LayeredModel,
    dataset: Dataset,
    micro_batch: int,
    *,
    repeats: int = 10,
    threads: int = 1,
    device: str = "cpu",
    compute_format: ComputeFormat = PLAIN,
    limit_seconds: float = DEFAULT_LIMIT_SECONDS,
) -> Profile:
    """Profile `model` on the first `micro_batch` training samples; every rank must call this.

    None waits for the others longer than `limit_seconds`.

    Raises:
        InputError: if there are fewer samples, or as `profile_micro_batch`.
    """
    if not 1 <= micro_batch <= len(dataset.train):
        raise InputError(
            f"the micro-batch is {micro_batch}, accepted are 1 to {len(dataset.train)}, the "
            f"training samples of {dataset.name}."
        )
    indices = torch.arange(micro_batch)
    profile = profile_micro_batch(
        model,
        dataset.train.inputs(indices),
        dataset.train.targets(indices),
        micro_batch,
        repeats=repeats,
        threads=threads,
        device=device,
        compute_format=compute_format,
        limit_seconds=limit_seconds,
    )
    samples = {"train_samples": len(dataset.train), "test_samples": len(dataset.test)}
    return profile.model_copy(update=samples)


def profile_micro_batch(
    model: LayeredModel,
    inputs: Activation,
    targets: Activation,
    samples: int,
    *,
    repeats: int,
    threads: int,
    device: str,
    compute_format: ComputeFormat = PLAIN,
    limit_seconds: float = DEFAULT_LIMIT_SECONDS,
) -> Profile:
    """Profile `model` on one micro-batch of so many samples; every rank must call this.

    All ranks profile at the same time, because they share the memory bandwidth in training too.
    Times are medians over the ranks. The link is measured between neighbouring ranks, or assumed
    if there is only one rank (`environment["link"]` tells which). All ranks return the same
    profile.

    Raises:
        InputError: if a number is out of range, the device is missing, or a layer fails; on every
            rank, if it does on one, and if the models of the ranks differ.
    """
    _check(repeats, threads, device)
    communicator = (
        _world(limit_seconds) if started_by_mpi() and ranks_from_environment() > 1 else None
    )
    _meet(communicator, limit_seconds)
    # As in training: the ranks of a node take its GPUs in turn.
    gpu = local_rank_from_environment() % torch.cuda.device_count() if device == "cuda" else -1
    with (
        compute_threads(threads),
        torch.cuda.device(gpu),
        _all_or_none(communicator, limit_seconds),
    ):
        layers = profile_model(
            model, inputs, targets, repeats=repeats, device=device, compute_format=compute_format
        )
        environment = describe_environment(device, threads) | {"repeats": repeats}
    links: tuple[Link, ...]
    if communicator is None:
        link, links = assume_link(), ()
        environment |= {"ranks": 1, "link": "assumed"}
    else:
        with bounded_by_thread(limit_seconds, communicator.rank, "a gathering of profiles"):
            layers = median_over_ranks(communicator.allgather(layers))
        measurement = measure_link(communicator, limit_seconds)
        link, links = measurement.link, measurement.pairs
        environment |= {"ranks": communicator.size, "link": "measured"}
    profile = Profile(
        model=model.name,
        micro_batch=samples,
        device=device,
        dtype=str(compute_format.dtype).removeprefix("torch."),
        memory_format=compute_format.memory_format,
        layers=layers,
        link=link,
        links=links,
        environment=environment,
        inputs=describe_inputs(inputs, samples),
    )
    if communicator is None:
        return profile
    # Ranks may run on different processors, which the environment tells.
    with bounded_by_thread(limit_seconds, communicator.rank, "a broadcast of the profile"):
        found: Profile = communicator.bcast(profile)
        return found


@contextmanager
def _all_or_none(communicator: "MPI.Intracomm | None", limit_seconds: float) -> Iterator[None]:
    """Let an error of one rank be one of all ranks, so that none waits for a rank that is gone."""
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    unmet: InputError | None = None
    try:
        _meet(communicator, limit_seconds)
    except InputError as error:
        unmet = error
    everywhere: list[str | None] = []
    if communicator is not None and unmet is None:
        with bounded_by_thread(limit_seconds, communicator.rank, "a gathering of errors"):
            everywhere = communicator.allgather(own and str(own))
    if own is not None:
        raise own
    if unmet is not None:
        raise unmet
    for rank, found in enumerate(everywhere):
        if found is not None:
            raise InputError(f"rank {rank} cannot profile the model, since {found}")


def median_over_ranks(profiles: list[tuple[LayerProfile, ...]]) -> tuple[LayerProfile, ...]:
    """Return rank 0's layers with each layer's times replaced by the median over all ranks.

    Raises:
        InputError: if the ranks have profiled different models.
    """
    for rank, layers in enumerate(profiles):
        other = _first_difference(profiles[0], layers)
        if other is not None:
            raise InputError(
                f"the models of ranks 0 and {rank} differ in {other}: build the same model on all "
                "ranks."
            )
    return tuple(_median_layer(same_layer) for same_layer in zip(*profiles, strict=True))


def _median_layer(same: Sequence[LayerProfile]) -> LayerProfile:
    times: dict[str, float] = {
        "forward_seconds": median(each.forward_seconds for each in same),
        "backward_seconds": median(each.backward_seconds for each in same),
    }
    # Each fits the time of its own rank's whole pass, and so may not fit the median of all.
    for name, fitted in (("weight_gradient_seconds", min), ("split_backward_seconds", max)):
        found: list[float] = [
            seconds for each in same if (seconds := getattr(each, name)) is not None
        ]
        if len(found) == len(same):
            times[name] = fitted(median(found), times["backward_seconds"])
    return same[0].model_copy(update=times)


def describe_environment(device: torch.device | str, threads: int) -> dict[str, object]:
    """Return the machine and the software that the times depend on.

    Host names are left out, so that profiles can be published.
    """
    where = torch.device(device)
    facts: dict[str, object] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads": threads,
    }
    if where.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(where)
        facts["cuda"] = torch.version.cuda
    return facts


@contextmanager
def compute_threads(threads: int) -> Iterator[None]:
    """Set the number of threads that torch computes with, and restore it at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _first_difference(
    first: tuple[LayerProfile, ...], second: tuple[LayerProfile, ...]
) -> str | None:
    if len(first) != len(second):
        return f"their number of layers, {len(first)} and {len(second)}"
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if (one.name, one.fingerprint) != (other.name, other.fingerprint):
            names = one.name if one.name == other.name else f"{one.name} and {other.name}"
            return f"layer {index} ({names})"
    return None


def _check(repeats: int, threads: int, device: str) -> None:
    asked = (("repeats", repeats, _MOST_REPEATS), ("threads", threads, MOST_THREADS))
    for what, value, most in asked:
        if not 1 <= value <= most:
            raise InputError(
                f"the number of {what} is {value}, accepted are whole numbers from 1 to {most:,}."
            )
    if device not in {"cpu", "cuda"}:
        raise InputError(f"the device is {device!r}, accepted are cpu and cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("the device is cuda but torch finds no GPU: use cpu or a GPU's build.")


def _meet(communicator: "MPI.Intracomm | None", limit_seconds: float) -> None:
    """Wait until all ranks are here, but not for ever, and compare what they run."""
    if communicator is None:
        return
    request, start = communicator.Ibarrier(), time.monotonic()
    while not request.Test():
        if time.monotonic() - start > limit_seconds:
            raise InputError(
                f"the other ranks have not profiled within {limit_seconds:g} s: one hangs or is "
                f"gone, or does something else; have each of the {communicator.size} ranks of the "
                "job profile, and raise --receive-timeout of a training if one is only slow."
            )
        time.sleep(_POLL_SECONDS)
    with bounded_by_thread(limit_seconds, communicator.rank, "a gathering of versions"):
        of_ranks = communicator.allgather(describe_program())
    check_same(of_ranks)


def _world(limit_seconds: float) -> "MPI.Intracomm":
    world: MPI.Intracomm = start_mpi(limit_seconds).COMM_WORLD
    return world
