"""The tied parameters of one rank: which are copies of which, here or on another device."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from hpc_lpm.models.layered import Tie, parameter_named


class TiedParameters:
    """The ends of ties that are in this rank's layers.

    `owned[device]` are the parameters here that have copies on that device, and `copied[device]`
    the copies here of parameters that are on that device, both in the order of the model's ties. A
    tie with both ends here is in neither: `here` has its owner and its copy, and `update` serves
    it.

    A parameter may have copies here and on several devices. Their gradients are added in the order
    of the ties, as sequential training adds them, whatever the order is in which they come.
    """

    def __init__(
        self, ties: Sequence[Tie], layers: dict[int, nn.Module], device_of: Callable[[int], int]
    ) -> None:
        self.owned: defaultdict[int, list[nn.Parameter]] = defaultdict(list)
        self.copied: defaultdict[int, list[nn.Parameter]] = defaultdict(list)
        self.here: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._numbers: defaultdict[int, list[int]] = defaultdict(list)
        self._copies: set[nn.Parameter] = set()
        # The ties whose owners are here, with their copies if these are here too.
        self._owners: dict[int, tuple[nn.Parameter, nn.Parameter | None]] = {}
        self._received: dict[int, torch.Tensor] = {}
        for number, tie in enumerate(ties):
            owner = copy = None
            if tie.owner_layer in layers:
                owner = parameter_named(layers[tie.owner_layer], tie.owner_parameter)
            if tie.copy_layer in layers:
                copy = parameter_named(layers[tie.copy_layer], tie.copy_parameter)
                self._copies.add(copy)
            if owner is not None:
                self._owners[number] = owner, copy
            if owner is not None and copy is not None:
                self.here.append((owner, copy))
            elif owner is not None:
                device = device_of(tie.copy_layer)
                self.owned[device].append(owner)
                self._numbers[device].append(number)
            elif copy is not None:
                self.copied[device_of(tie.owner_layer)].append(copy)

    def without_copies(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Return the parameters that an optimizer updates: all but the copies."""
        return [parameter for parameter in parameters if parameter not in self._copies]

    def replace(self, parameters: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """Let other parameters take the place of the ends of ties that are all here."""
        self.here = [(parameters[owner], parameters[copy]) for owner, copy in self.here]
        self._owners = {
            number: (parameters[owner], None if copy is None else parameters[copy])
            for number, (owner, copy) in self._owners.items()
        }
        self._copies = {parameters[copy] for copy in self._copies}

    def take_gradients(self, device: int, gradients: Iterable[torch.Tensor | None]) -> None:
        """Take the gradients of the copies on a device, None for those that have none."""
        for number, gradient in zip(self._numbers[device], gradients, strict=True):
            if gradient is not None:
                self._received[number] = gradient

    def collect_gradients(self) -> None:
        """Add the accumulated gradients of copies to their owners here, and clear them."""
        for number, (owner, copy) in self._owners.items():
            if copy is None:
                received = self._received.pop(number, None)
                add_gradient(owner, None if received is None else received.to(owner.device))
            else:
                add_gradient(owner, copy.grad)
                copy.grad = None

    @contextmanager
    def update(self) -> Iterator[None]:
        """Surround an optimizer step: add the gradients of copies, then copy the new values here.

        The gradient of a step is summed over its micro-batches for each end, then over the ends.
        """
        self.collect_gradients()
        yield
        with torch.no_grad():
            for owner, copy in self.here:
                copy.copy_(owner)


def add_gradient(parameter: nn.Parameter, gradient: torch.Tensor | None) -> None:
    """Add a gradient, if there is one, to what a parameter has accumulated."""
    if gradient is None:
        return
    if parameter.grad is None:
        parameter.grad = gradient.clone()
    else:
        parameter.grad.add_(gradient)
