"""`hpc-lpm train`: trains one run, alone or under mpirun."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.forgiving_display import ForgivingDisplay
from hpc_lpm.cli.idle_options import refuse_idle_options
from hpc_lpm.cli.option_values import command_parameters, document_of
from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.engine.checkpoint.store import FOLDER
from hpc_lpm.engine.job import Job, start_job
from hpc_lpm.engine.one_process.play import play_ranks, ranks_to_play
from hpc_lpm.engine.result import RESULT, RunResult
from hpc_lpm.engine.run_folder import check_run_folder
from hpc_lpm.engine.run_reporter import (
    METRICS,
    MetricsLog,
    PlainLines,
    ProgressDisplay,
    RunReporter,
    TerminalBar,
)
from hpc_lpm.engine.same_request import check_same_request
from hpc_lpm.engine.settings import TrainSettings, checked_settings, read_settings
from hpc_lpm.engine.strategies.registry import DEFAULT_STRATEGY, STRATEGIES, strategy_named
from hpc_lpm.engine.trackers import Tracking, open_tracking
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError, InterruptedTrainingError
from hpc_lpm.files import check_can_write
from hpc_lpm.options import (
    RUN,
    DescribedField,
    described_fields,
    flatten_settings,
    merged_documents,
)
from hpc_lpm.stop_signals import STOP_SIGNALS


def fields_of_command(arguments: Sequence[str]) -> list[DescribedField]:
    """Return the fields that `hpc-lpm train` takes as options.

    These are the fields that all strategies share, those that each registered strategy declares,
    and those of a strategy of the user's own that the arguments name.
    """
    fields = sorted(described_fields(TrainSettings), key=lambda field: field.option.panel != RUN)
    own = [strategy.options for _, strategy in STRATEGIES.items()]
    own += [strategy_named(name).options for name in _strategies_in(arguments) if ":" in name]
    for options in own:
        known = {field.path for field in fields}
        fields += [field for field in described_fields(options) if field.path not in known]
    return fields


def train(
    out: Annotated[Path, typer.Option(help="folder of the run", metavar="DIR")],
    settings: Annotated[
        Path | None,
        typer.Option(help="JSON file of settings; other options override it", metavar="FILE"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="resume from the checkpoint in --out, if any")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
    **given: object,
) -> None:
    """Train a model once and write result, metrics, trace and checkpoint to the folder --out.

    SIGTERM, SIGUSR2, SIGINT or SIGHUP to any rank stop the run: it saves a checkpoint and exits
    with code 75.
    """
    checked = _checked(settings, given)

    def train_rank(job: Job) -> RunResult | None:
        check_run_folder(out, checked)
        check_can_write(out / RESULT)
        training = Training(checked, job, resume_from=out if resume else None, plan_into=out)
        return training.finished or _run(training, out, resume=resume, quiet=json)

    if ranks := ranks_to_play(checked):
        results = play_ranks(ranks, checked.receive_timeout_seconds, train_rank)
        rank, result = 0, results[0]
    else:
        job = start_job(
            parallel=strategy_named(checked.strategy).parallel,
            limit_seconds=checked.receive_timeout_seconds,
        )
        STOP_SIGNALS.install()  # MPI may have taken over one of them
        check_same_request(job, checked, out, resume=resume)
        rank, result = job.rank, train_rank(job)
    if rank == 0 and result is not None:
        _show(result, out, as_json=json)


_FIXED = [
    parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    for parameter in inspect.signature(train).parameters.values()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
]
"""The parameters of the command that are not settings."""


def register(arguments: Sequence[str]) -> None:
    """Register the command with the options that fit its arguments."""
    fields = fields_of_command(arguments)
    generated = command_parameters(fields)
    signature = inspect.Signature([*_FIXED, *generated])
    # Typer derives the options from the signature of the function.
    train.__signature__ = signature  # type: ignore[attr-defined]
    train.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    app.registered_commands = [each for each in app.registered_commands if each.callback != train]
    app.command()(train)


def _strategies_in(arguments: Sequence[str]) -> list[str]:
    following = [after for before, after in pairwise(arguments) if before == "--strategy"]
    joined = [text.partition("=")[2] for text in arguments if text.startswith("--strategy=")]
    return [*following, *joined]


def _checked(path: Path | None, given: Mapping[str, object]) -> TrainSettings:
    document = read_settings(path) if path else {}
    strategy = str(given.get("strategy") or document.get("strategy") or DEFAULT_STRATEGY)
    typed = document_of(fields_of_command(["--strategy", strategy]), given)
    if {"epochs", "steps"} & typed.keys():
        document = {**document, "epochs": None, "steps": None}
    merged = merged_documents(document, typed)
    for name in ("model", "dataset"):
        if name not in merged:
            raise InputError(
                f"train was given no --{name}: name one of `hpc-lpm {name}s`, or a settings file."
            )
    if not merged.get("epochs") and not merged.get("steps"):
        merged["epochs"] = 1
    checked = checked_settings(**merged)
    refuse_idle_options(checked, flatten_settings(typed).keys())
    return checked


def _run(training: Training, out: Path, *, resume: bool, quiet: bool) -> RunResult | None:
    settings, history = training.settings, training.history
    tracked = (training.job, settings.tracker, training.configuration(), out)
    if not training.is_reporting_rank():
        open_tracking(*tracked, None)
        return training.run(out, None, STOP_SIGNALS)
    title = f"{settings.strategy} {settings.model} {settings.dataset}"
    with ExitStack() as resources:
        display = ForgivingDisplay(lambda: _display(title, training.steps, quiet=quiet), _complain)
        resources.callback(display.close)
        tracking = open_tracking(*tracked, display.message)
        if tracking:
            resources.push(partial(_end_tracking, tracking))
        log = MetricsLog(
            out / METRICS,
            steps=history.step,
            epochs=history.epochs_evaluated,
            evaluated=history.evaluated_step,
            tracking=tracking,
        )
        reporter = RunReporter(
            display,
            log,
            batch_size=settings.batch_size,
            steps_an_epoch=training.steps_an_epoch,
            learning_rate=training.learning_rate,
            group_rates=training.group_rates,
        )
        resources.callback(reporter.close)
        if training.plan_notice:
            reporter.message(training.plan_notice)
        if training.recipe:
            reporter.message(training.recipe)
        if resume:
            reporter.message(_where_it_starts(training, out))
        return training.run(out, reporter, STOP_SIGNALS)


def _end_tracking(tracking: Tracking, kind: type[BaseException] | None, *_: object) -> None:
    if kind is None:
        tracking.close("finished")
    else:
        interrupted = issubclass(kind, InterruptedTrainingError)
        tracking.close("interrupted" if interrupted else "failed")


def _where_it_starts(training: Training, out: Path) -> str:
    if training.checkpoint is None:
        return f"no checkpoint in {out / FOLDER}: starting from the beginning"
    where = (
        f"resuming from {training.checkpoint.path}, after step {training.history.step} of "
        f"{training.steps}"
    )
    if training.damage:
        where = f"{training.damage.split(': restore the file')[0]}; {where}"
    changes = training.resume_changes
    if not changes:
        return where
    return f"{where}; a run of this length from the start differs: {', and '.join(changes)}"


def _display(title: str, steps: int, *, quiet: bool) -> ProgressDisplay:
    if quiet:
        return PlainLines(title, steps, sys.stderr)
    # Under mpirun the terminal belongs to the launcher, and a bar would scramble its output.
    if (terminal := console()).is_terminal:
        return TerminalBar(title, steps, terminal)
    return PlainLines(title, steps, sys.stdout)


def _show(result: RunResult, out: Path, *, as_json: bool) -> None:
    """Show a result, which is on the disk by now: that it cannot be shown is no failure."""
    try:
        if as_json:
            print_json(result.model_dump(mode="json"))
        else:
            _print_result(result, out)
    except Exception as error:
        _complain(f"the result is in {out / RESULT}, but cannot be shown ({error!r})")


def _complain(sentence: str) -> None:
    print(f"hpc-lpm: {sentence}.", file=sys.stderr, flush=True)


def _print_result(result: RunResult, out: Path) -> None:
    played = ", played by one process" if result.settings.get("in_one_process") else ""
    print_table(
        f"{result.strategy}: {result.model} on {result.dataset}, {result.ranks} rank(s){played}",
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
    by_rule: dict[str, int] = {}
    for group in result.parameter_groups:
        if group.rule is not None:
            by_rule[group.rule] = by_rule.get(group.rule, 0) + len(group.parameters)
    if by_rule:
        counted = (f"{number} by {rule}" for rule, number in by_rule.items())
        print(f"parameters updated: {', '.join(counted)}; result.json lists them")
    if result.stopped_early:
        print(result.stopped_early.sentence())
    if any(result.skipped_updates):
        skipped = ", ".join(map(str, result.skipped_updates))
        print(f"updates skipped by rank, since gradients were not finite: {skipped}")
    for rewind in result.rewinds:
        print(
            f"steps {rewind.checkpoint_step} to {rewind.step} were left out, since the loss or the "
            "weights of the last were not finite"
        )
    print(
        f"{len(result.evaluations)} evaluations in {result.evaluation_seconds:.2f} s, drains of "
        f"{result.drain_seconds:.2f} s in {result.training_seconds:.2f} s of training"
    )
    if result.checkpoints_saved:
        print(
            f"{result.checkpoints_saved} checkpoints: training stood still for "
            f"{max(result.saving_copy_seconds):.2f} s to copy and "
            f"{max(result.saving_wait_seconds):.2f} s to wait for files, which were written behind "
            f"it in {max(result.saving_behind_seconds):.2f} s"
        )
    last = [each for each in result.evaluations if each.step == result.evaluations[-1].step]
    print(
        f"{result.samples_per_second:.1f} samples/s, {', '.join(map(str, last))}, "
        f"weights {result.weights_sha256[:12]}; result in {out / 'result.json'}"
    )
