"""An optimizer that a script makes, and the rates that the script sets on it.

A script sets rates between its batches, through a scheduler of torch or by hand, as it would in a
loop of its own: those that the optimizer has when a batch is handed over are the rates of that
batch's update. A stage makes the update later, when the script may have set others.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.parameter_groups import ALL_ALIKE
from hpc_lpm.engine.updating import Updates, Wrap, as_it_is
from hpc_lpm.errors import InputError
from hpc_lpm.prediction_rules import OF_ANY_OPTIMIZER, SPECTRAIN
from hpc_lpm.user_functions import describe_raised

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""Makes an optimizer of a list of parameters: those of a rank that require a gradient."""

_ACCEPTED = (
    "accepted is a function of a list of parameters that returns a torch.optim.Optimizer of all of "
    "them, such as lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)"
)


class UpdatingByScript:
    """Makes the optimizer that a script's own function returns.

    Args:
        make: the function.
        job: the ranks, which build together.
        steps_of_sgd: whether it must take the steps of plain SGD, with or without momentum.
    """

    def __init__(self, make: MakeOptimizer, job: Job, *, steps_of_sgd: bool = False) -> None:
        self._make = make
        self._job = job
        self._steps_of_sgd = steps_of_sgd

    def build(
        self,
        parameters: Sequence[nn.Parameter],
        layers: Mapping[int, nn.Module],
        *,
        rate_divisor: float = 1.0,
        wrap: Wrap = as_it_is,
    ) -> Updates:
        """Make what updates these parameters (collective).

        Raises:
            InputError: on every rank, if the function fails, or returns no optimizer of all of
                them.
        """
        made: list[torch.optim.Optimizer] = []
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        # All ranks together, since those where it works would go on to wait for the others.
        run_on_every_rank(
            self._job,
            lambda: made.append(self._made(learning or [nn.Parameter(torch.zeros(0))])),
            (InputError,),
            lambda problem, _: InputError(f"{problem}."),
        )
        wrapped = wrap(made[0])
        rates = RatesOfBatches(wrapped, rate_divisor)
        return Updates(wrapped, rates, ALL_ALIKE, rates.of_next_update)

    def _made(self, owned: list[nn.Parameter]) -> torch.optim.Optimizer:
        try:
            optimizer = self._make(owned)
        except Exception as error:
            raise InputError(
                f"the optimizer given to initialize raises {describe_raised(error)}: {_ACCEPTED}."
            ) from error
        _check(optimizer, owned)
        if self._steps_of_sgd:
            _check_steps_of_sgd(optimizer)
        return optimizer


def _check(optimizer: object, owned: list[nn.Parameter]) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            f"the optimizer given to initialize returned {type(optimizer).__name__}, {_ACCEPTED}."
        )
    if isinstance(optimizer, torch.optim.LBFGS | torch.optim.SparseAdam):
        raise InputError(
            f"the optimizer given to initialize is {type(optimizer).__name__}, which runs forward "
            "and backward again or takes sparse gradients alone: choose another one."
        )
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    if held != set(owned):
        raise InputError(
            f"the optimizer given to initialize has {len(held)} of the {len(owned)} parameters "
            f"that it was given: {_ACCEPTED}; those that shall not learn have requires_grad False."
        )


def _check_steps_of_sgd(optimizer: torch.optim.Optimizer) -> None:
    plain = type(optimizer) is torch.optim.SGD and not any(
        group["nesterov"] or group["dampening"] or group["maximize"]
        for group in optimizer.param_groups
    )
    if not plain:
        raise InputError(
            f"the prediction rule {SPECTRAIN} was given with an optimizer "
            f"{type(optimizer).__name__}, but it knows the step of torch.optim.SGD with lr, "
            f"momentum and weight_decay alone: use that one, or the rule {OF_ANY_OPTIMIZER}."
        )


class RatesOfBatches(LRScheduler):
    """Lets every update of an optimizer have the settings of the batch that it belongs to.

    Between updates the optimizer's groups have what the script has set.

    Args:
        optimizer: whose groups the script changes.
        rate_divisor: what learning rates are divided by in updates.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rate_divisor: float) -> None:
        # The base class would set rates of its own.
        self.optimizer = optimizer
        self.last_epoch = 0
        self._divisor = rate_divisor
        self._due: deque[list[dict[str, Any]]] = deque()
        self._present: list[dict[str, Any]] = []
        self._depth = 0
        self._groups = len(optimizer.param_groups)
        self._updating = True
        self._clear = optimizer.zero_grad
        # Micro-batches in flight have accumulated gradients that a script must not clear.
        optimizer.zero_grad = self._guarded_zero_grad  # type: ignore[method-assign]
        optimizer.register_step_pre_hook(lambda *_: self._enter())
        optimizer.register_step_post_hook(lambda *_: self._leave())

    def end_updates(self) -> None:
        """Refuse updates from now on, but for those within `updating`, and further parameters."""
        self._updating = False
        self.optimizer.add_param_group = _refuse_parameters  # type: ignore[method-assign]

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Surround what updates the weights."""
        self._updating = True
        try:
            yield
        finally:
            self._updating = False

    def take_batch(self) -> None:
        """Keep the settings that the groups have now, for the update of the next batch."""
        if len(self.optimizer.param_groups) != self._groups:
            _refuse_parameters(None)
        # torch warns of a rate that is stepped before the optimizer is, as it is here on purpose.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        found = [
            {name: _copied(value) for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]
        same = bool(self._due) and _alike(self._due[-1], found)
        self._due.append(self._due[-1] if same else found)

    def step(self, epoch: int | None = None) -> None:
        """Go on to the settings of the next update."""
        self.last_epoch += 1
        if self._due:
            self._due.popleft()

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the rates that the script has set last."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    @contextmanager
    def of_next_update(self) -> Iterator[None]:
        """Surround what needs the settings of the next update, such as its prediction."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        self._check_updating("step")
        self._depth += 1
        if self._depth > 1 or not self._due:
            return
        groups = self.optimizer.param_groups
        self._present = [
            {name: group[name] for name in due}
            for group, due in zip(groups, self._due[0], strict=True)
        ]
        for group, due in zip(groups, self._due[0], strict=True):
            group.update(due)
            if self._divisor != 1.0:
                group["lr"] = group["lr"] / self._divisor

    def _check_updating(self, call: str) -> None:
        if not self._updating:
            raise InputError(
                f"the script called {call}() of the engine's optimizer, accepted is train_batch "
                f"alone, which makes the update itself: remove the call of {call}()."
            )

    def _guarded_zero_grad(self, *arguments: Any, **options: Any) -> None:
        self._check_updating("zero_grad")
        self._clear(*arguments, **options)

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth:
            return
        for group, present in zip(self.optimizer.param_groups, self._present, strict=False):
            group.update(present)
        self._present = []


def _refuse_parameters(param_group: object) -> None:
    raise InputError(
        "the script added a group of parameters to the engine's optimizer, accepted are the groups "
        "that the optimizer given to initialize is made with: make all of them there, and let a "
        "rate be 0 as long as a group is not to learn."
    )


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    if any(isinstance(value, Tensor) for group in one for value in group.values()):
        return False
    return one == other
