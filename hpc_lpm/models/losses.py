"""The losses that training minimises, by name, and how users add their own.

A loss is named by `--loss` or the key `loss`, with options: `cross-entropy,label_smoothing=0.1`. A
loss of the user's own is `module:function`, which is called with what the last layer returned, the
targets and the options, and returns the mean over the micro-batch as a tensor of one number; or
`module:Class`, a class without parameters of its own such as `torch.nn:MSELoss`, which is made with
the options.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from torch import Tensor, nn

from hpc_lpm.activation import device_of
from hpc_lpm.data.dataset import CLASSES, MULTI_LABEL, NEXT_TOKEN, REGRESSION
from hpc_lpm.errors import InputError
from hpc_lpm.extensions import Registry
from hpc_lpm.identifiers import (
    accepted_options,
    convert_options,
    parse_identifier,
)
from hpc_lpm.user_functions import describe_raised, user_function

Loss = Callable[[Any, Any], Tensor]
"""Returns the mean loss of a micro-batch, given what the last layer returned and the targets."""


def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross entropy of `outputs` [..., classes] for class indices [...].

    Outputs may also have the classes after the samples, as torch does: [n, classes, ...].

    Raises:
        TypeError: if the last layer returned anything but one tensor.
    """
    outputs = _one_tensor(outputs)
    logits = classes_last(outputs, targets).flatten(0, -2)
    return nn.functional.cross_entropy(logits, targets.flatten(), label_smoothing=label_smoothing)


def classes_last(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return outputs [..., classes] of either [..., classes] or [n, classes, ...]."""
    if outputs.shape[:-1] != targets.shape and (
        (*outputs.shape[:1], *outputs.shape[2:]) == tuple(targets.shape)
    ):
        return outputs.movedim(1, -1)
    return outputs


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross entropy of logits [n, labels] for targets of 0 and 1."""
    return nn.functional.binary_cross_entropy_with_logits(alike(outputs, targets), targets)


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared difference of `outputs` and targets of the same shape."""
    return nn.functional.mse_loss(alike(outputs, targets), targets)


def mean_absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute difference of `outputs` and targets of the same shape."""
    return nn.functional.l1_loss(alike(outputs, targets), targets)


def huber(outputs: Tensor, targets: Tensor, delta: float = 1.0) -> Tensor:
    """Return the mean Huber loss: squared below a difference of `delta`, linear above."""
    return nn.functional.huber_loss(alike(outputs, targets), targets, delta=delta)


def alike(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the outputs in the shape of the targets, from which they may differ by ones.

    Torch would spread [n, 1] against [n] to [n, n], and train something else.

    Raises:
        TypeError: if the last layer returned anything but one tensor.
        ValueError: if the shapes differ by more.
    """
    outputs = _one_tensor(outputs)
    if outputs.shape == targets.shape:
        return outputs
    found, wanted = list(outputs.shape), list(targets.shape)
    if [size for size in found[1:] if size != 1] != [size for size in wanted[1:] if size != 1]:
        raise ValueError(f"the last layer returned {found} for targets {wanted}")
    return outputs.reshape(targets.shape)


def _one_tensor(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the last layer returned {type(outputs).__name__}, the loss takes a tensor"
        )
    return outputs


def _users_own(name: str, found: object) -> Callable[..., Tensor]:
    if isinstance(found, type) and issubclass(found, nn.Module):
        return _LossOfClass(name, found)
    function = user_function("loss", name, found, "outputs, targets", "the mean loss")

    @wraps(function)
    def checked(outputs: Any, targets: Any, **options: object) -> Tensor:
        return _one_number(name, function(outputs, targets, **options))

    return checked


class _LossOfClass:
    """A loss that is a module of torch or of the user's, made once its options are known."""

    def __init__(self, name: str, made_of: type[nn.Module]) -> None:
        self.name = name
        self.made_of = made_of

    def with_options(self, options: dict[str, Any]) -> Loss:
        """Return the loss with these arguments of its class."""
        try:
            module = self.made_of(**options)
        except Exception as error:
            raise InputError(
                f"loss {self.name!r} cannot be made, {describe_raised(error)}: correct its options."
            ) from error
        if any(True for _ in module.parameters()):
            raise InputError(
                f"loss {self.name!r} has parameters, which no stage would train: make them a layer "
                "of the model."
            )
        reduction = getattr(module, "reduction", "mean")
        if reduction in {"none", "sum"}:
            raise InputError(
                f"loss {self.name!r} has reduction={reduction!r}, accepted is a loss that returns "
                "the mean over the micro-batch: leave reduction out."
            )

        def loss(outputs: Any, targets: Any) -> Tensor:
            # What the module holds, such as the weights of classes, goes where the outputs are.
            module.to(device_of(outputs))
            return _one_number(self.name, module(outputs, targets))

        return loss

    def __call__(self, outputs: Any, targets: Any, **options: object) -> Tensor:
        return self.with_options(options)(outputs, targets)


def _one_number(name: str, returned: object) -> Tensor:
    if not isinstance(returned, Tensor) or returned.numel() != 1:
        found = list(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise InputError(
            f"loss {name!r} returned {found}, accepted is a tensor of one number: return the mean "
            "over the micro-batch."
        )
    return returned.reshape(())


_OWN: dict[str, Callable[..., Tensor]] = {
    "cross-entropy": cross_entropy,
    "binary-cross-entropy": binary_cross_entropy,
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "huber": huber,
}

LOSSES: Registry[Callable[..., Tensor]] = Registry("loss", "hpc_lpm.losses", _OWN, _users_own)


def is_never_negative(loss: Loss) -> bool:
    """Tell if a loss is one of the toolkit's own, of which none is ever below zero."""
    return (loss.func if isinstance(loss, partial) else loss) in _OWN.values()


LOSS_OF_TASK = {
    CLASSES: "cross-entropy",
    NEXT_TOKEN: "cross-entropy",
    MULTI_LABEL: "binary-cross-entropy",
    REGRESSION: "mse",
}
"""The loss of each task of data, unless another one is asked for."""


def loss_named(identifier: str) -> Loss:
    """Return the loss `name` or `module:attribute`, each with `,option=value ...`.

    Raises:
        InputError: if there is no such loss, or an option or its value is not accepted.
    """
    parsed = parse_identifier(identifier)
    name = parsed.name if parsed.argument is None else f"{parsed.name}:{parsed.argument}"
    found = LOSSES.named(name)
    if isinstance(found, _LossOfClass):
        # The class says itself what it refuses.
        return found.with_options(convert_options(parsed, lambda _, **options: None, {}))
    # The targets are no option.
    targets = next(iter(accepted_options(found, {})), None)
    options = convert_options(parsed, found, {} if targets is None else {targets: None})
    return partial(found, **options) if options else found
