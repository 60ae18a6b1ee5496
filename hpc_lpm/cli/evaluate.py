"""`hpc-lpm evaluate`: evaluates a trained run again, on its own data or on others."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import print_json
from hpc_lpm.errors import InputError


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="folder of a run, the --out of `hpc-lpm train`")],
    dataset: Annotated[
        str | None,
        typer.Option(help="another data set of the same kind", metavar="DATASET"),
    ] = None,
    part: Annotated[
        str, typer.Option(help="test, validation or training", metavar="NAME")
    ] = "test",
    metric: Annotated[
        list[str] | None,
        typer.Option(help="another metric by name, or module:function; repeatable", metavar="NAME"),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="another loss than that of the run", metavar="NAME")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="folder in which data sets are looked for", metavar="DIR"),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="the checkpoint of --keep-best, not the newest one")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Compute loss and metrics of a run's newest checkpoint, in one process.

    On the data of the run they have the bits of its own evaluation, on however many ranks it was
    trained.
    """
    from hpc_lpm.engine.run_evaluation import Part, evaluate_run

    if part not in get_args(Part):
        raise InputError(f"--part is {part!r}, accepted are {', '.join(get_args(Part))}.")
    evaluated = evaluate_run(
        run,
        dataset=dataset,
        data_dir=data_dir,
        loss=loss,
        metrics=tuple(metric or ()),
        part=cast(Part, part),
        best=best,
    )
    if as_json:
        print_json(
            {
                "checkpoint": str(evaluated.checkpoint),
                "model": evaluated.model,
                "dataset": evaluated.dataset,
                "samples": evaluated.samples,
                **{
                    name: value
                    for name, value in asdict(evaluated.found).items()
                    if name in {"step", "part", "loss", "metrics", "seconds"}
                },
            }
        )
        return
    print(
        f"{evaluated.model} after step {evaluated.found.step} on {evaluated.dataset}, "
        f"{evaluated.samples} samples: {evaluated.found}"
    )
