"""`hpc-lpm train`: one run, alone or under mpirun."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hpc_lpm.cli.app import app
from hpc_lpm.cli.option_values import optimizer_options, optimizer_steps
from hpc_lpm.cli.output import print_json, print_table
from hpc_lpm.engine.checkpoint.store import FOLDER
from hpc_lpm.engine.job import start_job
from hpc_lpm.engine.registry import strategy_named
from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.run_reporter import (
    MetricsLog,
    PlainLines,
    ProgressDisplay,
    RunReporter,
    TerminalBar,
)
from hpc_lpm.engine.training import Training
from hpc_lpm.options import LearningRateSettings, OptimizerSettings, checked_settings
from hpc_lpm.ranks import started_by_launcher
from hpc_lpm.stop_signals import STOP_SIGNALS

_DEFAULTS = OptimizerSettings()
_RATE = LearningRateSettings()


@app.command()
def train(
    model: Annotated[str, typer.Option(help="a name of `hpc-lpm models`, or module:callable")],
    dataset: Annotated[str, typer.Option(help="a name of `hpc-lpm datasets`")],
    out: Annotated[Path, typer.Option(help="folder of the run")],
    strategy: Annotated[str, typer.Option(help="a name of `hpc-lpm strategies`")] = "sequential",
    plan: Annotated[Path | None, typer.Option(help="made by `hpc-lpm plan`")] = None,
    batch_size: Annotated[int, typer.Option(help="samples an optimizer step, all ranks")] = 64,
    micro_batches: Annotated[int, typer.Option(help="micro-batches an optimizer step")] = 4,
    epochs: Annotated[int | None, typer.Option(help="epochs to train")] = None,
    steps: Annotated[int | None, typer.Option(help="optimizer steps, instead of epochs")] = None,
    seed: Annotated[int, typer.Option(help="of weights, order and dropout")] = 0,
    optimizer: Annotated[
        str, typer.Option(help="sgd, momentum, adam, adamw, or a class of torch.optim")
    ] = _DEFAULTS.name,
    lr: Annotated[float, typer.Option(help="learning rate")] = _DEFAULTS.lr,
    momentum: Annotated[float, typer.Option(help="of --optimizer momentum")] = _DEFAULTS.momentum,
    weight_decay: Annotated[float, typer.Option()] = _DEFAULTS.weight_decay,
    lead: Annotated[int, typer.Option(help="how far forwards run ahead a stage (fbp)")] = 1,
    weights: Annotated[str, typer.Option(help="policy for lagged micro-batches (fbp)")] = "replay",
    data_dir: Annotated[Path | None, typer.Option(help="where data sets are looked for")] = None,
    threads: Annotated[int, typer.Option(help="threads a rank")] = 1,
    receive_timeout: Annotated[
        float, typer.Option(help="seconds after which a silent neighbour ends the run")
    ] = 600.0,
    last_batch: Annotated[
        str, typer.Option(help="drop or keep the smaller batch at the end of an epoch")
    ] = "drop",
    prediction: Annotated[
        bool, typer.Option("--prediction", help="forward of what lags at predicted weights (fbp)")
    ] = False,
    synchronous_tail: Annotated[
        int, typer.Option(help="last epochs in which every step flushes (fbp)")
    ] = 0,
    optimizer_option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, an argument of the optimizer's class; repeatable"),
    ] = None,
    lr_schedule: Annotated[
        str, typer.Option(help="constant, linear, cosine or step")
    ] = _RATE.schedule,
    warmup_steps: Annotated[
        int, typer.Option(help="optimizer steps of linear warm-up")
    ] = _RATE.warmup_steps,
    lr_final_factor: Annotated[
        float, typer.Option(help="share of --lr that linear and cosine end at")
    ] = _RATE.final_factor,
    lr_milestones: Annotated[
        str | None, typer.Option(help="optimizer steps of schedule step, such as 100,200")
    ] = None,
    lr_factor: Annotated[float, typer.Option(help="of the rate at each milestone")] = _RATE.factor,
    clip_norm: Annotated[
        float | None, typer.Option(help="largest 2-norm of the gradients at an update")
    ] = None,
    clip_scope: Annotated[
        str, typer.Option(help="clip the gradients of each stage, or global: of all")
    ] = "stage",
    lr_discount: Annotated[
        bool, typer.Option("--lr-discount", help="divide --lr by a stage's mean lag (fbp)")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16: layers and loss under torch's autocast")
    ] = "fp32",
    memory_format: Annotated[
        str, typer.Option(help="contiguous or channels_last, of images and their weights")
    ] = "contiguous",
    transport: Annotated[
        str, typer.Option(help="between stages: auto, mpi or torch (gloo, NCCL)")
    ] = "auto",
    progress_thread: Annotated[
        bool | None,
        typer.Option(
            help="drive MPI while stages compute; by default where ranks are on several hosts",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the checkpoint in --out, if there is one")
    ] = False,
    checkpoint_epochs: Annotated[
        int, typer.Option(help="save every so many epochs and at the end; 0: only if interrupted")
    ] = 1,
    checkpoint_steps: Annotated[
        int, typer.Option(help="drain and save every so many optimizer steps too; 0: never")
    ] = 0,
    drain_at: Annotated[
        str | None,
        typer.Option(help="optimizer steps such as 5,12: drain there, as an interrupted run did"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Train a model once and leave result, metrics, trace and checkpoint in --out.

    SIGTERM, SIGUSR2, SIGINT or SIGHUP to any rank stop it with exit code 75, once it has saved a
    checkpoint.
    """
    settings = checked_settings(
        model=model,
        dataset=dataset,
        strategy=strategy,
        plan=plan,
        batch_size=batch_size,
        micro_batches=micro_batches,
        epochs=epochs if epochs or steps else 1,
        steps=steps,
        seed=seed,
        optimizer={
            "name": optimizer,
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "options": optimizer_options(optimizer_option or []),
        },
        lead=lead,
        weights=weights,
        data_dir=data_dir,
        threads=threads,
        receive_timeout_seconds=receive_timeout,
        last_batch=last_batch,
        prediction=prediction,
        synchronous_tail=synchronous_tail,
        learning_rate={
            "schedule": lr_schedule,
            "warmup_steps": warmup_steps,
            "final_factor": lr_final_factor,
            "milestones": optimizer_steps("--lr-milestones", lr_milestones),
            "factor": lr_factor,
        },
        clip_norm=clip_norm,
        clip_scope=clip_scope,
        lr_discount=lr_discount,
        precision=precision,
        memory_format=memory_format,
        transport=transport,
        progress_thread=progress_thread,
        drain_at=optimizer_steps("--drain-at", drain_at),
        checkpoint_epochs=checkpoint_epochs,
        checkpoint_steps=checkpoint_steps,
    )
    job = start_job(parallel=strategy_named(strategy).parallel, limit_seconds=receive_timeout)
    STOP_SIGNALS.install()  # MPI may have taken one of them
    training = Training(settings, job, resume_from=out if resume else None)
    result = training.finished or _run(training, out, resume=resume, quiet=json)
    if job.rank != 0 or result is None:
        return
    if json:
        print_json(result.model_dump(mode="json"))
    else:
        _print_result(result, out)


def _run(training: Training, out: Path, *, resume: bool, quiet: bool) -> RunResult | None:
    if not training.is_reporting_rank():
        return training.run(out, None, STOP_SIGNALS)
    settings, history = training.settings, training.history
    title = f"{settings.strategy} {settings.model} {settings.dataset}"
    reporter = RunReporter(
        _display(title, training.steps, quiet=quiet),
        MetricsLog(out / "metrics.jsonl", steps=history.step, epochs=len(history.test_accuracy)),
        batch_size=settings.batch_size,
        steps_an_epoch=training.steps_an_epoch,
        learning_rate=training.learning_rate,
    )
    try:
        if resume:
            reporter.message(_where_it_starts(training, out))
        return training.run(out, reporter, STOP_SIGNALS)
    finally:
        reporter.close()


def _where_it_starts(training: Training, out: Path) -> str:
    if training.checkpoint is None:
        return f"no checkpoint in {out / FOLDER}: starting from the beginning"
    return (
        f"going on from {training.checkpoint.path}, after step {training.history.step} of "
        f"{training.steps}"
    )


def _display(title: str, steps: int, *, quiet: bool) -> ProgressDisplay:
    if quiet:
        return PlainLines(title, steps, sys.stderr)
    console = Console(file=sys.stdout)
    # Under mpirun the terminal belongs to the launcher, and a bar would scramble its output.
    if console.is_terminal and not started_by_launcher():
        return TerminalBar(title, steps, console)
    return PlainLines(title, steps, sys.stdout)


def _print_result(result: RunResult, out: Path) -> None:
    print_table(
        f"{result.strategy}: {result.model} on {result.dataset}, {result.ranks} rank(s)",
        ["rank", "idle share", "peak memory", "bytes sent"],
        [
            [
                str(rank),
                f"{100 * idle:.1f} %",
                f"{memory / 2**20:.0f} MiB",
                f"{sent / 2**20:.1f} MiB",
            ]
            for rank, (idle, memory, sent) in enumerate(
                zip(result.idle_share, result.peak_memory_bytes, result.bytes_sent, strict=True)
            )
        ],
    )
    print(
        f"{result.samples_per_second:.1f} samples/s, test accuracy "
        f"{100 * result.test_accuracy[-1]:.2f} %, weights {result.weights_sha256[:12]}; "
        f"result in {out / 'result.json'}"
    )
