"""Measures what it costs to train a module as the chain of layers that is captured from it.

    python -m benchmarks.captured --out FOLDER

Module and chain take training steps in turns, forward, backward and the update, in one process on
one thread: a step of one, a step of the other, and the next pair the other way round. Writes
`captured.csv` and `captured.md` with the median of the ratios of such pairs, its 95 % interval, and
how long the capture takes.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.race import markdown
from hpc_lpm.campaign.statistics import estimate
from hpc_lpm.models.capture import capture_model

LIMIT = 1.02
"""What a chain may take, in times of the module."""


@dataclass(frozen=True)
class Row:
    """One module: how many layers it has, and how long capture and steps take, in seconds."""

    module: str
    layers: int
    capture_seconds: float
    module_step_seconds: float
    chain_step_seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float


class Block(nn.Module):
    """Two convolutions with batch normalisation beside the way straight on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return images of the same size."""
        found = functional.relu(self.first_norm(self.first(images)), inplace=True)
        return functional.relu(images + self.second_norm(self.second(found)))


class ResidualNetwork(nn.Module):
    """A residual network for small images, as one writes it."""

    def __init__(self, blocks: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList([Block(channels) for _ in range(blocks)])
        self.head = nn.Linear(channels, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of 10 classes for images [n, 3, height, width]."""
        found = self.stem(images)
        for block in self.blocks:
            found = block(found)
        scores: Tensor = self.head(found.mean((2, 3)))
        return scores


def cases() -> dict[str, tuple[Callable[[], nn.Module], Tensor]]:
    """Return by name how each module is made, and a micro-batch for it."""
    import transformers

    transformers.logging.set_verbosity_error()
    words = {"vocab_size": 256, "use_cache": False, "bos_token_id": 0, "eos_token_id": 0}
    tokens, images = torch.randint(0, 256, (8, 64)), torch.randn(8, 3, 32, 32)
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}

    def gpt2(layers: int, width: int) -> nn.Module:
        config = transformers.GPT2Config(n_layer=layers, n_embd=width, n_head=4, **words)
        return transformers.GPT2LMHeadModel(config)  # type: ignore[no-any-return]

    def llama() -> nn.Module:
        config = transformers.LlamaConfig(hidden_size=128, **sizes, **words)
        return transformers.LlamaForCausalLM(config)  # type: ignore[no-any-return]

    def vit() -> nn.Module:
        config = transformers.ViTConfig(
            hidden_size=128, **sizes, image_size=32, patch_size=4, num_labels=10
        )
        return transformers.ViTForImageClassification(config)  # type: ignore[no-any-return]

    return {
        "residual network, 9 blocks of width 32": (lambda: ResidualNetwork(9, 32), images),
        "GPT-2, 4 blocks of width 128": (lambda: gpt2(4, 128), tokens),
        "GPT-2, 48 blocks of width 64": (lambda: gpt2(48, 64), tokens[:2]),
        "LLaMA, 4 blocks of width 128": (llama, tokens),
        "ViT, 4 blocks of width 128": (vit, images),
    }


def main() -> None:
    """Measure all modules and write the table; end with 1 if one exceeds the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, (create, inputs) in cases().items():
        torch.manual_seed(0)
        rows.append(measured(name, create(), inputs, options.pairs))
        sys.stdout.write(f"{rows[-1]}\n")
    _write(rows, options.out)
    if any(row.ratio_low > LIMIT for row in rows):
        sys.exit(1)


def measured(name: str, module: nn.Module, inputs: Tensor, pairs: int) -> Row:
    """Capture a module and time pairs of steps."""
    started = time.perf_counter()
    model = capture_model(module, inputs[:2])
    capture_seconds = time.perf_counter() - started
    layers = [layer.build().train() for layer in model.layers]
    outputs = module.train()(inputs)
    targets = torch.zeros(getattr(outputs, "logits", outputs).shape[:-1], dtype=torch.int64)
    # The chain's tied weights are copies, which a rank that held both would not have.
    for tie in model.ties:
        owner = layers[tie.owner_layer].get_parameter(tie.owner_parameter)
        setattr(layers[tie.copy_layer], tie.copy_parameter, owner)

    def chain(activation: Any) -> Any:
        for layer in layers:
            activation = layer(activation)
        return activation

    steps = [
        _step(module, list(module.parameters()), inputs, targets),
        _step(chain, list(nn.ModuleList(layers).parameters()), inputs, targets),
    ]
    seconds = times_in_turns(steps, pairs)
    ratio = estimate([chains / modules for modules, chains in zip(*seconds, strict=True)])
    low, high = ratio.bounds()
    return Row(
        name,
        len(layers),
        round(capture_seconds, 2),
        *(round(median(values), 5) for values in seconds),
        *(round(value, 4) for value in (ratio.median, low, high)),
    )


def times_in_turns(steps: Sequence[Callable[[], None]], pairs: int) -> list[list[float]]:
    """Return the seconds of each step in every pair; who begins changes from pair to pair."""
    seconds: list[list[float]] = [[] for _ in steps]
    for step in steps:
        for _ in range(3):
            step()
    for pair in range(pairs):
        order = range(len(steps)) if pair % 2 == 0 else reversed(range(len(steps)))
        for number in order:
            started = time.perf_counter()
            steps[number]()
            seconds[number].append(time.perf_counter() - started)
    return seconds


def _step(
    function: Callable[[Tensor], Any],
    parameters: list[nn.Parameter],
    inputs: Tensor,
    targets: Tensor,
) -> Callable[[], None]:
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)

    def step() -> None:
        outputs = function(inputs)
        scores = getattr(outputs, "logits", outputs)
        functional.cross_entropy(scores.flatten(0, -2), targets.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _write(rows: list[Row], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(Row)]
    with (out / "captured.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    headings = ["module", "layers", "capture, s", "module's step, ms", "chain's step, ms", "ratio"]
    cells = [
        [
            row.module,
            str(row.layers),
            f"{row.capture_seconds:.1f}",
            f"{1000 * row.module_step_seconds:.2f}",
            f"{1000 * row.chain_step_seconds:.2f}",
            f"{row.ratio:.3f} ({row.ratio_low:.3f} to {row.ratio_high:.3f})",
        ]
        for row in rows
    ]
    (out / "captured.md").write_text(markdown(headings, cells))


if __name__ == "__main__":
    main()
