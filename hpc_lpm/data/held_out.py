"""The option `test=` of every source: a share of the samples, or a file or folder of its own."""

from pathlib import Path

import torch
from torch import Tensor

from hpc_lpm.data.images import split_by_class
from hpc_lpm.data.locations import beside
from hpc_lpm.documents import plain_number
from hpc_lpm.errors import InputError

DEFAULT_SHARE = 0.2
"""Share of the samples that become the test part where the data have none and none is named."""


def test_part(owner: str, text: str | None, folder: Path) -> float | Path | None:
    """Read the option `test=`: a number is a share, anything else a path.

    Args:
        owner: the data set for messages.
        text: what the user wrote, or None.
        folder: where a path is looked for that is not found from the current folder.

    Raises:
        InputError: if it is a number outside 0 to 1 and no file or folder of that name exists.
    """
    if text is None:
        return None
    try:
        share = plain_number(text)
    except ValueError:
        return beside(folder, text)
    if 0 < share < 1:
        return share
    if beside(folder, text).exists():
        return beside(folder, text)
    raise InputError(
        f"option 'test' of {owner} is {text}, accepted are a share between 0 and 1, such as 0.2, "
        "and a file or folder."
    )


def split_share(
    samples: int, share: float | None, owner: str, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Choose a share of the samples as test part, the same whenever it is asked for.

    Args:
        samples: the number of samples.
        share: the share that becomes the test part, `DEFAULT_SHARE` if None.
        owner: the data set for messages.
        classes: the class of each sample, int64 [samples], to keep the proportions of the classes.

    Returns:
        The indices of the training and of the test samples, each in a fixed shuffled order.

    Raises:
        InputError: if a part would be empty.
    """
    share = DEFAULT_SHARE if share is None else share
    tested = max(1, round(samples * share))
    if samples - tested < 1:
        raise InputError(
            f"{owner} holds {samples} samples, which a test share of {share:g} leaves no training "
            "part of: name more data or another share with ,test=."
        )
    # Samples that are all of one class are split at random.
    return split_by_class(torch.zeros(samples) if classes is None else classes, tested)
