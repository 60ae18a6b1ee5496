"""A loss that a script hands over as a callable, checked before and whenever it is called."""

import copy
import math
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.activation import describe_tensors, device_of, mapped, tensors_of
from hpc_lpm.errors import InputError
from hpc_lpm.models.losses import Loss
from hpc_lpm.user_functions import describe_raised

_ACCEPTED = "accepted is a callable loss(outputs, targets) that returns the mean loss"


def own_loss(loss: object) -> Loss:
    """Return a loss of the user's as the loss of a model.

    A module, such as `nn.CrossEntropyLoss()`, is copied to the device of the outputs when it is
    first called there; the user's own stays as it is.

    Args:
        loss: takes what the last layer returned and the targets of a micro-batch, and returns the
            mean over the micro-batch as a tensor of one number.

    Raises:
        InputError: if it is not callable, is a class, has parameters, or is a module of torch that
            does not return the mean. The loss that is returned raises it if the user's raises
            anything, returns anything but one number that depends on the outputs, or turns out to
            return the sum over the samples.
    """
    if isinstance(loss, _OwnLoss):
        return loss
    if isinstance(loss, type):
        raise InputError(
            f"the loss is the class {loss.__name__}, {_ACCEPTED}: write {loss.__name__}(), with "
            "brackets."
        )
    if not callable(loss):
        raise InputError(
            f"the loss is a {type(loss).__name__}, {_ACCEPTED}: give one, such as "
            "torch.nn.functional.cross_entropy."
        )
    if isinstance(loss, nn.Module):
        _check_module(loss)
    return _OwnLoss(loss)


def _check_module(loss: nn.Module) -> None:
    name = type(loss).__name__
    if any(True for _ in loss.parameters()):
        raise InputError(
            f"the loss {name} has parameters, which no stage would train: make them a layer of the "
            "model."
        )
    reduction = getattr(loss, "reduction", "mean")
    if reduction in {"none", "sum"}:
        raise InputError(
            f"the loss {name} has reduction={reduction!r}, {_ACCEPTED}: leave reduction out."
        )


class _OwnLoss:
    """Calls the user's loss and checks what it returns."""

    def __init__(self, loss: Any) -> None:
        self._loss = loss
        self._copies: dict[torch.device, nn.Module] = {}
        self._is_mean = False
        self.__name__ = getattr(loss, "__name__", type(loss).__name__)

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        try:
            returned = self._on(outputs)(outputs, targets)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the loss {self.__name__} raises {describe_raised(error)} on outputs "
                f"{_described(outputs)} and targets {_described(targets)}: correct it, or give it "
                "targets that suit it."
            ) from error
        if not isinstance(returned, Tensor) or returned.numel() != 1:
            raise InputError(
                f"the loss {self.__name__} returned {_described(returned)}, accepted is a tensor "
                "of one number: return the mean over the micro-batch."
            )
        if torch.is_grad_enabled() and not returned.requires_grad and _has_history(outputs):
            raise InputError(
                f"the loss {self.__name__} returned a number without its history, from which no "
                "gradient can be computed: return the tensor itself, without detach() or item()."
            )
        if not self._is_mean:
            self._check_mean(float(returned.detach()), outputs, targets)
        return returned.reshape(())

    @torch.no_grad()
    def _check_mean(self, whole: float, outputs: Any, targets: Any) -> None:
        """Compare the loss of a micro-batch with those of its halves, once there is one of two.

        Raises:
            InputError: if it is their sum, which weighs samples otherwise than their mean.
        """
        samples = len(tensors_of(outputs)[0]) if tensors_of(outputs) else 0
        if samples < 2 or not math.isfinite(whole) or whole == 0.0:
            return
        self._is_mean = True
        half = samples // 2
        parts = []
        # Not every loss is one of samples; what it cannot take it need not be compared by.
        with suppress(Exception):
            for start, stop in ((0, half), (half, samples)):
                found, wanted = (
                    mapped(each, partial(_rows, start=start, stop=stop, of=samples))
                    for each in (outputs, targets)
                )
                parts.append(float(self._on(outputs)(found, wanted).detach()))
        if len(parts) == 2 and math.isclose(whole, sum(parts), rel_tol=1e-4):
            raise InputError(
                f"the loss {self.__name__} returned {whole:g} for {samples} samples and "
                f"{parts[0]:g} and {parts[1]:g} for their halves, which is a sum, {_ACCEPTED}: "
                'divide it by the number of samples, or leave reduction="sum" out.'
            )

    def _on(self, outputs: Any) -> Any:
        if not isinstance(self._loss, nn.Module):
            return self._loss
        device = device_of(outputs)
        if device not in self._copies:
            self._copies[device] = copy.deepcopy(self._loss).to(device)
        return self._copies[device]


def _rows(tensor: Tensor, start: int, stop: int, of: int) -> Tensor:
    """Return some rows of a tensor that has one for each sample, any other tensor as it is."""
    return tensor[start:stop] if tensor.dim() and len(tensor) == of else tensor


def _has_history(outputs: Any) -> bool:
    return any(tensor.requires_grad for tensor in tensors_of(outputs))


def _described(value: Any) -> str:
    tensors = tensors_of(value)
    return describe_tensors(tensors) if tensors else type(value).__name__
