"""Plays the order of FBP with K stages in one process, update by update.

Between two updates every stage runs the forwards n + d_k of the micro-batches n whose backwards
follow. Micro-batches with the same version of the weights and the same update form one piece, which
a stage runs at once: the sums are those of METHOD's recurrence, in fewer and larger operations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.delay_study.correction import Correction
from benchmarks.delay_study.optimizers import Optimizer
from benchmarks.delay_study.stages import Piece, Stages, take

Batches = Callable[[int, int], tuple[Tensor, Tensor]]
"""Returns the inputs and targets of the micro-batches from the first up to the second number."""


@dataclass(frozen=True)
class Phase:
    """Updates from `start` up to `stop`, between two drains."""

    start: int
    stop: int
    delayed: bool


@dataclass(frozen=True)
class Event:
    """A pass of one micro-batch, and the version of the stage's weights that it saw."""

    kind: str
    stage: int
    micro_batch: int
    version: int


class Player:
    """Trains stages in FBP's order with lead 1.

    `samples` is the size of a micro-batch, `rate` the learning rate of an update by its number.
    `whole_pieces` must be off where a layer looks at all samples at once, such as BatchNorm. Events
    are recorded where `events` is a list.
    """

    def __init__(
        self,
        stages: Stages,
        optimizer: Optimizer,
        correction: Correction,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        samples: int,
        micro_batches: int,
        rate: Callable[[int], float],
        whole_pieces: bool = True,
    ) -> None:
        self.stages, self.optimizer, self.correction = stages, optimizer, correction
        self.loss, self.rate = loss, rate
        self.samples, self.micro_batches, self.whole_pieces = samples, micro_batches, whole_pieces
        self.events: list[Event] | None = None
        count = len(stages.all)
        self.delays = [count - 1 - index for index in range(count)]
        self._last = torch.zeros_like(stages.weights)
        self._before = torch.zeros_like(stages.weights)
        self._points: dict[tuple[int, int], Tensor] = {}
        self._stashed: list[tuple[int, int, Tensor]] = []

    def train(self, batches: Batches, updates: int) -> Iterator[float]:
        """Yield the training loss of each update."""
        head = round(updates * self.correction.head)
        tail = updates - round(updates * self.correction.tail)
        for phase in (Phase(0, head, False), Phase(head, tail, True), Phase(tail, updates, False)):
            for update in range(phase.start, phase.stop):
                loss = self._forwards(phase, update, batches)
                self._backward(update, loss)
                self._step(update)
                yield float(loss.detach())

    def _forwards(self, phase: Phase, update: int, batches: Batches) -> Tensor:
        """Run the forwards between two updates, stage by stage; return the next update's loss."""
        m, losses = self.micro_batches, []
        for index, delay in enumerate(self.delays):
            ahead = delay if phase.delayed else 0
            low = update * m + (ahead if update > phase.start else 0)
            high = min(update * m + ahead + m, phase.stop * m)
            for start, stop in self._spans(low, high):
                outputs = self._forward(index, start, stop, update, batches)
                if index == len(self.delays) - 1:
                    loss = self.loss(outputs, batches(start, stop)[1])
                    losses.append(loss if stop - start == m else loss * ((stop - start) / m))
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _spans(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Yield the pieces: of one update each, and of one micro-batch unless they are whole."""
        size = self.micro_batches if self.whole_pieces else 1
        while low < high:
            stop = min(high, (low // size + 1) * size)
            yield low, stop
            low = stop

    def _forward(self, index: int, start: int, stop: int, update: int, batches: Batches) -> Tensor:
        """Run a piece through a stage and keep its outputs for the next one."""
        stage = self.stages.all[index]
        if index == 0:
            inputs = batches(start, stop)[0]
        else:
            inputs = take(self.stages.all[index - 1].pieces, start, stop, self.samples)
            if self.correction.shrink != 1:
                inputs.register_hook(lambda gradient: gradient * self.correction.shrink)
        belongs = start // self.micro_batches
        point = self._point(index, belongs - update, update)
        if self.correction.stash:
            outputs, kept = stage.forward_stashed(inputs, point)
            self._stashed.append((index, belongs, kept))
        else:
            outputs = stage.forward_live(inputs, point)
        self._record("forward", index, start, stop, update)
        stage.pieces.append(Piece(start, stop, outputs))
        return outputs  # type: ignore[no-any-return]

    def _point(self, index: int, lag: int, update: int) -> Tensor | None:
        """Return where a stage's forward with a lag is taken, None for its weights as they are."""
        c1, c2 = self.correction.coefficients(lag)
        if update == 0 or (c1, c2) == (0.0, 0.0):
            return None
        if (index, lag) not in self._points:
            part = self.stages.slices[index]
            ratio = self.rate(update) / self.rate(update - 1)
            point = self.stages.weights[part] - ratio * (c1 + c2) * self._last[part]
            self._points[index, lag] = point.add_(self._before[part], alpha=ratio * c2)
        return self._points[index, lag]

    def _backward(self, update: int, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        m = self.micro_batches
        for index in reversed(range(len(self.delays))):
            self._record("backward", index, update * m, (update + 1) * m, update)
        for index, belongs, kept in self._stashed:
            if belongs == update and kept.grad is not None:
                stage = self.stages.all[index]
                stage.gradients.add_(kept.grad)
                if self.correction.compensation:
                    moved = stage.weights - kept.detach()
                    moved.mul_(kept.grad).mul_(kept.grad)
                    stage.gradients.add_(moved, alpha=self.correction.compensation)
        self._stashed = [entry for entry in self._stashed if entry[1] > update]

    def _step(self, update: int) -> None:
        """Update all stages, and predict what is stored if the update is fed back."""
        weights, rate = self.stages.weights, self.rate(update)
        lags = [delay / self.micro_batches for delay in self.delays]
        held = weights.clone()
        self.optimizer.step([rate * self.correction.rate_factor(lag, update) for lag in lags])
        self.stages.gradients.zero_()
        self._before, self._last = self._last, held.sub_(weights)
        self._points.clear()
        if self.correction.fed_back:
            ratio = rate / self.rate(update - 1) if update else 0.0
            change = self._last - ratio * self._before
            for part, lag in zip(self.stages.slices, lags, strict=True):
                weights[part].sub_(change[part], alpha=self.correction.fed_back * lag)

    def _record(self, kind: str, stage: int, start: int, stop: int, version: int) -> None:
        if self.events is not None:
            self.events += [Event(kind, stage, n, version) for n in range(start, stop)]
