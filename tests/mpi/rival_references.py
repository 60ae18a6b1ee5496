"""The asynchronous rivals in one process, each written from the equation of its paper.

Stages are numbered k = 0..K-1, micro-batches n = 0..N-1; a step has M of them (M = 1 in the papers
but that of PipeDream-2BW). W[k][u] are the weights of stage k after u updates. Nothing is drained,
so that one training without evaluations in between is one call of a reference.

PipeDream and PipeDream-2BW have an equation for the whole model: autograd runs through all layers
at once, under the versions that the equation names. DDG, Features Replay and FDG are iterations in
which every module works with what its neighbours had the iteration before.
"""

from collections.abc import Callable, Collection
from itertools import count

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hpc_lpm.models.layered import LayeredModel
from tests.mpi.recurrence import draw_from

Weights = list[dict[str, Tensor]]
"""By layer of a stage."""


class Rival:
    """What the equations share: a model in stages, their weights after u updates, one update."""

    def __init__(
        self,
        model: LayeredModel,
        cuts: list[int],
        inputs: list[Tensor],
        targets: list[Tensor],
        *,
        M: int,  # noqa: N803
        seed: int,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        self.model, self.inputs, self.targets = model, inputs, targets
        self.M, self.N, self.K, self.seed = M, len(inputs), len(cuts) - 1, seed
        self.first = cuts[:-1]
        self.stages = [
            [model.build_layer(i, seed) for i in range(cuts[k], cuts[k + 1])] for k in range(self.K)
        ]
        self.W: list[list[Weights]] = [[self.now(k)] for k in range(self.K)]
        self.optimizers = [
            optimizer([p for layer in stage for p in layer.parameters()] or [nn.Parameter()])
            for stage in self.stages
        ]

    def now(self, k: int) -> Weights:
        return [
            {name: p.detach().clone() for name, p in layer.named_parameters()}
            for layer in self.stages[k]
        ]

    def leaves(self, k: int, u: int) -> Weights:
        """W[k][u] as leaves of a graph."""
        return [
            {name: w.clone().requires_grad_() for name, w in layer.items()}
            for layer in self.W[k][u]
        ]

    def F(self, k: int, n: int, x: Tensor, weights: Weights) -> Tensor:
        for i, (layer, of_layer) in enumerate(zip(self.stages[k], weights, strict=True)):
            draw_from(self.seed, self.first[k] + i, n)
            x = functional_call(layer, of_layer, (x,))
        return x

    def loss(self, n: int, output: Tensor) -> Tensor:
        return self.model.loss(output, self.targets[n]) / self.M

    def add(self, k: int, weights: Weights) -> None:
        """Add the gradients of leaves to those of the stage."""
        for layer, of_layer in zip(self.stages[k], weights, strict=True):
            for name, p in layer.named_parameters():
                g = of_layer[name].grad
                assert g is not None
                p.grad = g.clone() if p.grad is None else p.grad + g

    def update(self, k: int) -> None:
        self.optimizers[k].step()
        self.optimizers[k].zero_grad()
        self.W[k].append(self.now(k))

    def layers(self) -> list[nn.Module]:
        return [layer for stage in self.stages for layer in stage]

    def train_by_versions(
        self, version: Callable[[int, int], int], replicas: int = 1
    ) -> list[nn.Module]:
        """w' = w - v grad f(w_0, ..., w_{K-1}), w_k of the version that (k, n) gives.

        Replica r has micro-batches n R + r, and the mean of all replicas' gradients counts.
        """
        for t in range(self.N // replicas // self.M):
            of_replicas = [self.gradients_of_step(t, version, r, replicas) for r in range(replicas)]
            for k in range(self.K):
                parameters = [p for layer in self.stages[k] for p in layer.parameters()]
                for i, p in enumerate(parameters):
                    total = of_replicas[0][k][i]
                    for other in of_replicas[1:]:
                        total = total + other[k][i]
                    p.grad = total / replicas
                self.update(k)
        return self.layers()

    def gradients_of_step(
        self, t: int, version: Callable[[int, int], int], r: int, replicas: int
    ) -> list[list[Tensor]]:
        for n in range(t * self.M, (t + 1) * self.M):
            weights = [self.leaves(k, version(k, n)) for k in range(self.K)]
            x = self.inputs[n * replicas + r]
            for k in range(self.K):
                x = self.F(k, n * replicas + r, x, weights[k])
            self.loss(n * replicas + r, x).backward()
            for k in range(self.K):
                self.add(k, weights[k])
        found = [
            [p.grad for layer in stage for p in layer.parameters() if p.grad is not None]
            for stage in self.stages
        ]
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        return found


def pipedream(rival: Rival, replicas: int = 1) -> list[nn.Module]:
    """w^(t+1) = w^(t) - v grad f(w_0^(t-K+1), w_1^(t-K+2), ..., w_{K-1}^(t)), M = 1.

    With M micro-batches a step it is micro-batches that stages are ahead, M of them an update. With
    replicas a forward runs while their gradients are averaged.
    """
    averaging = 1 if replicas > 1 else 0

    def version(k: int, n: int) -> int:
        return max(n - (rival.K - 1 - k) - averaging, 0) // rival.M

    return rival.train_by_versions(version, replicas)


def pipedream_2bw(rival: Rival, replicas: int = 1, drains: Collection[int] = ()) -> list[nn.Module]:
    """W^(t+1) = W^(t) - v grad f(W^(t-1)), at every stage; grad f(W^(t)) after a drain."""

    def version(k: int, n: int) -> int:
        t = n // rival.M
        return t if t == 0 or t in drains else t - 1

    return rival.train_by_versions(version, replicas)


def ddg(rival: Rival) -> list[nn.Module]:
    """Iteration t: one after the other h_k^t = F(h_{k-1}^t; w_k^t); then, all at once, each module
    goes back with the error gradient of micro-batch t - (K-1-k), which the module above has had
    the iteration before, through what its forward of then kept, and updates."""
    K, kept = rival.K, {}  # noqa: N806
    errors: dict[tuple[int, int], Tensor] = {}
    for t in range(rival.N + K - 1):
        x = rival.inputs[t] if t < rival.N else None
        for k in range(K):
            if x is not None:
                entered = x.detach().clone().requires_grad_(k > 0)
                weights = rival.leaves(k, -1)
                x = rival.F(k, t, entered, weights)
                kept[k, t] = entered, weights, x
        _back_at_once(rival, t, kept, errors, delay=lambda k: K - 1 - k)
    return rival.layers()


def _back_at_once(rival: Rival, t: int, kept, errors, delay) -> None:  # type: ignore[no-untyped-def]
    before = dict(errors)  # of the iterations before, for everyone
    for k in range(rival.K):
        n = t - delay(k)
        if not 0 <= n < rival.N:
            continue
        entered, weights, output = kept.pop((k, n))
        if k == rival.K - 1:
            rival.loss(n, output).backward()
        else:
            output.backward(before[k + 1, n])
        if k > 0:
            errors[k, n] = entered.grad
        rival.add(k, weights)
        if (n + 1) % rival.M == 0:
            rival.update(k)


def features_replay(rival: Rival) -> list[nn.Module]:
    """Iteration t: h_k^t as in DDG, of which the inputs alone are kept; then each module runs
    forward again from its input of micro-batch t - (K-1-k), now at w_k^t, and goes back through
    that with the error gradient from above."""
    K, features = rival.K, {}  # noqa: N806
    errors: dict[tuple[int, int], Tensor] = {}
    for t in range(rival.N + K - 1):
        if t < rival.N:
            x = rival.inputs[t]
            for k in range(K):
                features[k, t] = x
                with torch.no_grad():
                    x = rival.F(k, t, x, rival.W[k][-1])
        replayed = {}
        for k in range(K):
            n = t - (K - 1 - k)
            if 0 <= n < rival.N:
                entered = features.pop((k, n)).detach().clone().requires_grad_(k > 0)
                weights = rival.leaves(k, -1)
                replayed[k, n] = entered, weights, rival.F(k, n, entered, weights)
        _back_at_once(rival, t, replayed, errors, delay=lambda k: K - 1 - k)
    return rival.layers()


def fdg(rival: Rival, beta: float) -> list[nn.Module]:
    """Iteration t: module k takes h_{k-1} of micro-batch t - k, which the module below made the
    iteration before, and goes back with beta times the gradient of micro-batch t - 2(K-1) + k,
    which the module above had the iteration before; its forward of then was 2(K-1-k) iterations
    ago, and its weights are those of then."""
    K, kept = rival.K, {}  # noqa: N806
    made: dict[tuple[int, int], Tensor] = {}
    gradients: dict[tuple[int, int], Tensor] = {}
    for t in count():
        arrived, above = dict(made), dict(gradients)
        if t == rival.N + 2 * (K - 1):
            return rival.layers()
        for k in range(K):
            n = t - k
            if 0 <= n < rival.N:
                x = rival.inputs[n] if k == 0 else arrived[k - 1, n]
                entered = x.detach().clone().requires_grad_(k > 0)
                weights = rival.leaves(k, -1)
                output = rival.F(k, n, entered, weights)
                kept[k, n] = entered, weights, output
                made[k, n] = output.detach()
            n = t - 2 * (K - 1) + k
            if 0 <= n < rival.N:
                entered, weights, output = kept.pop((k, n))
                if k == K - 1:
                    rival.loss(n, output).backward()
                else:
                    output.backward(beta * above[k + 1, n])
                if k > 0:
                    gradients[k, n] = entered.grad
                rival.add(k, weights)
                if (n + 1) % rival.M == 0:
                    rival.update(k)
    raise AssertionError


REFERENCES: dict[str, Callable[..., list[nn.Module]]] = {
    "pipedream": pipedream,
    "pipedream-2bw": pipedream_2bw,
    "ddg": ddg,
    "fr": features_replay,
    "fdg": fdg,
}
