"""`hpc-lpm plan --devices`: choose stages, replicas and micro-batches, and say why."""

import shlex
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from hpc_lpm.cli.output import console
from hpc_lpm.cli.plan_depth import depth_document, depth_table
from hpc_lpm.cli.plan_reasons import why
from hpc_lpm.cli.plan_table import NARROW_COLUMNS
from hpc_lpm.planning.devices.candidates import Candidate, DeviceSearch
from hpc_lpm.planning.options import OTHER_OPTIMIZER
from hpc_lpm.planning.worth.lag import Lag
from hpc_lpm.recipes import NO_RECIPE
from hpc_lpm.schedules.base import CHUNKS

MOST_ROWS = 8
_COLUMNS = (
    "stages",
    "replicas",
    "micro-\nbatches",
    "micro-\nbatch",
    "lead",
    "samples/s",
    "memory\nMiB",
    "bounded by",
)


def show_search(found: DeviceSearch) -> None:
    """Print the best candidates and why the first of them is best, in 80 columns."""
    best = found.best_of_each()
    title = f"{found.best.model.profile.model} on {found.devices} devices"
    title += f", {found.global_batch} samples per step"
    if len(best) > MOST_ROWS:
        title += f": the best {MOST_ROWS} of {len(best)}"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == _COLUMNS[-1] else "right")
    for candidate in best[:MOST_ROWS]:
        table.add_row(
            str(candidate.stages),
            str(candidate.replicas),
            str(candidate.micro_batches),
            str(candidate.micro_batch),
            str(candidate.lead),
            f"{candidate.samples_per_second:.1f}",
            f"{candidate.memory_bytes / 2**20:.2f}",
            candidate.step.short_bound,
        )
    output = console()
    output.print(Text(title, style="bold"), width=NARROW_COLUMNS)
    output.print()
    output.print(table, width=NARROW_COLUMNS)
    output.print()
    output.print(depth_table(best[:MOST_ROWS]), width=NARROW_COLUMNS)
    output.print()
    output.print(Text(why(found)), width=NARROW_COLUMNS)
    output.print()


def show_command(found: DeviceSearch, out: Path | None) -> None:
    """Print the command that trains with the plan in `out`."""
    where = "Train with it, words in capitals to be filled in:"
    if out is None:
        where = f"With --out plan.json the plan is written. {where}"
    console().print(where, soft_wrap=True)
    console().print(f"  {train_command(found.best, out)}", soft_wrap=True)


def train_command(candidate: Candidate, out: Path | None) -> str:
    """Return the command that trains as `candidate`; what the profile does not say is in capitals.

    `out` is the file of the plan, without one a file `plan.json`.
    """
    options, profile = candidate.model.options, candidate.model.profile
    devices = candidate.stages * candidate.replicas
    optimizer = "OPTIMIZER" if options.optimizer == OTHER_OPTIMIZER else options.optimizer
    launcher = ["mpirun", "-n", str(devices), "--bind-to", "none", "python", "-m", "mpi4py"]
    command = [*(launcher if devices > 1 else ["python"]), "-m", "hpc_lpm", "train"]
    command += ["--model", profile.model, "--dataset", "DATASET"]
    command += ["--strategy", options.schedule]
    command += ["--plan", str(out or "plan.json"), "--batch-size", str(options.global_batch)]
    command += ["--micro-batches", str(options.micro_batches)]
    for name in candidate.model.schedule.own_options:
        command += [f"--{name}", str(getattr(options, name))]
    if candidate.model.schedule.takes_chunks:
        command += [f"--{CHUNKS}", str(candidate.model.schedule.chunks)]
    if not candidate.model.schedule.flushes:
        if options.recipe != NO_RECIPE:
            command += ["--recipe", options.recipe]
        lag = Lag.of(candidate.model.schedule, candidate.stages, options)
        if options.prediction_rule not in (None, lag.rule_of_recipe(options)):
            command += ["--prediction", "--prediction-rule", options.prediction_rule]
    command += ["--optimizer", optimizer]
    if profile.dtype == "bfloat16":
        command += ["--precision", "bf16"]
    if profile.memory_format != "contiguous":
        command += ["--memory-format", profile.memory_format]
    return shlex.join([*command, "--out", "results/by-hand"])


def search_document(found: DeviceSearch, out: Path | None) -> dict[str, object]:
    """Return the search for `--json`: all candidates, best first, and what was left out."""
    return {
        "devices": found.devices,
        "global_batch": found.global_batch,
        "objective": found.objective,
        "candidates": [
            {
                "stages": candidate.stages,
                "replicas": candidate.replicas,
                "micro_batches": candidate.micro_batches,
                "micro_batch": candidate.micro_batch,
                "lead": candidate.lead,
                "cuts": candidate.cuts,
                "step_seconds": float(candidate.step.seconds),
                "samples_per_second": candidate.samples_per_second,
                "memory_bytes": candidate.memory_bytes,
                "bounded_by": candidate.step.bound,
                **depth_document(candidate),
            }
            for candidate in found.candidates
        ],
        "left_out": [
            {
                "stages": item.stages,
                "replicas": item.replicas,
                "micro_batch": item.micro_batch,
                "lead": None if item.model is None else item.model.options.lead,
                "reason": item.reason.value,
            }
            for item in found.left_out
        ],
        "why": why(found),
        "command": train_command(found.best, out),
    }
