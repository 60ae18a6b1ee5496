"""`hpc-lpm profile`: measure what each layer and the link cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.cli.outputs import check_output, named_inputs
from hpc_lpm.data.registry import dataset_files, load_dataset
from hpc_lpm.models.compute_format import compute_format_named
from hpc_lpm.models.registry import create_model
from hpc_lpm.profile_file import LayerProfile, Profile
from hpc_lpm.profiling.job import profile_in_job
from hpc_lpm.ranks import rank_from_environment

MOST_ROWS = 40
"""Of a model with more layers only the heaviest are shown."""

HEAVIEST = 10


@app.command("profile")
def profile_command(
    model: Annotated[str, typer.Argument(help="Model, see `hpc-lpm models`.")],
    *,
    dataset: Annotated[str, typer.Option(help="Data set, see `hpc-lpm datasets`.")],
    micro_batch: Annotated[int, typer.Option(help="Samples of a micro-batch.")],
    out: Annotated[Path, typer.Option(help="File to write the profile to (JSON).")],
    repeats: Annotated[int, typer.Option(help="Timed sweeps over all layers.")] = 10,
    threads: Annotated[int, typer.Option(help="Threads that each rank computes with.")] = 1,
    device: Annotated[str, typer.Option(help="Device to profile on, cpu or cuda.")] = "cpu",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16 for layers and loss under torch's autocast.")
    ] = "fp32",
    memory_format: Annotated[
        str, typer.Option(help="Order of images in memory: contiguous or channels_last.")
    ] = "contiguous",
    loss: Annotated[
        str | None, typer.Option(help="Loss that the model is trained with, if not the usual one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Measure each layer's passes, memory and output, and the link under mpirun."""
    if rank_from_environment() == 0:
        check_output("--out", out, kind="profile", inputs=_inputs(model, dataset, loss, data_dir))
    data = load_dataset(dataset, data_dir)
    profile = profile_in_job(
        create_model(model, data.shape, loss=loss),
        data,
        micro_batch,
        repeats=repeats,
        threads=threads,
        device=device,
        compute_format=compute_format_named(precision, memory_format),
    )
    if rank_from_environment() != 0:
        return
    profile.write(out)
    if as_json:
        print_json(profile.model_dump(mode="json"))
        return
    _show(profile)
    console().print(f"Written to {out}.", soft_wrap=True)


def _inputs(model: str, dataset: str, loss: str | None, data_dir: Path | None) -> Iterator[Path]:
    """Yield the files that the command reads, as far as known."""
    yield from named_inputs(model, dataset, loss)
    yield from dataset_files(dataset, data_dir) or ()


def _show(profile: Profile) -> None:
    layers = profile.layers
    title = f"{profile.model}, micro-batch {profile.micro_batch}, {profile.device}, "
    title += f"{profile.dtype}, {profile.memory_format}"
    shown = list(range(len(layers)))
    if len(layers) > MOST_ROWS:
        title += f": the {HEAVIEST} heaviest of {len(layers)} layers"
        by_weight = sorted(shown, key=lambda index: -_compute_seconds(layers[index]))
        shown = sorted(by_weight[:HEAVIEST])
    columns = ["layer", "name", "forward ms", "backward ms"]
    columns += ["output KiB", "parameters KiB", "activations KiB"]
    print_table(title, columns, [_row(index, layers[index]) for index in shown])
    link, environment = profile.link, profile.environment
    console().print(
        f"All {len(layers)} layers: "
        f"forward {sum(layer.forward_seconds for layer in layers) * 1e3:.2f} ms, "
        f"backward {sum(layer.backward_seconds for layer in layers) * 1e3:.2f} ms, "
        f"parameters {sum(layer.parameter_bytes for layer in layers) / 2**20:.2f} MiB, "
        f"activations {sum(layer.activation_bytes for layer in layers) / 2**20:.2f} MiB.\n"
        f"Link ({environment['link']}, ranks: {environment['ranks']}): "
        f"latency {link.latency_seconds * 1e6:.1f} us, "
        f"bandwidth {link.bandwidth_bytes_per_second / 1e9:.2f} GB/s."
    )


def _compute_seconds(layer: LayerProfile) -> float:
    return layer.forward_seconds + layer.backward_seconds


def _row(index: int, layer: LayerProfile) -> list[str]:
    return [
        str(index),
        layer.name,
        f"{layer.forward_seconds * 1e3:.3f}",
        f"{layer.backward_seconds * 1e3:.3f}",
        f"{layer.output_bytes / 1024:.1f}",
        f"{layer.parameter_bytes / 1024:.1f}",
        f"{layer.activation_bytes / 1024:.1f}",
    ]
