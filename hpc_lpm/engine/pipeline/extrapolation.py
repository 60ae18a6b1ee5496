"""Predicts weights from the last updates, whichever optimizer has made them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hpc_lpm.engine.pipeline.replaced_weights import replaced_weights
from hpc_lpm.engine.updating import Updates
from hpc_lpm.prediction_rules import (
    UPDATES_KEPT,
    PredictionRule,
    coefficients,
)

_LAST, _BEFORE = "last", "before"
_OWN = -1
"""Stands for this stage among the stages that update its weights."""


@dataclass
class _Alike:
    """Parameters that one stage updates at one rate.

    `last` and `before` are the directions of their last two updates, that is the changes of the
    weights over the rates; empty if there is none.
    """

    stage: int
    group: int
    parameters: list[nn.Parameter]
    last: list[Tensor] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)


class Extrapolation:
    """Predicts weights by a rule that lets the last updates go on; see `prediction_rules`.

    Copies of weights that another stage owns are updated when they come from there, later than this
    stage's own weights are; they are ahead by as many updates more. Their rate is that of the first
    group here.

    Args:
        rule: `last-update` or `second-order`.
        updates: what updates the stage's own weights.
        parameters: of the stage.
        copied: those of them that are copies of other stages' weights, by the stage that owns them.
        in_place: see `replaced_weights`.
    """

    behind = 0

    def __init__(
        self,
        rule: PredictionRule,
        updates: Updates,
        parameters: Sequence[nn.Parameter],
        copied: Mapping[int, Sequence[nn.Parameter]],
        *,
        in_place: bool,
    ) -> None:
        self._rule = rule
        self._updates = updates
        self._in_place = in_place
        self._kept = UPDATES_KEPT[rule]
        self._alike = list(_divided(updates.optimizer, parameters, copied))
        self._made = {alike.stage: 0 for alike in self._alike} | {_OWN: 0}
        # The rates of updates that have been made here and not yet to the copies.
        self._rates: dict[int, deque[float]] = {stage: deque() for stage in copied}

    def begin(self) -> None:
        """Count updates from here on; nothing is in flight."""
        self._made = dict.fromkeys(self._made, 0)

    def is_ahead(self, step: int) -> bool:
        """Tell if a forward pass of this step is to run at predicted weights."""
        return any(step > self._made[alike.stage] and alike.last for alike in self._alike)

    def add_gradients(self, samples: int, step_samples: int) -> None:
        """Do nothing: only whole updates tell of the next one."""

    @contextmanager
    def update(self, *, skipped: bool) -> Iterator[None]:
        """Keep the direction of an update of the stage's own weights; forget all if it is skipped.

        What has led to an update that was skipped says nothing of the next one.
        """
        rates = self._next_rates()
        for queue in self._rates.values():
            queue.append(rates[0])
        own = [alike for alike in self._alike if alike.stage == _OWN]
        with self._directions_of(own, lambda alike: rates[alike.group]):
            yield
        if skipped:
            _forget(own)
        self._made[_OWN] += 1

    @contextmanager
    def update_from(self, stage: int) -> Iterator[None]:
        """Keep the direction of an update of copies of weights that another stage owns."""
        rate = self._rates[stage].popleft()
        copies = [alike for alike in self._alike if alike.stage == stage]
        with self._directions_of(copies, lambda _: rate):
            yield
        if not any(bool(direction.any()) for alike in copies for direction in alike.last):
            _forget(copies)  # their owner has skipped its update
        self._made[stage] += 1

    def _next_rates(self) -> list[float]:
        """Return the rate of each group of the optimizer in its next update."""
        with self._updates.at_next_update():
            return [float(group["lr"]) for group in self._updates.optimizer.param_groups]

    @contextmanager
    def _directions_of(
        self, changed: Sequence[_Alike], rate_of: Callable[[_Alike], float]
    ) -> Iterator[None]:
        before = [[p.detach().clone() for p in alike.parameters] for alike in changed]
        yield
        with torch.no_grad():
            for alike, directions in zip(changed, before, strict=True):
                if (rate := rate_of(alike)) == 0.0:
                    _forget([alike])  # nothing has changed
                    continue
                torch._foreach_sub_(directions, [p.detach() for p in alike.parameters])
                torch._foreach_div_(directions, rate)
                alike.before = alike.last if self._kept > 1 else []
                alike.last = directions

    @contextmanager
    def applied(self, step: int) -> Iterator[None]:
        """Surround a forward pass of this step by predicted weights."""
        rates = self._next_rates()
        changes = [
            (alike.parameters, self._change(alike, step - self._made[alike.stage], rates))
            for alike in self._alike
            if step > self._made[alike.stage] and alike.last
        ]
        with replaced_weights(changes, in_place=self._in_place):
            yield

    def _change(
        self, alike: _Alike, lag: int, rates: Sequence[float]
    ) -> Callable[[list[Tensor]], None]:
        # The owner of copies has made the updates that are still to come to these.
        awaited = self._rates.get(alike.stage)
        rate = awaited[0] if awaited else rates[alike.group]
        first, second = coefficients(self._rule, lag)
        if not alike.before:
            second = 0.0

        def change(weights: list[Tensor]) -> None:
            torch._foreach_add_(weights, alike.last, alpha=-rate * (first + second))
            if second:
                torch._foreach_add_(weights, alike.before, alpha=rate * second)

        return change

    def saved(self) -> Mapping[nn.Parameter, Mapping[str, Tensor]]:
        """Return the directions of the last updates by parameter."""
        found: dict[nn.Parameter, dict[str, Tensor]] = {}
        for alike in self._alike:
            for name, directions in ((_LAST, alike.last), (_BEFORE, alike.before)):
                for parameter, direction in zip(alike.parameters, directions, strict=False):
                    found.setdefault(parameter, {})[name] = direction
        return found

    def restore(self, saved: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
        """Restore the directions of the last updates.

        Parameters that are predicted together do without where one of them has none, as where it
        did not learn before, or was on a stage that had skipped its update.
        """
        for alike in self._alike:
            alike.last = _of_all(alike.parameters, saved, _LAST)
            alike.before = _of_all(alike.parameters, saved, _BEFORE)


def _of_all(
    parameters: Sequence[nn.Parameter],
    saved: Mapping[nn.Parameter, Mapping[str, Tensor]],
    name: str,
) -> list[Tensor]:
    """Return what was saved of parameters by a name; nothing if it is lacking for one of them."""
    found = [saved[p][name] for p in parameters if name in saved.get(p, {})]
    return found if len(found) == len(parameters) else []


def _forget(changed: Iterable[_Alike]) -> None:
    """Let these parameters be predicted by updates to come alone."""
    for alike in changed:
        alike.last, alike.before = [], []


def _divided(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    copied: Mapping[int, Sequence[nn.Parameter]],
) -> Iterator[_Alike]:
    """Divide the parameters by the stage that updates them and the group that has their rate."""
    own = {parameter for parameter in parameters if parameter.requires_grad}
    for stage, copies in copied.items():
        own.difference_update(copies)
        yield _Alike(stage, 0, list(copies))
    for number, group in enumerate(optimizer.param_groups):
        held = [parameter for parameter in group["params"] if parameter in own]
        own.difference_update(held)
        if held:
            yield _Alike(_OWN, number, held)
    # Copies of weights that are on this stage too change with these.
    rest = [parameter for parameter in parameters if parameter in own]
    if rest:
        yield _Alike(_OWN, 0, rest)
