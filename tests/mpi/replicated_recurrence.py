"""The recurrence with R replicas of every stage, whose gradients are averaged at every update.

Micro-batch n of replica r is number m = n R + r of the data; everything here is asked by m. The
average is taken while one more forward runs, so that a forward's version is
floor(max(n - d_k - 1, 0) / M), and floor(n / M) where the schedule flushes.
"""

import torch
from torch import Tensor, nn

from tests.mpi.recurrence import Recurrence


class ReplicatedRecurrence(Recurrence):
    def __init__(self, *arguments, replicas: int, flushes: bool, **more) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*arguments, **more)
        self.R, self.flushes = replicas, flushes
        self.steps = self.N // (self.M * self.R)

    def forward_version(self, k: int, m: int) -> int:
        n = m // self.R
        return n // self.M if self.flushes else max(n - self.d(k) - 1, 0) // self.M

    def backward_version(self, m: int) -> int:
        return m // self.R // self.M

    def W(self, k: int, u: int) -> list[Tensor]:
        while len(self.history[k]) <= u:
            g = len(self.history[k]) - 1
            of_replicas = [self.accumulated(k, g, r) for r in range(self.R)]
            for i, p in enumerate(self.own[k]):
                total = of_replicas[0][i]
                for gradients in of_replicas[1:]:
                    total = total + gradients[i]
                p.grad = total / self.R
            self.update(k)
        return self.history[k][u]

    def accumulated(self, k: int, g: int, r: int) -> list[Tensor]:
        """Gradients of replica r alone for step g, n ascending."""
        total = [torch.zeros_like(p) for p in self.parameters(k)]
        for n in range(g * self.M, (g + 1) * self.M):
            for a, gradient in zip(total, self.backward(k, n * self.R + r)[1], strict=True):
                a.add_(gradient)
        return total

    def passes(self, k: int) -> list[tuple[str, int]]:
        """What one replica executes."""
        d, last = self.d(k), self.M * self.steps
        order = [("F", n) for n in range(min(d, last))]
        for n in range(last):
            if n + d < last:
                order.append(("F", n + d))
            order.append(("B", n))
        return order

    def finish(self) -> list[nn.Module]:
        """All layers in the end: last weights, statistics of all replicas averaged."""
        for k in range(1, self.K + 1):
            self.W(k, self.steps)
        for k in range(1, self.K + 1):
            buffers = [b for layer in self.layers[k] for b in layer.buffers()]
            before = [b.clone() for b in buffers]
            of_replicas = []
            for r in range(self.R):
                for b, value in zip(buffers, before, strict=True):
                    b.data = value.clone()
                self.update_statistics(k, r)
                of_replicas.append([b.clone() for b in buffers])
            for i, b in enumerate(buffers):
                total = of_replicas[0][i]
                if b.is_floating_point():
                    for held in of_replicas[1:]:
                        total = total + held[i]
                    total = total / self.R
                b.data = total
            for p, w in zip(self.parameters(k), self.W(k, self.steps), strict=True):
                p.data = w
        return [layer for k in range(1, self.K + 1) for layer in self.layers[k]]

    def update_statistics(self, k: int, r: int) -> None:
        for kind, n in self.passes(k):
            m = n * self.R + r
            lagged = self.forward_version(k, m) != self.backward_version(m)
            if (kind == "B") != (lagged and self.policy == "replay"):
                continue
            weights = (
                self.forward_weights(k, m)
                if kind == "F"
                else self.weights(k, self.backward_version(m), m)
            )
            with torch.no_grad():
                self.F(k, m, self.x(k - 1, m), weights, update_statistics=True)
