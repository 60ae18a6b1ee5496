"""`hpc-lpm export`: writes the weights of a run under the names of the user's own module."""

from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json
from hpc_lpm.cli.outputs import check_output


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="folder of a run, the --out of `hpc-lpm train`")],
    out: Annotated[Path, typer.Option(help="safetensors file to write", metavar="FILE")],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="folder of the run's data set, if it has moved", metavar="DIR"),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="the checkpoint of --keep-best, not the newest one")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Write the weights of a run's newest checkpoint under the names of the user's own module.

    The file is what load_state_dict of the module takes. The tensors of a model that is given layer
    by layer are named after the layer and their name within it.
    """
    from hpc_lpm.engine.checkpoint.export import export_weights, write_weights

    check_output("--out", out)
    exported = export_weights(run, data_dir, best=best)
    size = write_weights(exported, out)
    tensors = exported.tensors
    if as_json:
        print_json(
            {
                "out": str(out),
                "model": exported.model,
                "step": exported.step,
                "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
                "bytes": size,
            }
        )
        return
    console().print(
        f"{len(tensors)} tensors ({size / 2**20:.1f} MiB) of {exported.model} after step "
        f"{exported.step} written to {out}."
    )
