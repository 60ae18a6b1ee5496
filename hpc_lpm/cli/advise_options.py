"""The options of `hpc-lpm advise`."""

from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.profile_options import PROFILE_HELP

ModelArgument = Annotated[str, typer.Argument(help="Model, see `hpc-lpm models`.")]
DatasetOption = Annotated[str, typer.Option(help="Data set, see `hpc-lpm datasets`.")]
DevicesOption = Annotated[int, typer.Option(help="Devices that are to train the model.")]
BatchSizeOption = Annotated[
    int, typer.Option(help="Samples of an optimizer step on all devices together.")
]
ProfileOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help=f"{PROFILE_HELP} Repeatable, one for each micro-batch; by default the model is "
        "profiled here.",
    ),
]
MicroBatchOption = Annotated[
    list[int] | None,
    typer.Option(
        metavar="SAMPLES",
        help="Micro-batch to profile at, repeatable; by default some that divide the batch.",
    ),
]
RepeatsOption = Annotated[
    int | None, typer.Option(help="Timed sweeps over all layers of a profile, by default 5.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Device to profile on, cpu (by default) or cuda.")
]
OptimizerOption = Annotated[str, typer.Option(help="Optimizer, as `hpc-lpm train` takes it.")]
LearningRateOption = Annotated[
    float | None,
    typer.Option(
        "--lr",
        help="Learning rate, for the campaign alone; by default the optimizer's usual one, such as "
        "0.1 for momentum and 0.001 for adamw.",
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Corrections for lagged weights, tried beside none: auto, none or the name of one.",
    ),
]
MemoryLimitOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory of a device in bytes, or as 4GiB."),
]
NodeLinkOption = Annotated[
    str | None,
    typer.Option(help="LATENCY:BANDWIDTH between nodes; the profile's link is that inside."),
]
DevicesPerNodeOption = Annotated[
    int | None, typer.Option(help="Devices that share a node, with --node-link.")
]
AlsoOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STRATEGY",
        help="Strategy or schedule of your own to weigh too, as module:name; repeatable.",
    ),
]
DataDirOption = Annotated[Path | None, typer.Option(help="Folder of the data set's files.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        help="fp32, or bf16 for layers and loss under torch's autocast; by default the profile's."
    ),
]
LossOption = Annotated[
    str | None, typer.Option(help="Loss that the model is trained with, if not the usual one.")
]
WriteCampaignOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the campaign that races the first three (YAML)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
