"""Whatever a layer remembers is as it was after it has been set back."""

from collections import deque

import numpy as np
import torch
from torch import Tensor, nn

from hpc_lpm.models.module_state import ModuleState


class Meter:
    def __init__(self) -> None:
        self.total = torch.zeros(2)
        self.passes = 0


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("assigned", torch.zeros(2))
        self.register_buffer("changed", torch.zeros(2))
        self.register_buffer("expanded", torch.zeros(1).expand(3))
        self.count = 0
        self.plain = torch.zeros(2)
        self.sums = [torch.zeros(2), {"deep": (torch.zeros(2), [0])}]
        self.last: deque[int] = deque([1, 2], maxlen=2)
        self.array = np.zeros(2)
        self.seen = {1}
        self.meter = Meter()

    def forward(self, values: Tensor) -> Tensor:
        self.assigned = self.assigned + 1
        self.changed.add_(1)
        self.count += 1
        self.plain.add_(1)
        self.sums[0] += 1
        self.sums[1]["deep"][0].add_(1)
        self.sums[1]["deep"][1][0] += 1
        self.last.append(self.count)
        self.array += 1
        self.seen.add(self.count + 1)
        self.meter.total += 1
        self.meter.passes += 1
        self.cache = values
        return self.linear(values)

    def remembered(self) -> str:
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return f"{own | {'meter': vars(self.meter)}} {dict(self.named_buffers())}"


def test_assigned_changed_and_new_state_is_set_back() -> None:
    module = nn.Sequential(Remembering(), nn.BatchNorm1d(2))
    inner, norm = module[0], module[1]
    assert isinstance(inner, Remembering)
    assert isinstance(norm, nn.BatchNorm1d)
    before, statistics = inner.remembered(), norm.state_dict()
    statistics = {name: tensor.clone() for name, tensor in statistics.items()}
    buffer = inner.changed
    state = ModuleState(module)
    module(torch.randn(4, 2))
    assert inner.remembered() != before
    state.restore()
    assert inner.remembered() == before
    assert inner.changed is buffer
    assert all(torch.equal(norm.state_dict()[name], kept) for name, kept in statistics.items())


def test_parameters_are_left_alone() -> None:
    layer = nn.Linear(2, 2)
    state = ModuleState(layer)
    with torch.no_grad():
        layer.weight.fill_(1)
    state.restore()
    assert torch.equal(layer.weight, torch.ones(2, 2))


def test_a_graph_in_flight_can_still_run_backward() -> None:
    layer = nn.BatchNorm1d(2)
    values = torch.randn(4, 2, requires_grad=True)
    outputs = layer(values)
    state = ModuleState(layer)
    layer(values)
    state.restore()
    outputs.sum().backward()
    assert values.grad is not None
