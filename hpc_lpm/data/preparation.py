"""What a run makes of a data set before it trains: validation part, normalisation, augmentation."""

from dataclasses import replace

import torch

from hpc_lpm.data.augmentation import Augmentation, AugmentedSamples
from hpc_lpm.data.dataset import Dataset
from hpc_lpm.data.samples import Samples, Subset
from hpc_lpm.errors import InputError
from hpc_lpm.options import Normalization


def prepared_dataset(
    dataset: Dataset,
    *,
    seed: int,
    validation: float = 0.0,
    normalize: Normalization = "dataset",
    augment: str | None = None,
) -> Dataset:
    """Return the data set as a run trains on it.

    Args:
        dataset: as it was loaded.
        seed: of the run, by which the validation part is drawn.
        validation: the share of the training samples that are validated on instead.
        normalize: "dataset" as it was loaded; "channels" by the mean and deviation of each channel
            over the training part; "none" from 0 to 1.
        augment: see `Augmentation.parse`.

    Raises:
        InputError: if there is a validation part already, a part would be empty, or the data are
            not images where these are needed.
    """
    if normalize != "dataset":
        dataset = _normalized(dataset, normalize)
    if validation:
        dataset = _with_validation(dataset, seed, validation)
    if augment is not None:
        changes = Augmentation.parse(augment)
        changes.check(dataset)
        dataset = replace(dataset, train=AugmentedSamples(dataset.train, changes))
    return dataset


def _normalized(dataset: Dataset, normalize: Normalization) -> Dataset:
    means, deviations = dataset.train.channel_statistics()
    if normalize == "none":
        means, deviations = [0.0] * len(means), [1.0] * len(means)

    def normalized(samples: Samples) -> Samples:
        return samples.normalized(means, deviations)

    validation = dataset.validation
    return replace(
        dataset,
        train=normalized(dataset.train),
        test=normalized(dataset.test),
        validation=None if validation is None else normalized(validation),
    )


def _with_validation(dataset: Dataset, seed: int, share: float) -> Dataset:
    if dataset.validation is not None:
        raise InputError(
            f"--validation {share:g} was given, but data set {dataset.name} has a validation part "
            "of its own: leave the option out."
        )
    samples = len(dataset.train)
    count = round(samples * share)
    if not 0 < count < samples:
        raise InputError(
            f"--validation {share:g} of the {samples} training samples are {count}, accepted is a "
            "share that leaves at least one sample in each part: change the share."
        )
    if dataset.train.in_order:
        order = torch.arange(samples)
        train, held = order[:-count], order[-count:]
    else:
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
        held, train = order[:count].sort().values, order[count:].sort().values
    return replace(
        dataset, train=Subset(dataset.train, train), validation=Subset(dataset.train, held)
    )
