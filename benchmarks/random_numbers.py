"""Measures what it costs to set the random generators before every call of a layer.

    python -m benchmarks.random_numbers --out FOLDER

The layers of a model take training steps in turns, forward, backward and the update, in one process
on one thread: called one after the other as they are, and as the engine calls them. Writes
`random_numbers.csv` and `random_numbers.md` with the median of the ratios of such pairs and its
95 % interval.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch import nn

from benchmarks.captured import times_in_turns
from benchmarks.race import markdown, shown
from hpc_lpm.activation import Activation
from hpc_lpm.campaign.statistics import estimate
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.layer_calls import LayerCalls
from hpc_lpm.models.registry import create_model

TEXT = f"text:{Path(torch.__file__).parent / 'functional.py'},sequence=64"
CASES = {
    "resnet110": ("digits,size=32", 16),
    "gpt,layers=6,width=64": (TEXT, 8),
    "gpt,layers=6,width=64,dropout=0.1": (TEXT, 8),
}
"""The models, each with its data and the samples of a micro-batch."""


def measured(name: str, dataset: str, samples: int, pairs: int) -> dict[str, object]:
    """Time pairs of steps of one model."""
    data = load_dataset(dataset)
    model = create_model(name, data.shape)
    layers = {index: model.build_layer(index, 0).train() for index in range(len(model.layers))}
    parameters = list(nn.ModuleList(layers.values()).parameters())
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)
    inputs = data.train.inputs(torch.arange(samples))
    targets = data.train.targets(torch.arange(samples))
    calls = LayerCalls(layers, 0, torch.device("cpu"))

    def plainly(activation: Activation) -> Activation:
        for layer in layers.values():
            activation = layer(activation)
        return activation

    def step(run: Callable[[Activation], Activation]) -> Callable[[], None]:
        def once() -> None:
            calls.number += 1
            torch.autograd.backward(model.loss(run(inputs), targets))
            optimizer.step()
            optimizer.zero_grad()

        return once

    plain, numbered = times_in_turns([step(plainly), step(calls.run)], pairs)
    ratio = estimate([second / first for first, second in zip(plain, numbered, strict=True)])
    low, high = ratio.bounds()
    return {
        "model": name,
        "layers": len(layers),
        "plain_step_milliseconds": 1e3 * median(plain),
        "numbered_step_milliseconds": 1e3 * median(numbered),
        "ratio": ratio.median,
        "ratio_low": low,
        "ratio_high": high,
        "shown": shown(ratio),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = pd.DataFrame([measured(name, *case, options.pairs) for name, case in CASES.items()])
    options.out.mkdir(parents=True, exist_ok=True)
    rows.drop(columns="shown").to_csv(options.out / "random_numbers.csv", index=False)
    headings = ["model", "layers", "step as it is, ms", "with generators set, ms", "ratio"]
    cells = [
        [
            str(row["model"]),
            str(row["layers"]),
            f"{row['plain_step_milliseconds']:.2f}",
            f"{row['numbered_step_milliseconds']:.2f}",
            str(row["shown"]),
        ]
        for _, row in rows.iterrows()
    ]
    (options.out / "random_numbers.md").write_text(markdown(headings, cells))
    sys.stdout.write(markdown(headings, cells))


if __name__ == "__main__":
    main()
