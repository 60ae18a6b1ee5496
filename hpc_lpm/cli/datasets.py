"""`hpc-lpm datasets`: list the data sets, or show what one holds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.listing import print_registry
from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.data.description import describe_dataset
from hpc_lpm.data.registry import DATASETS, load_dataset

_SHOWN_CLASSES = 30
_SHOWN_FILES = 30


@app.command("datasets")
def datasets_command(
    dataset: Annotated[
        str | None, typer.Argument(help="A data set to load and show.", metavar="DATASET")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the data sets and their options, or show what one of them holds.

    That is: shapes and types, the samples of each part, classes and how often they occur, mean and
    standard deviation, the first training samples, and the files that were left out.
    """
    if dataset is None:
        print_registry(DATASETS, "Data sets", as_json=as_json)
        return
    described = describe_dataset(load_dataset(dataset, data_dir))
    if as_json:
        print_json(described)
    else:
        _print(described)


def _print(described: dict[str, Any]) -> None:
    def line(text: str) -> None:
        console().print(text, soft_wrap=True)

    classes = described["classes"]
    sizes = {
        "classes": f"{classes} classes",
        "next-token": f"{described['vocabulary']} tokens",
        "multi-label": f"{classes} labels",
        "regression": f"{classes} number{'s' if classes > 1 else ''} to predict",
    }
    kind = described["kind"]
    if kind == "image" and len(described["input_shape"]) != 3:
        kind = "numbers"
    line(f"{described['name']}: {kind}, {sizes.get(described['task'], 'a task of your own')}")
    line(f"inputs: {_shapes(described['inputs'])}; targets: {_shapes(described['targets'])}")
    parts = described["parts"]
    line("samples: " + ", ".join(f"{part['samples']} {name}" for name, part in parts.items()))
    for what, mean, std in (
        ("inputs", described["mean"], described["std"]),
        ("targets", described.get("targets_mean"), described.get("targets_std")),
    ):
        if mean:
            line(f"{what}: mean {_numbers(mean)}, standard deviation {_numbers(std)}")
    if any(part["of_each_class"] for part in parts.values()):
        _print_classes(described)
    names = described["class_names"] if described["task"] == "classes" else []
    print_table(
        "First training samples",
        ["inputs", "target"],
        [
            [_excerpt(sample["inputs"], []), _excerpt(sample["target"], names)]
            for sample in described["first_samples"]
        ],
    )
    skipped = described["skipped"]
    if skipped:
        line(f"{len(skipped)} files or folders were left out:")
        for text in skipped[:_SHOWN_FILES]:
            line(f"  {text}")
        _say_rest(len(skipped) - _SHOWN_FILES)


def _print_classes(described: dict[str, Any]) -> None:
    parts = {
        name: part["of_each_class"]
        for name, part in described["parts"].items()
        if part["of_each_class"]
    }
    names = described["class_names"]
    rows = [
        [
            str(n),
            *(names[n : n + 1] if names else []),
            *(str(counts[n]) for counts in parts.values()),
        ]
        for n in range(min(described["classes"], _SHOWN_CLASSES))
    ]
    kind = "label" if described["task"] == "multi-label" else "class"
    print_table("Samples of each " + kind, [kind, *(["name"] if names else []), *parts], rows)
    _say_rest(described["classes"] - _SHOWN_CLASSES)


def _say_rest(more: int) -> None:
    if more > 0:
        console().print(f"... and {more} more; --json shows all.", soft_wrap=True)


def _shapes(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{tensor['dtype']} ({', '.join(map(str, tensor['shape']))})" for tensor in tensors
    )


def _numbers(values: list[float] | None) -> str:
    several = values or []
    return ", ".join(f"{value:.4g}" for value in several[:8]) + (", ..." if several[8:] else "")


def _excerpt(shown: Any, names: list[str]) -> str:
    if isinstance(shown, str):
        return repr(shown)
    if isinstance(shown, int) and names:
        return f"{shown} ({names[shown]})"
    numbers = shown if isinstance(shown, list) else [shown]
    return " ".join(f"{number:.4g}" for number in numbers if number is not None)
