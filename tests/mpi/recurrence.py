"""The FBP recurrence in one process, with an explicit history of weights.

It is written from the equations of docs/explanation/schedules-and-weights.md, with stages numbered
k = 1..K, and knows neither the engine nor the schedules. Everything is computed on demand: x(k, n),
the gradients of (k, n) and the weights after u updates are functions of each other.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hpc_lpm.models.layered import LayeredModel

Tensors = tuple[Tensor, ...]

COEFFICIENTS = {
    "last-update": {1: (1.0, 0.0), 2: (2.0, 0.0), 3: (3.0, 0.0), 4: (4.0, 0.0)},
    "second-order": {1: (1.0, 1.0), 2: (2.0, 3.0), 3: (0.7 * 3, 3.0), 4: (0.7 * 4, 4.0)},
    "balanced": {1: (0.75, 0.75), 2: (1.5, 1.95), 3: (0.7 * 3, 3.0), 4: (0.7 * 4, 4.0)},
}
"""c1 and c2 of each rule of prediction by the lag in updates."""


def draw_from(seed: int, layer: int, n: int) -> None:
    """Set torch's generator to what a layer draws from in training."""
    key = repr((seed, layer, n, 0)).encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1)


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
        prediction: str | None = None,
        rate: Callable[[int, int], float] | None = None,
        clip: float | None = None,
        precision: str = "fp32",
        channels_last: bool = False,
        drains: Sequence[int] = (),
        skip: bool = False,
    ) -> None:
        self.drains, self.skip = drains, skip
        self.prediction, self.rate, self.clip = prediction, rate, clip
        self.precision = precision
        self.model, self.inputs, self.targets, self.policy = model, inputs, targets, weights
        self.M, self.N, self.K, self.lead, self.seed = (
            per_step,
            len(inputs),
            len(cuts) - 1,
            lead,
            seed,
        )
        self.updates = -(-self.N // self.M)
        self.layers: dict[int, list[nn.Module]] = {}
        self.first = {k: cuts[k - 1] for k in range(1, self.K + 1)}
        self.optimizers: dict[int, torch.optim.Optimizer] = {}
        self.history: dict[int, list[list[Tensor]]] = {}
        self.velocities: dict[int, list[list[Tensor]]] = {}
        self.directions: dict[int, list[list[Tensor] | None]] = {}
        for k in range(1, self.K + 1):
            self.layers[k] = [model.build_layer(i, seed) for i in range(cuts[k - 1], cuts[k])]
            if channels_last:
                for layer in self.layers[k]:
                    layer.to(memory_format=torch.channels_last)
            self.history[k] = [[p.detach().clone() for p in self.parameters(k)]]
            self.velocities[k] = [[torch.zeros_like(p) for p in self.parameters(k)]]
            self.directions[k] = [None]
            # The optimizer's own copy of the weights, so that its state moves on by whole updates.
            self.own = getattr(self, "own", {})
            self.own[k] = [nn.Parameter(p.detach().clone()) for p in self.parameters(k)]
            self.optimizers[k] = optimizer(self.own[k] or [nn.Parameter(torch.zeros(0))])
        self.x = cache(self.x)  # type: ignore[method-assign]
        self.backward = cache(self.backward)  # type: ignore[method-assign]

    def mixed(self):  # type: ignore[no-untyped-def]
        """Mixed precision, layer by layer; a cast is made anew wherever one is read."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)

    def parameters(self, k: int) -> list[nn.Parameter]:
        return [p for layer in self.layers[k] for p in layer.parameters()]

    def d(self, k: int) -> int:
        return self.lead * (self.K - k)

    def start(self, n: int) -> int:
        """The first micro-batch after the last drain before n; everything counts from there."""
        return max(g * self.M for g in (0, *self.drains) if g * self.M <= n)

    def forward_version(self, k: int, n: int) -> int:
        return max(n - self.d(k), self.start(n)) // self.M

    def backward_version(self, n: int) -> int:
        return n // self.M

    def W(self, k: int, u: int) -> list[Tensor]:
        while len(self.history[k]) <= u:
            g = len(self.history[k]) - 1
            total = self.step_gradients(k, g)
            if self.skip and not all(a is None or a.isfinite().all() for a in total):
                self.history[k].append(self.history[k][g])
                self.velocities[k].append(self.velocities[k][g])
                self.directions[k].append(None)
                continue
            if self.clip is not None and total:
                scale_to_norm(total, self.clip)
            for p, a in zip(self.own[k], total, strict=True):
                p.grad = a
            self.update(k)
        return self.history[k][u]

    def update(self, k: int) -> None:
        """Update stage k from the gradients of its own weights; keep W, v and the direction D.

        D^(u) = (W^(u-1) - W^(u)) / r is the direction of the update that led to W^(u), r its rate.
        """
        g = len(self.history[k]) - 1
        eta = self.eta(k, g)
        if self.rate is not None:
            self.optimizers[k].param_groups[0]["lr"] = eta
        self.optimizers[k].step()
        self.history[k].append([p.detach().clone() for p in self.own[k]])
        state = self.optimizers[k].state
        v = [state[p].get("momentum_buffer") for p in self.own[k]]
        self.velocities[k].append(
            [
                torch.zeros_like(p) if b is None else b.clone()
                for p, b in zip(self.own[k], v, strict=True)
            ]
        )
        change = zip(self.history[k][g], self.history[k][g + 1], strict=True)
        self.directions[k].append([(before - after) / eta for before, after in change])

    def eta(self, k: int, u: int) -> float:
        """The rate of update u of stage k, which makes W^(u+1) of W^(u)."""
        if self.rate is not None:
            return self.rate(k, u)
        eta: float = self.optimizers[k].param_groups[0]["lr"]
        return eta

    def lagged(self, k: int, n: int) -> bool:
        return self.forward_version(k, n) != self.backward_version(n)

    def forward_weights(self, k: int, n: int) -> list[Tensor]:
        """W of the forward version, or its prediction where n lags."""
        u = self.forward_version(k, n)
        weights = self.weights(k, u, n)
        if self.prediction is None or not self.lagged(k, n):
            return weights
        if self.prediction == "spectrain":
            return self.one_step_on(k, n, weights)
        return [self.extrapolated(k, i, u, n) for i in range(len(weights))]

    def extrapolated(self, k: int, i: int, u: int, n: int) -> Tensor:
        """W_i - eta (c1 + c2) D_i^(u) + eta c2 D_i^(u-1), of stage k after u updates.

        c2 is 0 where there is no D^(u-1), and nothing is predicted where there is no D^(u).
        """
        w, last = self.W(k, u)[i], self.directions[k][u]
        if last is None:
            return w
        before = self.directions[k][u - 1]
        c1, c2 = COEFFICIENTS[str(self.prediction)][self.backward_version(n) - u]
        if before is None:
            c2 = 0.0
        eta = self.eta(k, u)
        w = torch.add(w, last[i], alpha=-eta * (c1 + c2))
        return w if before is None or not c2 else torch.add(w, before[i], alpha=eta * c2)

    def one_step_on(self, k: int, n: int, weights: list[Tensor]) -> list[Tensor]:
        """W - eta (gamma v + mean), SpecTrain's prediction.

        The mean is that of the gradients of the micro-batches of this step that are through: those
        of A_k, each weighted as in the step's sum, scaled up to a whole step.
        """
        u = self.forward_version(k, n)
        through = range(u * self.M, max(n - self.d(k), self.start(n)))
        mean = [torch.zeros_like(w) for w in weights]
        for m in through:
            for a, gradient in zip(mean, self.backward(k, m)[1], strict=True):
                a.add_(gradient)
        if through:
            whole = sum(len(self.inputs[m]) for m in self.step(u))
            part = sum(len(self.inputs[m]) for m in through)
            mean = [a * (whole / part) for a in mean]
        if self.skip and not all(a.isfinite().all() for a in mean):
            return weights  # the update to come will be skipped
        eta, gamma = self.eta(k, u), self.optimizers[k].param_groups[0]["momentum"]
        velocity = self.velocities[k][u]
        return [w - eta * (gamma * v + a) for w, v, a in zip(weights, velocity, mean, strict=True)]

    def step_gradients(self, k: int, g: int) -> list[Tensor | None]:
        """The gradients of stage k accumulated over step g, n ascending."""
        total: list[Tensor] = []
        for n in self.step(g):
            gradients = self.backward(k, n)[1]
            total = total or [torch.zeros_like(gradient) for gradient in gradients]
            for a, gradient in zip(total, gradients, strict=True):
                a.add_(gradient)
        return list(total)

    def weights(self, k: int, u: int, n: int) -> list[Tensor]:
        """What stage k computes micro-batch n with, its own weights being those after u updates."""
        return self.W(k, u)

    def step(self, g: int) -> range:
        """The micro-batches of step g; the last may have fewer than M."""
        return range(g * self.M, min((g + 1) * self.M, self.N))

    def loss_divisor(self, n: int) -> float:
        """M where all micro-batches are as large; else so that every sample counts the same."""
        samples = sum(len(self.inputs[m]) for m in self.step(n // self.M))
        return samples / len(self.inputs[n])

    def F(self, k: int, n: int, x: Tensors, weights: list[Tensor], *, update_statistics: bool):  # type: ignore[no-untyped-def]
        for p, w in zip(self.parameters(k), weights, strict=True):
            p.data = w
        before = [[b.clone() for b in layer.buffers()] for layer in self.layers[k]]
        value = x if len(x) > 1 else x[0]
        for i, layer in enumerate(self.layers[k]):
            layer.train()
            draw_from(self.seed, self.first[k] + i, n)
            with self.mixed():
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
        previous, weights = self.x(k - 1, n), self.forward_weights(k, n)
        with torch.no_grad():
            value = self.F(k, n, previous, weights, update_statistics=False)
        return value if isinstance(value, tuple) else (value,)

    def backward(self, k: int, n: int) -> tuple[Tensors, list[Tensor]]:
        """Gradients of stage k's inputs and of its weights, as the weight policy has it."""
        now = self.weights(k, self.backward_version(n), n)
        then = self.forward_weights(k, n)
        replayed = self.policy == "replay" and self.lagged(k, n)
        weights = now if replayed else then
        # Without lag both are the same, but where a copy of another stage's weights is predicted.
        reads_later = self.policy == "live" or (not self.lagged(k, n) and self.policy == "replay")
        above = self.backward(k + 1, n)[0] if k < self.K else ()
        arriving = [t.detach().clone() for t in self.x(k - 1, n)]
        for t in arriving:
            t.requires_grad_(t.is_floating_point() and k > 1)
        parameters = self.parameters(k)
        with ReadingLater(weights, now) if reads_later and not same(then, now) else nullcontext():
            value = self.F(k, n, tuple(arriving), weights, update_statistics=False)
        for p in parameters:
            p.grad = None
        if k == self.K:
            with self.mixed():
                loss = self.model.loss(value, self.targets[n])
            torch.autograd.backward(loss / self.loss_divisor(n))
        else:
            values = value if isinstance(value, tuple) else (value,)
            torch.autograd.backward([v for v in values if v.is_floating_point()], list(above))
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return tuple(t.grad for t in arriving if t.grad is not None), gradients

    def finish(self) -> list[nn.Module]:
        """All layers in the end: last weights, statistics updated in the order of the passes."""
        for k in range(1, self.K + 1):
            self.W(k, self.updates)
        for k in range(1, self.K + 1):
            for kind, n in self.passes(k):
                if (kind == "B") == (self.lagged(k, n) and self.policy == "replay"):
                    weights = (
                        self.forward_weights(k, n)
                        if kind == "F"
                        else self.weights(k, self.backward_version(n), n)
                    )
                    with torch.no_grad():
                        self.F(k, n, self.x(k - 1, n), weights, update_statistics=True)
            weights = self.weights(k, self.updates, self.N + self.d(1))
            for p, w in zip(self.parameters(k), weights, strict=True):
                p.data = w
        return [layer for k in range(1, self.K + 1) for layer in self.layers[k]]

    def then_synchronously(
        self, inputs: list[Tensor], targets: list[Tensor], first: int
    ) -> list[nn.Module]:
        """All layers after whole synchronous steps on further micro-batches, `first` the number of
        the first one: weights, statistics and optimizer go on from where the recurrence ended."""
        layers = self.finish()
        for n, (x, target) in enumerate(zip(inputs, targets, strict=True)):
            value = x
            for i, layer in enumerate(layers):
                draw_from(self.seed, i, first + n)
                value = layer(value)
            if n % self.M == 0:
                for layer in layers:
                    layer.zero_grad()
            torch.autograd.backward(self.model.loss(value, target) / self.M)
            if (n + 1) % self.M == 0:
                for k in range(1, self.K + 1):
                    for own, p in zip(self.own[k], self.parameters(k), strict=True):
                        own.grad = p.grad
                    self.optimizers[k].step()
                    for own, p in zip(self.own[k], self.parameters(k), strict=True):
                        p.data = own.detach().clone()
        return layers

    def passes(self, k: int) -> list[tuple[str, int]]:
        d = self.d(k)
        order = []
        ends = [g * self.M for g in self.drains] + [self.N]
        for first, end in zip([0, *ends], ends, strict=False):
            order += [("F", n) for n in range(first, min(first + d, end))]
            for n in range(first, end):
                if n + d < end:
                    order.append(("F", n + d))
                order.append(("B", n))
        return order


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(a is b for a, b in zip(some, others, strict=True))


def scale_to_norm(gradients: list[Tensor], largest: float) -> None:
    """A times min(1, c / |A|), with torch's 1e-6 against a norm of 0."""
    norm = torch.stack([a.norm() for a in gradients]).norm()
    for a in gradients:
        a.mul_(torch.clamp(largest / (norm + 1e-6), max=1.0))


class ReadingLater(TorchDispatchMode):
    """Make graphs that keep a weight, its cast or a view of them read its value in `now`.

    `places` names the weight that a piece of memory holds or holds a cast of. Casts are seen when
    they are made, and held, so that their memory is not used again.
    """

    def __init__(self, then: list[Tensor], now: list[Tensor]) -> None:
        super().__init__()
        self.now = now
        self.places = {w.untyped_storage().data_ptr(): i for i, w in enumerate(then) if w.numel()}
        self.casts: list[Tensor] = []
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, self.read)

    def __enter__(self):  # type: ignore[no-untyped-def]
        self.hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self.hooks.__exit__(*raised)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten._to_copy.default:
            place = self.places.get(args[0].untyped_storage().data_ptr())
            if place is not None:
                self.casts.append(result)
                self.places[result.untyped_storage().data_ptr()] = place
        return result

    def keep(self, t: Tensor):  # type: ignore[no-untyped-def]
        place = self.places.get(t.untyped_storage().data_ptr())
        if place is None:
            return t
        return (place, t.dtype, t.size(), t.stride(), t.storage_offset())

    def read(self, kept):  # type: ignore[no-untyped-def]
        if isinstance(kept, Tensor):
            return kept
        place, dtype, *geometry = kept
        return self.now[place].to(dtype).as_strided(*geometry)


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
