"""The memory and time that a trial requests of a cluster, derived from plan and profile."""

import errno
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hpc_lpm.campaign.sections import Resources
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.errors import InputError
from hpc_lpm.planning.memory import whole_model_memory_bytes
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import Profile

File = TypeVar("File", Profile, Plan)

PROCESS_MEGABYTES = 2000
"""A rank without a model: Python, torch, DeepSpeed, MPI's buffers and a small data set."""
MEMORY_MARGIN = 1.5
"""The request over the planned memory of the model."""

START_MINUTES = 5
"""The time from the start of a job to its first step, on a slow file system."""
TIME_MARGIN = 3.0
"""The request over the time of sequential training, which a rival on a slow network can exceed."""

LEAST_SECONDS = 60
"""What a job must have to start and to train in, or it would come back for ever."""

STARTS_SECONDS = 600.0
"""The time of all starts of ranks in a tuning."""

UNPROFILED_MEGABYTES, UNPROFILED_MINUTES = 4000, 60
"""The requests of steps that run before there is a profile, and of trials without one."""

_MIB = 2**20


@dataclass(frozen=True)
class Request:
    """The memory of one rank in MiB, and the time limit of the whole job in minutes."""

    rank_megabytes: int
    minutes: int

    def core_megabytes(self, threads: int) -> int:
        """Return the memory of one core, for ranks of so many threads with a core for each."""
        return math.ceil(self.rank_megabytes / threads)


@dataclass(frozen=True)
class AskedResources:
    """The memory of a rank and the time limit of a trial's job, as far as they are known by now.

    A value is None where it follows from a file of the campaign that is yet to be made.
    `memory_from` and `runtime_from` are `profile` or `plan` then, and otherwise `campaign` for what
    its file sets or `default`.
    """

    memory_megabytes: int | None
    memory_from: str
    runtime_minutes: int | None
    runtime_from: str


def asked_resources(asked: Resources, *, profiled: bool, planned: bool) -> AskedResources:
    """Return what a trial's job is going to request.

    Args:
        asked: the resources that the campaign sets.
        profiled: whether the campaign makes a profile of the trial's model.
        planned: whether it makes a plan for the trial.
    """
    file = "plan" if planned else "profile" if profiled else None
    memory, runtime = asked.memory_megabytes, asked.runtime_minutes
    return AskedResources(
        memory or (None if file else UNPROFILED_MEGABYTES),
        "campaign" if memory else file or "default",
        runtime or (None if profiled else UNPROFILED_MINUTES),
        "campaign" if runtime else "profile" if profiled else "default",
    )


def request_of(
    settings: TrainSettings,
    asked: Resources,
    profile: Path | None,
    plan: Path | None,
    *,
    played: bool = False,
) -> Request:
    """Return the request of a trial's job; values that the campaign sets are taken as they are.

    Args:
        settings: the settings of the trial.
        asked: the resources that the campaign sets.
        profile: the profile of the trial's model, None if the campaign makes none.
        plan: the trial's plan, None if its strategy needs none.
        played: whether one process plays all stages of the plan.

    Raises:
        FileNotFoundError: if profile or plan do not exist yet; Snakemake then asks again later.
    """
    read_profile = None if profile is None else _read(Profile, profile)
    read_plan = None if plan is None else _read(Plan, plan)
    return Request(
        asked.memory_megabytes or _rank_megabytes(read_profile, read_plan, played),
        asked.runtime_minutes or _minutes(settings, read_profile),
    )


def check_leaves_time(asked: Resources, options: str) -> None:
    """Refuse a time limit before which jobs are told to end as soon as they have begun.

    Args:
        asked: the resources that the campaign sets.
        options: what sbatch gets besides, of which `--signal=B:USR2@120` says when jobs are told.

    Raises:
        InputError: if too little is left.
    """
    told = re.search(r"--signal[= ]\S*@(\d+)", options)
    if asked.runtime_minutes is None or told is None:
        return
    before, limit = int(told[1]), 60 * asked.runtime_minutes
    if limit - before < LEAST_SECONDS:
        least = math.ceil((before + LEAST_SECONDS) / 60)
        raise InputError(
            f"resources.runtime_minutes is {asked.runtime_minutes}, but jobs are told to save and "
            f"end {before} s before that, which leaves {max(0, limit - before)} s to start and to "
            f"train: ask for {least} or more, or have them told later (slurm_extra in "
            "slurm/config.v8+.yaml)."
        )


def tuning_request(budget_seconds: float, asked: Resources) -> Request:
    """Return the request of a tuning's job, before whose plans nobody knows what memory it takes.

    It may end the training that it is in after its budget is spent, and starts ranks often.
    """
    seconds = TIME_MARGIN * budget_seconds + STARTS_SECONDS
    return Request(
        asked.memory_megabytes or UNPROFILED_MEGABYTES,
        asked.runtime_minutes or START_MINUTES + math.ceil(seconds / 60),
    )


def _rank_megabytes(profile: Profile | None, plan: Plan | None, played: bool) -> int:
    if plan is not None:
        together = sum if played else max
        model_bytes = together(stage.memory_bytes for stage in plan.stages)
    elif profile is not None:
        model_bytes = whole_model_memory_bytes(profile)
    else:
        return UNPROFILED_MEGABYTES
    return PROCESS_MEGABYTES + math.ceil(MEMORY_MARGIN * model_bytes / _MIB)


def _minutes(settings: TrainSettings, profile: Profile | None) -> int:
    if profile is None:
        return UNPROFILED_MINUTES
    layers = profile.layers
    forward = sum(layer.forward_seconds for layer in layers)
    backward = sum(layer.backward_seconds for layer in layers)
    trained = _training_samples(settings, profile)
    if trained is None:
        return UNPROFILED_MINUTES
    samples, evaluated = trained
    seconds = (samples * (forward + backward) + evaluated * forward) / profile.micro_batch
    return START_MINUTES + math.ceil(TIME_MARGIN * seconds / 60)


def _training_samples(settings: TrainSettings, profile: Profile) -> tuple[int, int] | None:
    """Return the samples trained on and evaluated in a whole trial, None if unknown."""
    train, test = profile.train_samples, profile.test_samples
    if train is None or test is None:
        return None
    held = round(train * settings.validation)
    train -= held
    if settings.epochs is not None:
        samples, epochs = settings.epochs * train, settings.epochs
    else:
        assert settings.steps is not None
        samples = settings.steps * settings.batch_size
        epochs = math.ceil(samples / train)
    evaluated = epochs * (test + held)
    if settings.evaluate_every:
        evaluated += samples // (settings.batch_size * settings.evaluate_every) * (held or test)
    return samples, evaluated


def _read(kind: type[File], path: Path) -> File:
    """Read a file, or say that it is not there if it is damaged, so that it is made again."""
    try:
        return kind.read(path)
    except InputError:
        # Snakemake reads the name of the file from the error.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
