"""Makes the engine of a script: checks what the script gives, and that all ranks give the same."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpc_lpm.activation import Activation
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.engine import Engine
from hpc_lpm.engine.environment import own_device
from hpc_lpm.engine.given_batches import GivenBatches
from hpc_lpm.engine.job import Job, start_job
from hpc_lpm.engine.rank_meter import PeakMemory, RankMeter
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.script_updates import MakeOptimizer, UpdatingByScript
from hpc_lpm.engine.settings import TrainSettings, checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.engine.strategies.registry import DEFAULT_STRATEGY, strategy_named
from hpc_lpm.errors import InputError, closest
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.losses import Loss
from hpc_lpm.models.own_module import model_of, needs_inputs, undisturbed
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profiling.timer import timer_for

_TAKEN = (
    *("seed", "batch_size", "micro_batches", "clip_norm", "clip_scope", "non_finite", "precision"),
    *("memory_format", "threads", "receive_timeout_seconds", "trace_steps", "trace_from"),
)
"""The options of a run that mean something in a script, beside those of its strategy."""

_NO_END = 2**31 - 1
"""The steps of a training whose end nobody knows."""


def initialize(
    model: nn.Module | LayeredModel,
    plan: Plan | str | Path | None = None,
    *,
    loss: Loss,
    optimizer: MakeOptimizer,
    strategy: str | None = None,
    example: Activation = None,
    **options: Any,
) -> Engine:
    """Divide a model among the ranks of this job and return this rank's engine (collective).

    Ranks are those that mpirun, srun or torchrun started. A single rank trains the whole model
    plainly, whatever the plan, so that the same script runs without a launcher. The module itself
    stays as it is: ranks train copies of its layers, from its present weights.

    Args:
        model: the module, with the same weights on every rank, on the host.
        plan: made by `hpc_lpm.plan` or `hpc-lpm plan`, or the file of one; its number of stages
            divides that of the ranks. None for strategies that hold the whole model on each rank.
        loss: called with what the model returns and the targets; returns the mean over a
            micro-batch as a tensor of one number.
        optimizer: makes the optimizer of a list of parameters, those of this rank.
        strategy: a name of `hpc-lpm strategies`, by default the plan's schedule.
        example: inputs of a few samples, by which a module that is no nn.Sequential is divided; by
            default they are made up from what the plan tells of the profiled ones.
        options: options of a run by their names in campaigns: `seed` (of what layers draw at
            random), `batch_size` and `micro_batches` (by default those that the plan was made for),
            `clip_norm`, `clip_scope`, `non_finite`, `precision`, `memory_format`, `threads` (by
            default as torch has it), `receive_timeout_seconds`, `trace_steps`, `trace_from`; and
            those of the strategy, such as `lead`, `weights` or `transport`.

    Raises:
        InputError: on every rank, if something given cannot be used, the plan was made for another
            model or number of ranks, or the ranks were given different models, plans or options.
        TrainingError: if a rank does not come in time.
    """
    limit = checked_settings(**_document("receive_timeout_seconds", options)).receive_timeout_seconds
    job = start_job(parallel=False, limit_seconds=limit)
    resources = ExitStack()
    with undisturbed(), _in_words_of_scripts():
        script = _on_every_rank(
            job, lambda: _Script.of(model, plan, loss, strategy, example, options, job)
        )
        _compare(job, script)
        return script.start(job, optimizer, resources)
