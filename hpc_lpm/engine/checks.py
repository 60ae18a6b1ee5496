"""Checks the settings of a run before it starts, whichever strategy trains it.

A campaign makes the same checks before it profiles anything; those that need data which are not
loaded by then are made once a run starts.
"""

from hpc_lpm.data.augmentation import Augmentation
from hpc_lpm.engine.early_stopping import check_patience_metric
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.engine.update_checks import check_apart, check_optimizer, check_schedule
from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import evaluation_metrics_named
from hpc_lpm.models.losses import loss_named


def check_run(run: PlannedRun) -> None:
    """Check the settings of a run against each other, its strategy, model and data.

    Raises:
        InputError: naming the option, what was found and what is accepted.
    """
    settings = run.settings
    check_optimizer(settings.optimizer)
    _check_objective(settings)
    if run.model is not None:
        check_patience_metric(settings, run.model)
    if strategy_named(settings.strategy).needs_plan:
        check_apart(settings.optimizer)
    scaled = bool(settings.optimizer.lr_scale or getattr(settings.own, "lr_discount", False))
    check_schedule(settings.optimizer, settings.learning_rate, run.steps, scaled=scaled)
    strategy_named(settings.strategy).check(run)
    _check_replicas(run)
    _check_rewinds(settings)
    if run.steps is not None:
        _check_warmup(run, run.steps)
        _check_drains(run, run.steps)
        _check_trace(run, run.steps)


def _check_objective(settings: TrainSettings) -> None:
    if settings.loss is not None:
        loss_named(settings.loss)
    evaluation_metrics_named(settings.metric)
    if settings.augment is not None:
        Augmentation.parse(settings.augment)


def _check_rewinds(settings: TrainSettings) -> None:
    saves = settings.checkpoint_epochs or settings.checkpoint_steps
    if settings.non_finite == "rewind" and not saves:
        raise InputError(
            "--non-finite rewind was given with --checkpoint-epochs 0, so that there is no "
            "checkpoint to go back to: save every so many epochs, or --checkpoint-steps."
        )


def _check_replicas(run: PlannedRun) -> None:
    settings, replicas = run.settings, run.replicas
    if not strategy_named(settings.strategy).needs_plan:
        return  # ranks that hold the whole model share micro-batches, as their strategy checks
    if settings.batch_size % (settings.micro_batches * replicas):
        raise InputError(
            f"--batch-size {settings.batch_size} is not divisible by --micro-batches "
            f"{settings.micro_batches} times the {replicas} replicas of every stage that were "
            f"started: use a multiple of {settings.micro_batches * replicas}."
        )
    left = (run.samples or 0) % settings.batch_size
    if settings.last_batch == "keep" and 0 < left < replicas:
        raise InputError(
            f"--last-batch keep was given, but the last batch of an epoch has {left} samples for "
            f"{replicas} replicas of every stage: use --last-batch drop or another --batch-size."
        )


def _check_warmup(run: PlannedRun, steps: int) -> None:
    warmup = run.settings.learning_rate.warmup_steps
    if warmup and warmup >= steps:
        raise InputError(
            f"--warmup-steps {warmup} is not below the {steps} optimizer steps of the whole run: "
            "warm up for fewer, or train longer."
        )


def _check_drains(run: PlannedRun, steps: int) -> None:
    drains = run.settings.drain_at
    if drains and drains[-1] >= steps:
        raise InputError(
            f"--drain-at has step {drains[-1]}, but the run has {steps} optimizer steps and drains "
            f"after the last one anyway: give steps from 1 to {steps - 1}."
        )


def _check_trace(run: PlannedRun, steps: int) -> None:
    first = run.settings.trace_from
    if first is not None and first >= steps:
        raise InputError(
            f"--trace-from is step {first}, but the run has steps 0 to {steps - 1}: give one of "
            "them."
        )
