"""What is learnt: bytes of the standard library by a small gpt, digits by a residual network."""

import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.delay_study.player import Batches
from hpc_lpm.data.dataset import DataShape, epoch_order
from hpc_lpm.data.mnist5k import load_mnist5k
from hpc_lpm.data.samples import Samples
from hpc_lpm.data.text import load_text
from hpc_lpm.models.gpt import gpt
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.losses import cross_entropy
from hpc_lpm.models.resnet import resnet

SEQUENCE = 32


@dataclass(frozen=True)
class Task:
    """Training and test samples, and the network that learns them."""

    model: LayeredModel
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    alike_in_any_batch: bool

    def batches(self, samples: int, total: int, seed: int) -> Batches:
        """Return what gives micro-batches of `samples` by their numbers, in a seed's order."""
        epochs = -(-total // len(self.inputs))
        order = torch.cat([epoch_order(len(self.inputs), seed, epoch) for epoch in range(epochs)])

        def batch(start: int, stop: int) -> tuple[Tensor, Tensor]:
            rows = order[start * samples : stop * samples]
            return self.inputs[rows], self.targets[rows]

        return batch

    @torch.no_grad()
    def evaluate(self, module: nn.Module, samples: int = 64) -> tuple[float, float]:
        """Return the mean loss and the share of right predictions on the test samples."""
        module.eval()
        loss, right = 0.0, 0
        for start in range(0, len(self.test_inputs), samples):
            targets = self.test_targets[start : start + samples]
            outputs = module(self.test_inputs[start : start + samples])
            loss += float(cross_entropy(outputs, targets)) * len(targets)
            right += int((outputs.argmax(-1) == targets).sum())
        module.train()
        return loss / len(self.test_inputs), right / self.test_targets.numel()


@cache
def text_task(blocks: int, width: int, heads: int) -> Task:
    """Return the gpt on the sources of asyncio, whose bytes are numbered as far as they occur."""
    data = load_text(Path(sysconfig.get_path("stdlib")) / "asyncio", sequence=SEQUENCE)
    parts = [*_whole(data.train), *_whole(data.test)]
    occurring = torch.unique(torch.cat([part.flatten() for part in parts]))
    inputs, targets, *held_out = (torch.searchsorted(occurring, part) for part in parts)
    shape = DataShape("text", (SEQUENCE,), len(occurring))
    model = gpt(shape, layers=blocks, width=width, heads=heads)
    return Task(model, inputs, targets, held_out[0], held_out[1], alike_in_any_batch=True)


@cache
def digits_task() -> Task:
    """Return the ResNet-20 on 5,000 MNIST images."""
    data = load_mnist5k(None)
    model = resnet(data.shape, depth=20)
    return Task(model, *_whole(data.train), *_whole(data.test), alike_in_any_batch=False)


def _whole(samples: Samples) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of all samples."""
    rows = torch.arange(len(samples))
    return samples.inputs(rows), samples.targets(rows)
