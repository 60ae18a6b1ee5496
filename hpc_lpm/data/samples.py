"""The samples of one part of a data set, of which micro-batches are made."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.data.moments import Moments
from hpc_lpm.errors import InputError


@dataclass(frozen=True)
class Draws:
    """What random changes of training samples are drawn from: they are a function of these alone.

    A sample's numbers depend on (seed, epoch, index of the sample), whoever loads it and when.
    """

    seed: int
    epoch: int


class Samples(ABC):
    """One part of a data set: numbered samples, of which micro-batches are made.

    Attributes:
        in_order: True if samples can only be had one after the other; epochs are not shuffled then.
    """

    in_order: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the model's inputs for these samples, in this order: tensors [n, ...].

        Args:
            indices: int64 [n], numbers of samples.
            draws: what training samples are changed at random by; None in evaluation.
        """

    @abstractmethod
    def targets(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the targets of these samples, in this order: tensors [n, ...]; see `inputs`."""

    @property
    def moments(self) -> Moments | None:
        """What images that are kept as bytes are normalised by; None of any other samples."""
        return None

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel of the images, scaled to 0..1.

        Raises:
            InputError: if these samples are no images that are kept as bytes.
        """
        raise _no_images_as_bytes()

    def normalized(self, mean: Sequence[float], std: Sequence[float]) -> "Samples":
        """Return the same images, normalised by these means and deviations, one a channel.

        Raises:
            InputError: if these samples are no images that are kept as bytes.
        """
        raise _no_images_as_bytes()


class Split(Samples):
    """Samples in memory: raw inputs [n, ...] and targets [n, ...].

    Images are kept as bytes (uint8, 0 to 255) and normalised a micro-batch at a time: `mean` and
    `std` are those of the training images scaled to 0..1, as numbers or as tensors [channels, 1,
    1]. Floating-point inputs are taken as they are; tokens are kept as integers of any other type.

    Raises:
        InputError: if inputs or targets are no tensors, or differ in their number of samples.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        mean: float | Tensor = 0.0,
        std: float | Tensor = 1.0,
    ) -> None:
        for what, given in (("inputs", inputs), ("targets", targets)):
            if not isinstance(given, Tensor) or given.dim() == 0:
                raise InputError(
                    f"the {what} of a split are {type(given).__name__}, accepted is a torch.Tensor "
                    "[n, ...]: convert them, for example with torch.from_numpy."
                )
        if len(inputs) != len(targets):
            raise InputError(
                f"a split has {len(inputs)} inputs and {len(targets)} targets: give one target "
                "for each input."
            )
        if targets.is_complex():
            raise InputError(
                f"the targets of a split are {_name(targets.dtype)}, accepted are integers and "
                "floating-point numbers: convert them."
            )
        self._inputs = inputs
        self._targets = targets
        self._mean = mean
        self._std = std

    def __len__(self) -> int:
        return len(self._inputs)

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Tensor:
        """Return the model inputs of these samples: float32 images or int64 tokens."""
        chosen = self._inputs[indices]
        if chosen.dtype == torch.uint8:
            return chosen.to(torch.float32).div_(255.0).sub_(self._mean).div_(self._std)
        return chosen.to(torch.float32 if chosen.is_floating_point() else torch.int64)

    def targets(self, indices: Tensor, draws: Draws | None = None) -> Tensor:
        """Return the targets of these samples: int64 or float32."""
        chosen = self._targets[indices]
        return chosen.to(torch.float32 if chosen.is_floating_point() else torch.int64)

    @property
    def moments(self) -> Moments | None:
        """What images that are kept as bytes are normalised by."""
        if self._inputs.dtype != torch.uint8 or self._inputs.dim() != 4:
            return None
        return Moments.by(self._mean, self._std)

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel of the images, scaled to 0..1."""
        if self._inputs.dtype != torch.uint8 or self._inputs.dim() != 4:
            return super().channel_statistics()
        means, deviations = [], []
        levels = torch.arange(256, dtype=torch.float64) / 255.0
        for channel in self._inputs.unbind(1):
            counts = torch.bincount(channel.flatten(), minlength=256).to(torch.float64)
            mean = float((counts * levels).sum() / counts.sum())
            means.append(mean)
            deviations.append(float(((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt()))
        return means, deviations

    def normalized(self, mean: Sequence[float], std: Sequence[float]) -> "Samples":
        """Return the same images, normalised by these means and deviations, one a channel."""
        if self._inputs.dtype != torch.uint8:
            return super().normalized(mean, std)
        # A channel of one colour has no deviation to divide by.
        shape = (-1, 1, 1)
        safe = torch.tensor([value or 1.0 for value in std]).view(shape)
        return Split(self._inputs, self._targets, torch.tensor(mean).view(shape), safe)


class DerivedSamples(Samples):
    """Samples that are made of others, as they are unless a subclass says otherwise."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.in_order = samples.in_order

    def __len__(self) -> int:
        return len(self._samples)

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the model inputs of these samples."""
        return self._samples.inputs(indices, draws)

    def targets(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the targets of these samples."""
        return self._samples.targets(indices, draws)

    @property
    def moments(self) -> Moments | None:
        """What the images of the whole part are normalised by."""
        return self._samples.moments

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and deviation of each channel over the whole part."""
        return self._samples.channel_statistics()


class Subset(DerivedSamples):
    """Some samples of a part, in an order of their own.

    Args:
        samples: the whole part.
        indices: int64 [n], the numbers of the chosen samples there.
    """

    def __init__(self, samples: Samples, indices: Tensor) -> None:
        super().__init__(samples)
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the model inputs of these samples."""
        return super().inputs(self._indices[indices], draws)

    def targets(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the targets of these samples."""
        return super().targets(self._indices[indices], draws)

    def normalized(self, mean: Sequence[float], std: Sequence[float]) -> Samples:
        """Return the same images, normalised by these means and deviations, one a channel."""
        return Subset(self._samples.normalized(mean, std), self._indices)


def _no_images_as_bytes() -> InputError:
    return InputError(
        "--normalize was given, but the inputs of this data set are not images kept as bytes: "
        "leave it out, and normalise where the samples are made."
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
