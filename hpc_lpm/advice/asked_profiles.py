"""The profiles that advice rests on: read, or measured at the micro-batches that a step allows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_lpm.advice.subject import Subject
from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.registry import dataset_shape, load_dataset
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.errors import InputError
from hpc_lpm.models.compute_format import compute_format_named
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.forecast.case import Nodes
from hpc_lpm.profile_file import Profile
from hpc_lpm.profiling.job import profile_in_job
from hpc_lpm.ranks import ranks_from_environment

_MULTIPLES = 3
"""How many numbers of micro-batches from the number of devices on are tried."""
_PRECISIONS = {"bfloat16": "bf16"}


REPEATS, CPU = 5, "cpu"
"""How a model is profiled unless told otherwise."""


@dataclass(frozen=True)
class AskedProfiles:
    """How a user wants a model to be profiled.

    Attributes:
        read: profiles that were made before; nothing is measured if there are any.
        micro_batches: the sizes to profile at, empty for the usual ones.
        repeats: timed sweeps over all layers; None for the usual number.
        device: `cpu` or `cuda`; None for `cpu`.
    """

    read: tuple[Profile, ...]
    micro_batches: tuple[int, ...]
    repeats: int | None = None
    device: str | None = None

    def made_for(
        self, shared: Mapping[str, Any], devices: int, nodes: Nodes | None
    ) -> tuple[Subject, tuple[Profile, ...], Mapping[int, float]]:
        """Return the subject with these settings, its profiles, and what it takes on all threads.

        Every rank of a job must call this.

        Raises:
            InputError: if a setting, the model or the data are not accepted, a profile is of
                another model, or the model cannot be profiled.
        """
        settings = checked_settings(**shared, micro_batches=1, steps=1)
        if not self.read:
            return self._measured(dict(shared), devices, nodes)
        asked = {"micro-batch": self.micro_batches, "repeats": self.repeats, "device": self.device}
        for name in (name for name, value in asked.items() if value not in {None, ()}):
            raise InputError(
                f"--{name} and --profile are both given, but a profile has its own {name}: leave "
                "one of the two out."
            )
        first = self.read[0]
        found = _PRECISIONS.get(first.dtype, "fp32")
        if shared.get("precision", found) != found:
            raise InputError(
                f"--precision is {settings.precision}, but --profile is of {found}: leave "
                "--precision out, or give a profile of that precision."
            )
        model = create_model(
            settings.model, dataset_shape(settings.dataset, settings.data_dir), loss=settings.loss
        )
        told = {**shared, "precision": found, "memory_format": first.memory_format}
        subject = Subject(model, told)
        subject.check_profiles(self.read)
        return subject, self.read, {}

    def _measured(
        self, shared: dict[str, Any], devices: int, nodes: Nodes | None
    ) -> tuple[Subject, tuple[Profile, ...], Mapping[int, float]]:
        settings = checked_settings(**shared, micro_batches=1, steps=1)
        sizes = self.micro_batches or usual_micro_batches(settings.batch_size, devices)
        check_micro_batches(sizes, settings.batch_size)
        data = load_dataset(settings.dataset, settings.data_dir)
        model = create_model(settings.model, data.shape, loss=settings.loss)
        subject = Subject(model, shared)
        profiles = self._profiled(subject, data, sizes, threads=settings.threads)
        threaded: Mapping[int, float] = {}
        if self._has_threads_for(devices, nodes):
            threaded = {
                each.micro_batch: sum(
                    layer.forward_seconds + layer.backward_seconds for layer in each.layers
                )
                for each in self._profiled(subject, data, sizes, threads=devices)
            }
        return subject, profiles, threaded

    def _profiled(
        self, subject: Subject, data: Dataset, sizes: Sequence[int], *, threads: int
    ) -> tuple[Profile, ...]:
        form = compute_format_named(subject.shared.get("precision", "fp32"), "contiguous")
        return tuple(
            profile_in_job(
                subject.model,
                data,
                size,
                repeats=REPEATS if self.repeats is None else self.repeats,
                threads=threads,
                device=self.device or CPU,
                compute_format=form,
            )
            for size in sizes
        )

    def _has_threads_for(self, devices: int, nodes: Nodes | None) -> bool:
        """Tell if one process here can compute with a thread for each device, as a node there."""
        enough = len(os.sched_getaffinity(0)) >= devices
        alone = (self.device or CPU) == CPU and ranks_from_environment() == 1
        return enough and alone and (nodes is None or nodes.devices >= devices)


def usual_micro_batches(batch_size: int, devices: int) -> list[int]:
    """Return the sizes of micro-batches at which a model is profiled where none are named.

    A step is divided into as many micro-batches as there are devices, and into two and more times
    as many, as far as that comes out even; and into fewer than there are devices once, for the
    schedules that need no more.
    """
    counts = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
    enough = [count for count in counts if count >= devices]
    even = [count for count in enough if count % devices == 0]
    fewer = [count for count in counts if 1 < count < devices][-1:]
    chosen = [*fewer, *(even or enough)[:_MULTIPLES]] or counts[-1:]
    return [batch_size // count for count in chosen]


def check_micro_batches(sizes: Sequence[int], batch_size: int) -> None:
    """Refuse sizes of micro-batches into which a step does not divide.

    Raises:
        InputError: naming the first such size.
    """
    for size in sizes:
        if size < 1 or batch_size % size:
            raise InputError(
                f"--micro-batch is {size}, accepted are numbers of samples that divide the "
                f"{batch_size} of --batch-size."
            )
    if len(set(sizes)) < len(sizes):
        raise InputError("--micro-batch names a size twice, each is accepted once.")
