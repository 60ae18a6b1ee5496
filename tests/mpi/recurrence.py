"""METHOD section 2 in one process: the FBP recurrence with an explicit history of weights.

Written from the equations, with stages numbered k = 1..K as there; it knows neither the engine nor
the schedules. Everything is computed on demand: x(k, n), the gradients of (k, n) and the weights
after u updates are functions of each other.
"""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor, nn

from hpc_lpm.models.dropout import set_dropout_stream
from hpc_lpm.models.layered import LayeredModel

Tensors = tuple[Tensor, ...]


class Recurrence:
    def __init__(
        self,
        model: LayeredModel,
        cuts: list[int],
        inputs: list[Tensor],
        targets: list[Tensor],
        *,
        per_step: int,
        lead: int,
        seed: int,
        weights: str,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        self.model, self.inputs, self.targets, self.policy = model, inputs, targets, weights
        self.M, self.N, self.K, self.lead, self.seed = (
            per_step,
            len(inputs),
            len(cuts) - 1,
            lead,
            seed,
        )
        self.layers: dict[int, list[nn.Module]] = {}
        self.first = {k: cuts[k - 1] for k in range(1, self.K + 1)}
        self.optimizers: dict[int, torch.optim.Optimizer] = {}
        self.history: dict[int, list[list[Tensor]]] = {}
        for k in range(1, self.K + 1):
            self.layers[k] = [model.build_layer(i, seed) for i in range(cuts[k - 1], cuts[k])]
            self.history[k] = [[p.detach().clone() for p in self.parameters(k)]]
            # The optimizer's own copy of the weights, so that its state moves on by whole updates.
            self.own = getattr(self, "own", {})
            self.own[k] = [nn.Parameter(p.detach().clone()) for p in self.parameters(k)]
            self.optimizers[k] = optimizer(self.own[k] or [nn.Parameter(torch.zeros(0))])
        self.x = cache(self.x)  # type: ignore[method-assign]
        self.backward = cache(self.backward)  # type: ignore[method-assign]

    def parameters(self, k: int) -> list[nn.Parameter]:
        return [p for layer in self.layers[k] for p in layer.parameters()]

    def d(self, k: int) -> int:
        return self.lead * (self.K - k)

    def forward_version(self, k: int, n: int) -> int:
        return max(n - self.d(k), 0) // self.M

    def backward_version(self, n: int) -> int:
        return n // self.M

    def W(self, k: int, u: int) -> list[Tensor]:
        while len(self.history[k]) <= u:
            g = len(self.history[k]) - 1
            total: list[Tensor] | None = None
            for n in range(g * self.M, (g + 1) * self.M):
                gradients = self.backward(k, n)[1]
                if total is None:
                    total = [gradient.clone() for gradient in gradients]
                else:
                    for a, gradient in zip(total, gradients, strict=True):
                        a.add_(gradient)
            for p, a in zip(self.own[k], total or [], strict=True):
                p.grad = a
            self.optimizers[k].step()
            self.history[k].append([p.detach().clone() for p in self.own[k]])
        return self.history[k][u]

    def F(self, k: int, n: int, x: Tensors, weights: list[Tensor], *, update_statistics: bool):  # type: ignore[no-untyped-def]
        for p, w in zip(self.parameters(k), weights, strict=True):
            p.data = w
        before = [[b.clone() for b in layer.buffers()] for layer in self.layers[k]]
        value = x if len(x) > 1 else x[0]
        for i, layer in enumerate(self.layers[k]):
            layer.train()
            set_dropout_stream(layer, self.seed, self.first[k] + i, n)
            value = layer(value)
        if not update_statistics:
            for layer, saved in zip(self.layers[k], before, strict=True):
                for b, s in zip(layer.buffers(), saved, strict=True):
                    b.data = s
        return value

    def x(self, k: int, n: int) -> Tensors:
        """Output of stage k for micro-batch n; k = 0 is the data."""
        if k == 0:
            return (self.inputs[n],)
        previous, weights = self.x(k - 1, n), self.W(k, self.forward_version(k, n))
        with torch.no_grad():
            value = self.F(k, n, previous, weights, update_statistics=False)
        return value if isinstance(value, tuple) else (value,)

    def backward(self, k: int, n: int) -> tuple[Tensors, list[Tensor]]:
        """Gradients of stage k's inputs and of its weights, as the weight policy has it."""
        now = self.W(k, self.backward_version(n))
        then = self.W(k, self.forward_version(k, n))
        weights = now if self.policy == "replay" else then
        above = self.backward(k + 1, n)[0] if k < self.K else ()
        arriving = [t.detach().clone() for t in self.x(k - 1, n)]
        for t in arriving:
            t.requires_grad_(t.is_floating_point() and k > 1)
        parameters = self.parameters(k)
        with reading_later(weights, now) if self.policy == "live" else nullcontext():
            value = self.F(k, n, tuple(arriving), weights, update_statistics=False)
        for p in parameters:
            p.grad = None
        if k == self.K:
            torch.autograd.backward(self.model.loss(value, self.targets[n]) / self.M)
        else:
            values = value if isinstance(value, tuple) else (value,)
            torch.autograd.backward(list(values), list(above))
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return tuple(t.grad for t in arriving if t.grad is not None), gradients

    def finish(self) -> list[nn.Module]:
        """All layers in the end: last weights, statistics updated in the order of the passes."""
        for k in range(1, self.K + 1):
            self.W(k, self.N // self.M)
        for k in range(1, self.K + 1):
            for kind, n in self.passes(k):
                lagged = self.forward_version(k, n) != self.backward_version(n)
                if (kind == "B") == (lagged and self.policy == "replay"):
                    version = (
                        self.forward_version(k, n) if kind == "F" else self.backward_version(n)
                    )
                    weights = self.W(k, version)
                    with torch.no_grad():
                        self.F(k, n, self.x(k - 1, n), weights, update_statistics=True)
            for p, w in zip(self.parameters(k), self.W(k, self.N // self.M), strict=True):
                p.data = w
        return [layer for k in range(1, self.K + 1) for layer in self.layers[k]]

    def passes(self, k: int) -> list[tuple[str, int]]:
        d = self.d(k)
        order = [("F", n) for n in range(min(d, self.N))]
        for n in range(self.N):
            if n + d < self.N:
                order.append(("F", n + d))
            order.append(("B", n))
        return order


def reading_later(then: list[Tensor], now: list[Tensor]):  # type: ignore[no-untyped-def]
    """Make graphs that keep a weight (or a view of it) for backward read its value in `now`."""
    places = {w.untyped_storage().data_ptr(): i for i, w in enumerate(then) if w.numel()}

    def keep(t: Tensor):  # type: ignore[no-untyped-def]
        place = places.get(t.untyped_storage().data_ptr())
        return t if place is None else (place, t.size(), t.stride(), t.storage_offset())

    def read(kept):  # type: ignore[no-untyped-def]
        return kept if isinstance(kept, Tensor) else now[kept[0]].as_strided(*kept[1:])

    return torch.autograd.graph.saved_tensors_hooks(keep, read)


def fingerprint(layers: list[nn.Module]) -> str:
    """The documented hash of a model: a hash a layer over sorted names, types, shapes and bits."""
    of_layers = ""
    for layer in layers:
        digest = hashlib.sha256()
        state = layer.state_dict()
        for name in sorted(state):
            tensor = state[name].detach().contiguous()
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
            digest.update(bytes(tensor.reshape(-1).view(torch.uint8).tolist()))
        of_layers += digest.hexdigest()
    return hashlib.sha256(of_layers.encode()).hexdigest()
