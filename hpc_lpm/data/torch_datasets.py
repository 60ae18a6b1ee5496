"""Samples of data sets that follow torch's protocol: by index, or one after the other."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from hpc_lpm.activation import Activation, copied, differentiable, mapped
from hpc_lpm.data.samples import Draws, Samples
from hpc_lpm.errors import InputError
from hpc_lpm.random_streams import generators_kept, set_generators
from hpc_lpm.user_functions import describe_raised

Collate = Callable[[list[Any]], Any]
"""Makes a micro-batch (inputs, targets) of a list of samples."""


def samples_of(part: object, name: str, collate: Collate | None = None) -> Samples:
    """Return what holds one part of a user's data set as samples.

    Args:
        part: `Samples`; or a data set of torch's protocol, which has a length and returns samples
            (inputs, target) by their index; or an iterable with a length.
        name: of the part, for messages, such as "the training part of data set 'mine:data'".
        collate: makes a micro-batch of samples, by default torch's `default_collate`.

    Raises:
        InputError: if it is none of these.
    """
    if isinstance(part, Samples):
        return part
    by_index = hasattr(part, "__getitem__") and not isinstance(part, IterableDataset | dict)
    if not by_index and not isinstance(part, Iterable):
        raise InputError(
            f"{name} is {type(part).__name__}, accepted are Split(inputs, targets), a data set "
            "with __len__ and __getitem__, or an iterable with __len__: return one of these."
        )
    try:
        length = len(part)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        raise InputError(
            f"{name} is {type(part).__name__}, which has no length, from which the number of steps "
            "follows: give its class a method __len__ that returns the number of samples."
        ) from None
    if by_index:
        return IndexedSamples(part, length, name, collate or default_collate)
    assert isinstance(part, Iterable)
    return SuccessiveSamples(part, length, name, collate or default_collate)


class _CollatedSamples(Samples):
    """Samples that are loaded one by one and collated to micro-batches.

    The micro-batch that was loaded last is kept, since its targets are asked for after its inputs.
    """

    def __init__(self, length: int, name: str, collate: Collate) -> None:
        self._length = length
        self._name = name
        self._collate = collate
        self._last: tuple[object, tuple[Activation, Activation]] | None = None

    def __len__(self) -> int:
        return self._length

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the collated inputs, floating-point numbers as float32 and integers as int64.

        A layer may change them in place; the micro-batch that is kept stays as it was loaded.
        """
        return copied(self._micro_batch(indices, draws)[0])

    def targets(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the collated targets, floating-point numbers as float32 and integers as int64."""
        return self._micro_batch(indices, draws)[1]

    def _micro_batch(self, indices: Tensor, draws: Draws | None) -> tuple[Activation, Activation]:
        numbers = indices.tolist()
        key = (numbers, draws)
        if self._last is None or self._last[0] != key:
            self._last = key, self._collated(numbers, draws)
        return self._last[1]

    def _collated(
        self, numbers: Sequence[int], draws: Draws | None
    ) -> tuple[Activation, Activation]:
        key = (draws.seed, draws.epoch) if draws else ()
        with generators_kept():
            samples = self._loaded(numbers, key)
            try:
                micro_batch = self._collate(samples)
            except Exception as error:
                raise InputError(
                    f"{self._name}: the samples {numbers[0]} to {numbers[-1]} cannot be made one "
                    f"micro-batch, {describe_raised(error)}: return tensors of one shape, or give "
                    "a function collate."
                ) from error
        if not isinstance(micro_batch, list | tuple) or len(micro_batch) != 2:
            found = type(micro_batch).__name__
            raise InputError(
                f"{self._name} has micro-batches of type {found}, accepted are pairs of inputs and "
                "targets: return (inputs, target) for each sample, or give a function collate that "
                "returns (inputs, targets)."
            )
        inputs, targets = (mapped(half, _usual_type) for half in micro_batch)
        return inputs, targets

    @abstractmethod
    def _loaded(self, numbers: Sequence[int], key: tuple[int, ...]) -> list[Any]:
        """Load samples; whatever they draw at random is a function of the key and the number."""

    def _refusal(self, number: int, error: Exception) -> InputError:
        return InputError(
            f"sample {number} of {self._name} cannot be loaded, {describe_raised(error)}: mend the "
            "sample or leave it out."
        )


class IndexedSamples(_CollatedSamples):
    """Samples of a map-style data set: `dataset[index]` returns (inputs, target)."""

    def __init__(self, dataset: Any, length: int, name: str, collate: Collate) -> None:
        super().__init__(length, name, collate)
        self._dataset = dataset

    def _loaded(self, numbers: Sequence[int], key: tuple[int, ...]) -> list[Any]:
        loaded = []
        for number in numbers:
            set_generators((*key, number))
            try:
                loaded.append(self._dataset[number])
            except Exception as error:
                raise self._refusal(number, error) from error
        return loaded


class SuccessiveSamples(_CollatedSamples):
    """Samples of an iterable, which is run through again for each epoch."""

    in_order = True

    def __init__(self, samples: Iterable[Any], length: int, name: str, collate: Collate) -> None:
        super().__init__(length, name, collate)
        self._samples = samples
        self._iterator: Iterator[Any] = iter(())
        self._pass: tuple[int, ...] | None = None
        self._next = 0

    def _loaded(self, numbers: Sequence[int], key: tuple[int, ...]) -> list[Any]:
        loaded = []
        for number in numbers:
            if key != self._pass or number < self._next:
                set_generators(key)
                self._iterator, self._pass, self._next = iter(self._samples), key, 0
            while self._next <= number:
                set_generators((*key, self._next))
                sample = self._successor()
                self._next += 1
            loaded.append(sample)
        return loaded

    def _successor(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            raise InputError(
                f"{self._name} ended after {self._next} samples, its length says {len(self)}: "
                "correct its length."
            ) from None
        except Exception as error:
            raise self._refusal(self._next, error) from error


def _usual_type(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point():
        return tensor.to(torch.float32)
    return tensor.to(torch.int64) if tensor.dtype in _WHOLE_NUMBERS else tensor


_WHOLE_NUMBERS = {torch.int8, torch.int16, torch.int32}


def declared_classes(part: object) -> int | None:
    """Return the number of classes that a data set tells by `num_classes`, `classes` or `targets`.

    These are the attributes by which torchvision's data sets tell it; None without any, or where
    `targets` are anything but whole numbers from 0, such as texts or boxes.
    """
    number = getattr(part, "num_classes", None)
    if isinstance(number, int):
        return number
    classes = getattr(part, "classes", None)
    if isinstance(classes, int):
        return classes
    if isinstance(classes, Sized):
        return len(classes)
    return _classes_among(getattr(part, "targets", None))


def _classes_among(targets: object) -> int | None:
    """Return the number of classes that targets have, None if they are no whole numbers from 0."""
    if not isinstance(targets, Tensor | list | tuple) or not len(targets):
        return None
    try:
        numbers = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    if differentiable(numbers) or not numbers.numel() or int(numbers.min()) < 0:
        return None
    return int(numbers.max()) + 1
