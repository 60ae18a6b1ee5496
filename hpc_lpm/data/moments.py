"""What images are normalised by; reading this needs no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Means and standard deviations of images scaled to 0..1, one for all channels or one each."""

    means: list[float]
    deviations: list[float]

    @staticmethod
    def by(mean: "float | Tensor", deviation: "float | Tensor") -> "Moments":
        """Return those that are given as numbers or as tensors [channels, 1, 1]."""
        import torch

        means, deviations = (
            torch.as_tensor(each).reshape(-1).tolist() for each in (mean, deviation)
        )
        return Moments(means, deviations)
