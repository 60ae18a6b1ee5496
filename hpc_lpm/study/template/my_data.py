"""A data set to edit: a function that returns a part for training and one for testing.

They are data sets of torch's protocol. Every rank calls the function and must get the same samples.
"""

import torch
from torch.utils.data import TensorDataset


def stripes(data_dir, samples=2400, size=12):
    """Return images of upright (1) or level (0) stripes under noise.

    Args:
        data_dir: the folder that `data_dir` of a campaign names, or None.
        samples: images for training; a sixth as many are there for testing.
        size: rows and columns of an image.
    """
    bars = (torch.arange(size) % 2).float()

    def part(seed, count):
        chances = torch.Generator().manual_seed(seed)
        targets = torch.arange(count) % 2
        noise = 2 * torch.randn(count, 1, size, size, generator=chances)
        upright = targets.view(-1, 1, 1, 1) == 1
        stripes = torch.where(upright, bars.view(1, -1), bars.view(-1, 1))
        return TensorDataset(stripes + noise, targets)

    return part(0, samples), part(1, samples // 6)
