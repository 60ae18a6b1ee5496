"""Makes the engine of a script: checks what the script gives, and that all ranks give the same."""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from hpc_lpm.activation import Activation
from hpc_lpm.engine.checkpoint.tensors import layer_sha256
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.engine import Engine
from hpc_lpm.engine.environment import own_device
from hpc_lpm.engine.given_batches import GivenBatches
from hpc_lpm.engine.job import Job, start_job
from hpc_lpm.engine.rank_meter import PeakMemory, RankMeter
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.script_end import Standing, guard_script
from hpc_lpm.engine.script_updates import MakeOptimizer, UpdatingByScript
from hpc_lpm.engine.settings import TrainSettings, checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun, Strategy, placement_of
from hpc_lpm.engine.strategies.registry import (
    DEFAULT_STRATEGY,
    start_strategy,
    strategy_named,
)
from hpc_lpm.errors import InputError, closest
from hpc_lpm.keyword_errors import options_as_keywords
from hpc_lpm.models.example_inputs import made_up_inputs
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.losses import Loss
from hpc_lpm.models.own_module import as_arguments, model_of, needs_inputs, undisturbed
from hpc_lpm.options import RunOptions
from hpc_lpm.planning.model_checks import check_layer_names, check_ranks
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.plan_checks import check_schedule_is_known
from hpc_lpm.prediction_rules import OF_ANY_OPTIMIZER, SPECTRAIN
from hpc_lpm.profiling.timer import timer_for
from hpc_lpm.random_streams import seeded_generators
from hpc_lpm.recipes import AUTO, NO_RECIPE, RECIPES
from hpc_lpm.schedules.placement import Placement
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE

_SCRIPT = "script"
"""What stands for the data set of a script in its settings."""

_TAKEN = (
    *("seed", "batch_size", "micro_batches", "clip_norm", "clip_scope", "non_finite", "precision"),
    *("memory_format", "threads", "receive_timeout_seconds", "trace_steps", "trace_from"),
)
"""The options of a run that mean something in a script, beside those of its strategy."""

_OF_COMMAND = ("synchronous_head", "synchronous_tail", "in_one_process", "ranks")
"""Options of strategies that mean nothing in a script, which is one rank and tells no epochs."""

_NO_END = 2**31 - 1
"""The steps of a training whose end nobody knows."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""Where an object is in the memory of this process, as Python shows it."""


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
        optimizer: makes the optimizer of a list of parameters: those of this rank that require a
            gradient, or an empty one where none does.
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
    standing = guard_script()
    limit = options.get("receive_timeout_seconds")
    with undisturbed(), options_as_keywords():
        limit_seconds = _settings({"receive_timeout_seconds": limit}).receive_timeout_seconds
        job = start_job(parallel=False, limit_seconds=limit_seconds)
        if job.communicator is None:
            # Only under MPI do all ranks get the same from `hpc_lpm.profile`.
            plan = job.broadcast(plan)
        made: list[_Script] = []
        run_on_every_rank(
            job,
            lambda: made.append(_Script.of(job, model, plan, loss, strategy, example, options)),
            (InputError,),
            lambda problem, _: InputError(f"{problem}."),
        )
        _compare(job, made[0], model)
        return made[0].start(job, optimizer, standing)


@dataclass(frozen=True)
class _Script:
    """What a script has given, checked on one rank."""

    settings: TrainSettings
    strategy: Strategy
    plan: Plan | None
    model: LayeredModel

    @classmethod
    def of(
        cls,
        job: Job,
        module: nn.Module | LayeredModel,
        plan: Plan | str | Path | None,
        loss: Loss,
        strategy: str | None,
        example: Activation,
        options: Mapping[str, Any],
    ) -> Self:
        plan = plan if plan is None or isinstance(plan, Plan) else Plan.read(Path(plan))
        model = _divided(module, plan, loss, example)
        chosen = strategy_named(strategy or _schedule_of(plan))
        if chosen.independent:
            raise InputError(
                f"strategy {chosen.name} trains ranks apart from each other, which a script does "
                "without an engine: choose another one."
            )
        if plan is not None:
            check_layer_names(plan, None, model)
        settings = _settings_of(job, model, plan, chosen, options)
        if job.size == 1 and chosen.parallel:
            # Whatever its strategy takes for itself means nothing on one rank.
            chosen = strategy_named(DEFAULT_STRATEGY)
            shared = {name: getattr(settings, name) for name in RunOptions.model_fields}
            settings = TrainSettings(
                model=model.name, dataset=_SCRIPT, seed=settings.seed, **shared
            )
        if not chosen.needs_plan:
            plan = None
        elif plan is None:
            raise InputError(
                f"initialize was given no plan for strategy {chosen.name}: make one with "
                "hpc_lpm.profile and hpc_lpm.plan."
            )
        else:
            check_ranks(plan, None, job.size)
        chosen.require_installed()
        if settings.non_finite == "rewind":
            raise InputError(
                "non_finite is rewind, accepted in a script are stop and skip: the loop is yours, "
                "and engine.load goes back to a checkpoint."
            )
        script = cls(chosen.with_clip_scope(settings), chosen, plan, model)
        corrected, _ = chosen.with_recipe(script.planned(job, None))
        script = replace(script, settings=corrected)
        check_run(script.planned(job, None))
        return script

    @property
    def stages(self) -> int:
        """The number of devices that a plan is for, 1 without one."""
        return self.placement.devices

    @property
    def placement(self) -> Placement:
        """Which device holds which stages."""
        return placement_of(self.strategy, self.settings, self.plan)

    def planned(self, job: Job, samples: int | None) -> PlannedRun:
        """Describe the run for those who accept or refuse it."""
        return PlannedRun(self.settings, self.model, job.size, self.stages, samples)

    def start(self, job: Job, make: MakeOptimizer, standing: Standing) -> Engine:
        """Start this rank's part and return the engine (collective)."""
        settings, resources = self.settings, ExitStack()
        if settings.threads != torch.get_num_threads():
            torch.set_num_threads(settings.threads)
        for name, value in self.strategy.environment(settings).items():
            os.environ.setdefault(name, value)
        device = own_device()
        recorder = Recorder(
            settings.trace_steps,
            lambda *_: None,
            timer_for(device),
            stops_at_non_finite=settings.non_finite == "stop",
            trace_from=settings.trace_from,
        )
        context = RunContext(
            self.strategy.settled(settings, job, device),
            job,
            device,
            self.model,
            self.plan,
            recorder,
            UpdatingByScript(make, job, steps_of_sgd=_knows_steps_of_sgd(settings)),
            _NO_END,
            _NO_END,
            job.size // self.stages if self.plan else 1,
            self.placement,
            resources,
        )
        runner = start_strategy(self.strategy, context)
        given = GivenBatches(context, lambda samples: check_run(self.planned(job, samples)))
        return Engine(
            context,
            runner,
            RankMeter(recorder, PeakMemory(device)),
            given,
            standing,
            looks_ahead=self.strategy.pipelined,
        )


def _divided(
    module: nn.Module | LayeredModel, plan: Plan | None, loss: Loss, example: Activation
) -> LayeredModel:
    if isinstance(module, nn.Module) and needs_inputs(module) and example is None:
        if plan is None or plan.inputs is None:
            raise InputError(
                f"initialize cannot divide {type(module).__name__} into layers without inputs, of "
                "which the plan tells nothing: give example=inputs, those of a few samples."
            )
        with seeded_generators(0):
            example = made_up_inputs(plan.inputs)
    return model_of(module, as_arguments(example), loss=loss)


def _schedule_of(plan: Plan | None) -> str:
    if plan is None:
        return DEFAULT_STRATEGY
    check_schedule_is_known(plan, f"of {plan.model}")
    return str(plan.options.get("schedule", DEFAULT_SCHEDULE))


def _settings_of(
    job: Job, model: LayeredModel, plan: Plan | None, strategy: Strategy, options: Mapping[str, Any]
) -> TrainSettings:
    """Return the settings of a run: those that are given, the others as the plan was made for.

    Raises:
        InputError: if an option does not exist or has no meaning in a script.
    """
    own = strategy.options.model_fields
    accepted = [*_TAKEN, *(name for name in own if name not in _OF_COMMAND)]
    for name in options:
        if name not in accepted:
            raise InputError(
                f"initialize was given the option {name!r}, which it does not take with strategy "
                f"{strategy.name}{closest(name, accepted)}: accepted are {', '.join(accepted)}."
            )
    planned: dict[str, Any] = {}
    if plan is not None:
        named = ("micro_batches", "lead", "weights")
        planned = {name: plan.options[name] for name in named if name in plan.options}
        planned = {n: planned[n] for n in planned if n in _TAKEN or strategy.takes(n)}
        replicas = max(1, job.size // plan.devices)
        micro_batches = options.get("micro_batches", planned.get("micro_batches", 4))
        if plan.micro_batch is not None and isinstance(micro_batches, int):
            planned["batch_size"] = plan.micro_batch * micro_batches * replicas
    values = {**planned, **options}
    if values.get("recipe") == AUTO:
        raise InputError(
            f"initialize was given recipe {AUTO!r}, which chooses by the optimizer's name, and a "
            "script makes its own: accepted are the names of recipes, "
            f"{', '.join([NO_RECIPE, *RECIPES])}; give one of them."
        )
    if values.get("prediction"):
        values["prediction_rule"] = values.get("prediction_rule") or OF_ANY_OPTIMIZER
    return _settings({**values, "strategy": strategy.name, "model": model.name})


def _knows_steps_of_sgd(settings: TrainSettings) -> bool:
    """Tell if weights are predicted by the rule that knows the steps of SGD alone."""
    return getattr(settings.own, "prediction_rule", None) == SPECTRAIN


def _settings(values: Mapping[str, Any]) -> TrainSettings:
    given = {name: value for name, value in values.items() if value is not None}
    threads = torch.get_num_threads()
    always = {"dataset": _SCRIPT, "steps": _NO_END, "last_batch": "keep", "threads": threads}
    try:
        return checked_settings(**{"model": _SCRIPT, **always, **given})
    except InputError as error:
        raise InputError(f"initialize: {str(error).removeprefix('train: ')}") from None


def _compare(job: Job, script: _Script, module: nn.Module | LayeredModel) -> None:
    """Check that all ranks were given the same (collective).

    Raises:
        InputError: on every rank, naming what differs on which rank.
    """
    plan = script.plan
    # Without the option, torch has as many threads as a rank may use cores, which nodes differ in.
    settings = script.settings.model_copy(update={"threads": 1})
    own = {
        "other options": settings.model_dump_json(),
        "another plan": None if plan is None else plan.sealed().content_sha256,
        "another model": _architecture(module, script.model),
        "other initial weights": layer_sha256(module) if isinstance(module, nn.Module) else None,
    }
    first, *others = job.all_gather(own)
    for rank, theirs in enumerate(others, start=1):
        for what, value in theirs.items():
            if value != first[what]:
                raise InputError(
                    f"initialize was given {what} on rank {rank} than on rank 0, accepted are the "
                    "same on all ranks: make or read them alike on each, weights for example after "
                    "torch.manual_seed(0)."
                )


def _architecture(module: nn.Module | LayeredModel, model: LayeredModel) -> str:
    """Return a hash of what a model is, but for its weights."""
    described = [_ADDRESS.sub("", repr(module)), *(layer.name for layer in model.layers)]
    if isinstance(module, nn.Module):
        tensors = module.state_dict().items()
        described += [f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors]
    else:
        described[0] = module.name
    return hashlib.sha256("\n".join(described).encode()).hexdigest()
