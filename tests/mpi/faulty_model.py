"""A user's own model of four layers, one of which is at fault: `faulty_model:make,fault=...`.

Copied by the tests to where a user would have it. Calls of a layer count from 0, in training only.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("entry", "second", "third", "head")
WIDTH = 16


class _FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        raise ValueError("gradient refused")


def _raise(x: Tensor) -> Tensor:
    raise ValueError("an odd\npixel")


def _kill(x: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def _stop(x: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGSTOP)
    return x


def _stop_second(x: Tensor) -> Tensor:
    return _stop(x) if os.environ["OMPI_COMM_WORLD_RANK"] == "1" else x


def _dawdle(x: Tensor) -> Tensor:
    """Take a second, or a minute from when an interruption was noted, which a file then tells."""
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            Path(__file__).with_name("noted").touch()
            time.sleep(60.0)
        time.sleep(0.01)
    return x


def _exit(x: Tensor) -> Tensor:
    os._exit(0)


# What happens, in which layer, and from which call on.
FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    "forward": (_raise, 2, 5),
    "late": (_raise, 2, 30),
    "backward": (_FailsBackward.apply, 2, 3),
    "nan": (lambda x: x * float("nan"), 2, 6),
    "input": (lambda x: x.mul_(2), 0, 1),
    "kept": (lambda x: x.add_(1), 3, 0),
    "probe": (_raise, 1, -1),
    "kill": (_kill, 2, 3),
    "exit": (_exit, 2, 3),
    "stop": (_stop, 2, 3),
    "stop second": (_stop_second, 2, 3),
    "slow": (_dawdle, 2, 4),
}


class Faulty(nn.Module):
    def __init__(self, index: int, fault: str) -> None:
        super().__init__()
        self.act, layer, self.first_call = FAULTS[fault]
        self.at_fault = layer == index
        self.calls = 0
        self.linear = nn.Linear(64 if index == 0 else WIDTH, 10 if index == 3 else WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.at_fault and (self.training or self.first_call < 0):
            self.calls += 1
            if self.calls > self.first_call:
                inputs = self.act(inputs)
        if inputs.shape[1] < WIDTH and inputs.dim() == 2:
            return inputs
        # Sigmoid's backward pass needs its output, which the next layer is given.
        return torch.sigmoid(self.linear(inputs.flatten(1)))


def make(shape: object, fault: str = "") -> object:
    from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy

    def layer(index: int) -> Layer:
        return Layer(NAMES[index], lambda: Faulty(index, fault))

    return LayeredModel("faulty", tuple(map(layer, range(4))), cross_entropy, count_correct)
